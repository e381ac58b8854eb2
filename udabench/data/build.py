"""From a configuration and two data sets to the batch function of a stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from udabench.config import DataConfig
from udabench.data.batches import BatchFunction, DomainBatches, LayerReader
from udabench.data.mining import Mined
from udabench.data.parallel import Progress
from udabench.data.randomness import seed_of
from udabench.data.resize import Resized
from udabench.data.sampler import Counts, Paired, Sampler, Share, Uniform, rare_class_sampler, weighted_sampler
from udabench.data.statistics import class_counts, to_classes
from udabench.data.store import PreparedDataset, prefer_prepared
from udabench.dataset import Dataset, Unlabelled
from udabench.errors import DataError, UsageError
from udabench.labels import LabelSpace
from udabench.method import Domain, Stage
from udabench.size import Size


@dataclass(frozen=True)
class Builder:
    """Everything of a run that its batches depend on, but for the stage.

    Attributes:
        seed: the run's.
        config: sizes, crop, sampler, ...
        classes: the task's outputs; labels are mapped to them.
        source, target: opened data sets (None: never opened).
        target_labels: the permission to train on the target's labels. Without it the batch function holds an
            unlabelled view, and no label file of the target is opened.
        rank, world: this process among those that train together.
        progress: told while class statistics are counted.
    """

    seed: int
    config: DataConfig
    classes: LabelSpace
    source: Dataset | None
    target: Dataset | None
    target_labels: bool = False
    rank: int = 0
    world: int = 1
    progress: Progress | None = None
    _samplers: dict[str, Sampler] = field(default_factory=dict)

    def images(self, domain: Domain) -> Resized:
        """A domain's training images at their training size, from the prepared store where there is one; the target
        without labels unless they are permitted."""
        dataset = self.stored(domain)
        size = training_size(self._dataset(domain), domain, self.config)
        return Resized(dataset if self._labelled(domain) else Unlabelled(dataset), size)

    def stored(self, domain: Domain) -> Dataset:
        """A domain's data as it will be read: from the prepared store where a valid one exists, else raw."""
        dataset = self._dataset(domain)
        return prefer_prepared(dataset, training_size(dataset, domain, self.config), self.config.store)

    def stage(
        self, stage: Stage, layers: Mapping[str, LayerReader] | None = None, mined: Sequence[int] = ()
    ) -> BatchFunction:
        """The batch function of a stage.

        Args:
            layers: a reader for each of ``stage.layers``, of the version that is valid now.
            mined: the classes of ``stage.mining``, of that version too.

        Raises:
            UsageError: a crop that does not fit, a batch that the processes cannot share, unequal batches with the
                paired sampler, a share of the source with a sampler that draws from all of it.
            DataError: a labelled sample without a label, empty class statistics.
        """
        halves = {domain: self._half(domain, stage, layers or {}, mined) for domain in stage.domains}
        return BatchFunction(
            self.seed, stage.name, halves.get("source"), halves.get("target"), rank=self.rank, world=self.world
        )

    def _half(
        self, domain: Domain, stage: Stage, layers: Mapping[str, LayerReader], mined: Sequence[int]
    ) -> DomainBatches:
        config, images = self.config, self.images(domain)
        check_fit(domain, images.size, config.crop, stage.context)
        check_shares([domain], config, self.world)
        labelled = self._labelled(domain)
        if labelled:
            check_labels(self._dataset(domain))
        return DomainBatches(
            domain=domain,
            images=images,
            lookup=self.classes.lookup(self._dataset(domain).label_space) if labelled else None,
            sampler=self._sampler(domain, stage),
            batch=config.source_batch if domain == "source" else config.target_batch,
            crop=config.crop,
            context=stage.context,
            scale=config.scale,
            flip=config.flip,
            max_ratio=config.crop_max_ratio,
            min_wanted=config.rcs_min_pixels * config.rcs_min_crop_ratio,
            layers={name: layers[name] for name, (of, _) in stage.layers.items() if of == domain},
            uncut=stage.uncut,
            mined=_mined(stage, domain, mined),
        )

    def _sampler(self, domain: Domain, stage: Stage) -> Sampler:
        kind = self.config.sampler
        if domain == "source" and stage.source_share < 1:
            return self._share(stage)
        if kind in ("rcs", "weighted") and domain == "source":
            if kind not in self._samplers:
                self._samplers[kind] = self._by_classes()
            return self._samplers[kind]
        if kind == "paired" and len(stage.domains) == 2:
            return self._paired(domain, stage)
        return Uniform(len(self._dataset(domain)), seed_of(self.seed, stage.name, domain))

    def _share(self, stage: Stage) -> Share:
        if self.config.sampler != "uniform":
            raise UsageError(
                f"Stage '{stage.name}' trains on {stage.source_share:.3g} of the source's images, but data.sampler = "
                f"{self.config.sampler} draws from all of them. Use data.sampler=uniform."
            )
        whole, key = len(self._dataset("source")), seed_of(self.seed, stage.name, "share")
        part = Uniform(max(1, int(whole * stage.source_share)), seed_of(self.seed, stage.name, "source"))
        return Share(whole, part, key)

    def _paired(self, domain: Domain, stage: Stage) -> Paired:
        if self.config.source_batch != self.config.target_batch:
            raise UsageError(
                f"data.sampler = paired draws pairs, but data.source_batch is {self.config.source_batch} and "
                f"data.target_batch {self.config.target_batch}. Make them equal, or take another sampler."
            )
        sources, targets = len(self._dataset("source")), len(self._dataset("target"))
        return Paired(sources, targets, seed_of(self.seed, stage.name, "pairs"), target=domain == "target")

    def _by_classes(self) -> Sampler:
        config, counts, names = self.config, self._counts(), self._dataset("source").names
        if config.sampler == "weighted":
            return weighted_sampler(counts, names)
        return rare_class_sampler(counts, config.rcs_temperature, config.rcs_min_pixels, names)

    def _counts(self) -> Counts:
        """Pixels of the task's classes in each image of the source."""
        dataset = self._dataset("source")
        stored = self.stored("source")
        if isinstance(stored, PreparedDataset):
            counts = stored.counts
        else:
            counts = class_counts(dataset, self.config.store, progress=self.progress)
        return to_classes(counts, dataset.label_space, self.classes)

    def _labelled(self, domain: Domain) -> bool:
        return domain == "source" or self.target_labels

    def _dataset(self, domain: Domain) -> Dataset:
        dataset = self.source if domain == "source" else self.target
        if dataset is None:
            raise UsageError(f"The stage asks for the {domain} domain, but the run has no {domain} data.")
        return dataset


def _mined(stage: Stage, domain: Domain, classes: Sequence[int]) -> Mined | None:
    """Where the stage's mining goes by a layer of this domain, and there is something to be mined."""
    mining = stage.mining
    if mining is None or not classes or stage.layers[mining.layer][0] != domain:
        return None
    return Mined(mining.layer, tuple(classes), mining.chance)


def training_size(dataset: Dataset | type[Dataset], domain: Domain, config: DataConfig) -> Size:
    """The size to which a domain's images are resized before the crop."""
    configured = config.source_size if domain == "source" else config.target_size
    return configured or dataset.train_size


def check_fit(domain: str, size: Size, crop: Size, context: Size | None) -> None:
    """Raises UsageError when a crop is larger than what it is cut from."""
    smaller = "Make the crop smaller, the images larger, or choose a preset for small images (quick)."
    around = "Make the images larger, or do without the larger crop around (T2S-DA: translate_whole=false)."
    steps = [("data.crop", crop, f"data.{domain}_size", size, smaller)]
    if context is not None:
        steps = [("the stage's context", context, f"data.{domain}_size", size, around)]
        steps.append(("data.crop", crop, "the stage's context", context, smaller))
    for what, inner, where, outer, advice in steps:
        if inner.height > outer.height or inner.width > outer.width:
            raise UsageError(f"{what} {inner} does not fit {where} {outer}. {advice}")


def check_shares(domains: Sequence[Domain], config: DataConfig, world: int) -> None:
    """Raises UsageError when ``world`` processes cannot have equal parts of a batch."""
    for domain in domains:
        batch = config.source_batch if domain == "source" else config.target_batch
        if batch % world:
            raise UsageError(
                f"data.{domain}_batch = {batch} does not divide by the {world} processes that train together. Each "
                f"takes as many images: use a multiple of {world}, or another --nproc-per-node."
            )


def check_labels(dataset: Dataset) -> None:
    """Raises DataError when labels are missing, before the training instead of in its middle. Opens no file."""
    missing = [name for name in dataset.names if not dataset.has_label(name)]
    if missing:
        raise DataError(
            f"{dataset.label_path(missing[0])} is missing: {len(missing)} of {len(dataset)} images of "
            f"{type(dataset).__name__} '{dataset.split}' have no label. 'udabench data doctor' lists them."
        )
