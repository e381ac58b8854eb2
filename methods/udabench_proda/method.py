"""ProDA (Zhang et al. 2021): rectified soft labels and consistent assignments to prototypes, then distillation."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Generator as Rng
from torch import Tensor, nn

from udabench.augment.randaugment import RandAugment, StrongView
from udabench.method import (
    Batch,
    Event,
    Group,
    Loss,
    Method,
    Optimizer,
    Panel,
    Probe,
    Samples,
    Scalar,
    Setup,
    Stage,
)
from udabench.network import Network, Output
from udabench.parts.confidence import uniform_divergence
from udabench.parts.distillation import distillation_loss
from udabench.parts.ema import Ema
from udabench.parts.grid import inside, masked, nearest
from udabench.parts.lengths import even_lengths, warmup_lengths
from udabench.parts.losses import cross_entropy, segmentation_loss, upsample
from udabench.parts.pseudo_label_pass import PseudoLabelPass
from udabench.parts.soft_labels import BYTES, SOFT, cut, unpack
from udabench.size import Size
from udabench.world import per_rank
from udabench_proda.config import ProDAConfig
from udabench_proda.losses import symmetric_cross_entropy
from udabench_proda.passes import PrototypePass, SureRule, features_of
from udabench_proda.prototypes import TargetPrototypes, means_of, rectified_label

LABEL = "pseudo_label"


class ProDA(Method):
    """A network for stage 1, and one for each distillation, trained one after the other; each labels for the next."""

    Config = ProDAConfig
    outputs = ("source", "target")
    networks: nn.ModuleList
    """Those whose training was begun: what a run of fewer stages stores is what one of more stages takes over."""

    def __init__(self, config: ProDAConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.config = config
        first = setup.network()
        students = [setup.network(config.distil_weights, config.distil_options) for _ in range(config.distillations)]
        self._all = [first, *students]
        self.networks = nn.ModuleList([first])
        self.teacher = Ema(first, config.ema, norms=config.teacher_norms, ramp=False)
        self.prototypes = TargetPrototypes(
            len(setup.task.classes),
            first.embedding_channels or first.feature_channels[-1],
            config.prototype_rate,
            config.prototype_mean,
            config.prototype_pixels,
        )
        self.augment = RandAugment(config.operations, cutout=config.cutout)

    # Stages

    def stages(self) -> Sequence[Stage]:
        warmup, *lengths = self._lengths()
        stages = [self._warm_up(warmup)] if warmup else []
        stages += [self._prototypes(), self._stage_1(lengths[0])]
        for number, iterations in enumerate(lengths[1:], start=1):
            stages += [self._labelling(number), self._distillation(number, iterations)]
        return stages

    def _lengths(self) -> list[int]:
        """The warm-up's steps, and those of each other training."""
        share, whole, trainings = self.config.warmup_share, self.setup.iterations, self.config.distillations + 1
        if share is None:
            return even_lengths(whole, trainings + 1)
        return warmup_lengths(whole, share, trainings)

    def _warm_up(self, iterations: int) -> Stage:
        optimizers = {"segmenter": self._tuner(self._network(0), self.config.warmup_lr)}
        return Stage("warmup", iterations, self.warm_up, optimizers, domains=("source",))

    def _prototypes(self) -> Stage:
        network, classes = self._network(0), self.setup.task.classes
        prepare = PrototypePass(network, self.prototypes, classes, self.config.soft_classes)
        cell = BYTES * min(self.config.soft_classes, len(classes))
        return Stage("prototypes", 0, domains=("target",), prepare=prepare, pixel_bytes=cell / network.output_stride**2)

    def _stage_1(self, iterations: int) -> Stage:
        return Stage(
            "stage1",
            iterations,
            self.adapt,
            {"segmenter": self.setup.segmenter(self._network(0))},
            layers={SOFT: ("target", SOFT)},
            uncut=(SOFT,),
            start=self._copy_teacher,
            after_step=self._follow,
        )

    def _labelling(self, number: int) -> Stage:
        """The pass of the network before the ``number``-th distillation, whose labels its student learns."""
        write = PseudoLabelPass(
            partial(self._probabilities, number - 1), self.setup.task.classes, SureRule(self.config.label_threshold)
        )
        return Stage(f"labels{number + 1}", 0, domains=("target",), prepare=write)

    def _distillation(self, number: int, iterations: int) -> Stage:
        return Stage(
            f"stage{number + 1}",
            iterations,
            partial(self.distil, number),
            {"segmenter": self._tuner(self._network(number), self.config.distil_lr)},
            layers={LABEL: ("target", LABEL)},
            start=partial(self._begin, number),
        )

    def _copy_teacher(self) -> None:
        self.teacher.module.load_state_dict(self.networks[0].state_dict())

    def _follow(self, iteration: int) -> None:
        self.teacher.update(self.networks[0], iteration)

    def _begin(self, number: int) -> None:
        self.networks.extend(self._all[len(self.networks) : number + 1])
        if self.config.distil_start == "teacher" and number > 1:
            self.networks[number].load_state_dict(self.networks[number - 1].state_dict())

    def _tuner(self, network: Network, lr: float) -> Optimizer:
        """The configured optimiser at the learning rates of warm-up and distillations."""
        optim, optimizer = self.setup.optim, self.setup.segmenter(network)
        roles = network.parameter_groups().items()
        heads = {id(parameter) for role, group in roles if role.startswith("head") for parameter in group}

        def changed(group: Group) -> Group:
            factor = self.config.other_head_factor / optim.head_lr_factor if id(group.parameters[0]) in heads else 1.0
            return replace(group, lr=group.lr * factor * lr / optim.lr)

        return replace(optimizer, groups=[changed(group) for group in optimizer.groups])

    # Steps

    def warm_up(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step on the source alone."""
        yield self._supervised(self._network(0), batch)

    def adapt(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step of stage 1: source, rectified labels of the image, and the same assignments for its strong view."""
        assert batch.target is not None
        target, student = batch.target, self._network(0)
        yield self._supervised(student, batch)
        seen: Output = self.teacher(target.image)
        distances = self.prototypes.distances(self._on_grid(features_of(seen)))
        soft = cut(unpack(target.layers[SOFT], len(self.setup.task.classes)), target, self._grid)
        label, plain = self._labels(soft, distances, target)
        yield self._target_loss(student(target.image), label, target)
        if self.config.consistency_weight:
            view = self.augment(target.image, rng)
            yield self._consistency(student, view, distances, target)
            yield Panel("strong", lambda: view.image)
        crowd = masked(seen.logits.argmax(1), target)
        self.prototypes.update(means_of(features_of(seen), crowd, len(self.setup.task.classes)))
        yield from self._report(label, plain, target)

    def distil(self, number: int, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step of a later stage: the previous network's labels, and its probabilities for the strong view."""
        assert batch.target is not None
        student, teacher = self._network(number), self._network(number - 1).eval()
        yield self._supervised(student, batch)
        view = self.augment(batch.target.image, rng)
        label = view.carry_labels(nearest(batch.target.layers[LABEL], self._grid))
        with torch.no_grad():
            wanted = self._on_grid(teacher(view.image).logits)
        output = student(view.image)
        logits = self._on_grid(output.logits)
        pseudo = cross_entropy(logits, label)
        distance = distillation_loss(logits, wanted, form=self.config.kd, divisor=self.config.kl_divisor)
        value = pseudo + self.config.kd_weight * distance
        parts = {"pseudo": pseudo.detach(), "distillation": distance.detach()}
        yield Loss("target", value, parts=parts, outputs={"target": output})
        yield Panel("strong", lambda: view.image)
        yield Panel("pseudo_label", lambda: label)

    # Losses

    def _supervised(self, network: Network, batch: Batch) -> Loss:
        assert batch.source is not None
        output = network(batch.source.image)
        loss = segmentation_loss(output, batch.source.label, reduction=self.config.ce_avg)
        return Loss("source", loss, outputs={"source": output})

    def _target_loss(self, output: Output, label: Tensor, target: Samples) -> Loss:
        """Symmetric cross entropy, and the divergence of uniform predictions from those of all pixels (MRKLD)."""
        config, logits = self.config, self._on_grid(output.logits)
        symmetric = symmetric_cross_entropy(logits, label, config.ce_weight, config.rce_weight, config.rce_floor)
        counts = inside(target, self._grid)
        uniform = (uniform_divergence(logits.float().log_softmax(1)) * counts).sum() / per_rank(counts.sum())
        parts = {"symmetric": symmetric.detach(), "mrkld": uniform.detach()}
        return Loss("target", symmetric + config.mrkld * uniform, parts=parts, outputs={"target": output})

    def _consistency(self, student: Network, view: StrongView, distances: Tensor, target: Samples) -> Loss:
        """The divergence of the strong view's assignments from the teacher's of the image, moved with the view."""
        tau, shown = self.config.temperature, view.carry(inside(target, self._grid)[:, None].float())[:, 0] > 0
        mine = self.prototypes.distances(self._on_grid(features_of(student(view.image))))
        wanted = view.carry(distances)
        divergence = distillation_loss(-mine / tau, -wanted / tau, shown, divisor=self.config.kl_divisor)
        return Loss(
            "consistency", self.config.consistency_weight * divergence, parts={"divergence": divergence.detach()}
        )

    @torch.no_grad()
    def _labels(self, soft: Tensor, distances: Tensor, target: Samples) -> tuple[Tensor, Tensor]:
        """Rectified labels (the soft labels' own, where they are not rectified), and the soft labels' own: N h w."""
        plain = soft.argmax(1)
        label = rectified_label(soft, distances, self.config.temperature) if self.config.rectify else plain
        return masked(label, target), masked(plain, target)

    def _report(self, label: Tensor, plain: Tensor, target: Samples) -> Iterator[Event]:
        """Whether rectification helps: both labels before the referee, and where they differ."""
        size = Size(*target.image.shape[-2:])
        yield Scalar("rectified/changed", (label != plain).float().mean())
        yield Probe("plain", nearest(plain, size), target)
        yield Probe("rectified", nearest(label, size), target)
        yield Panel("rectified", lambda: label)

    @property
    def _grid(self) -> Size:
        """Of the target's losses."""
        crop, stride = self.setup.crop, self.config.label_stride
        return Size(max(1, crop.height // stride), max(1, crop.width // stride))

    def _on_grid(self, value: Tensor) -> Tensor:
        return upsample(value, self._grid)

    # Predictions

    def predict(self, samples: Samples) -> Tensor:
        """Logits of the network whose training was begun last."""
        return self._logits(self.config.distillations, samples)

    def predictors(self) -> Mapping[str, Callable[[Samples], Tensor]]:
        """The last network, which the paper reports, and those of the stages before it."""
        earlier = {f"stage{n + 1}": partial(self._logits, n) for n in range(self.config.distillations)}
        return {"student": self.predict, **earlier}

    def network_of_record(self) -> Network:
        """The last one: what is reported."""
        return self._network(self.config.distillations)

    def _network(self, number: int) -> Network:
        return self._all[number]

    def _logits(self, number: int, samples: Samples) -> Tensor:
        logits: Tensor = self.networks[min(number, len(self.networks) - 1)](samples.image).logits
        return logits

    def _probabilities(self, number: int, samples: Samples) -> Tensor:
        """Of a network; the mean with those of the mirrored image, where so configured."""
        network = self._network(number)
        probability: Tensor = network(samples.image).logits.float().softmax(1)
        if not self.config.label_flip:
            return probability
        mirrored: Tensor = network(samples.image.flip(3)).logits.float().softmax(1)
        return (probability + mirrored.flip(3)) / 2
