"""T2S-DA (Wang et al., "Pulling Target to Source", 2023): L = L_source + L_target + lambda L_pull."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Generator as Rng
from torch import Tensor, nn

from udabench.errors import UsageError
from udabench.labels import IGNORE
from udabench.method import Batch, Domain, Samples, Setup
from udabench.network import Network, Output
from udabench.parts.projector import Projector
from udabench.parts.self_trainer import Outputs, SelfTrainer, Term
from udabench.size import Size
from udabench.translate.apply import translate_source, whole_target
from udabench.translate.base import Translator
from udabench_t2sda.config import T2SDAConfig
from udabench_t2sda.contrast import View, pull, simple_weights, target_view, view
from udabench_t2sda.pull import class_weights, equal_weights, fixed_weights, mean_confidence
from udabench_t2sda.scene import TRANSLATED, PullScene


class T2SDA(SelfTrainer[PullScene]):
    """Self-training, and a pull of pseudo-target features to source prototypes."""

    Config = T2SDAConfig
    scene_type = PullScene
    config: T2SDAConfig

    def __init__(self, config: T2SDAConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.classes = len(setup.task.classes)
        self.projector: Projector | None = None
        if config.pulls:
            width, kernel = config.projector_width, config.projector_kernel
            self.projector = Projector(_channels(self.student, config.pulled_map), width, kernel)
            self.teacher_projector = self.follower(self.projector)
        self.translator = _translator(config, setup) if config.translates else None
        self.simple = simple_weights(setup.task.classes) if config.reweight == "srw" else None

    @property
    def domains(self) -> tuple[Domain, ...]:
        return ("source",) if self.config.generalize else ("source", "target")

    @property
    def supervised(self) -> str:
        return self.config.ce_on

    @property
    def queried(self) -> tuple[str, ...]:
        return (self.config.query_from,) if self.config.pulls else ()

    @property
    def queried_apart(self) -> bool:
        return self.config.translated_norms == "apart"

    def heads(self) -> tuple[nn.Module, ...]:
        return () if self.projector is None else (self.projector,)

    def context(self) -> Size | None:
        """FDA sees the whole target image before the shared crop (paper, section 4, Training)."""
        wanted = self.config.translate_whole and self.translator is not None and self.translator.paired
        return whole_target(self.setup) if wanted else None

    def follow(self, iteration: int) -> None:
        super().follow(iteration)
        if self.projector is not None:
            self.teacher_projector.update(self.projector, iteration)

    def open_scene(self, batch: Batch, rng: Rng) -> PullScene:
        scene = super().open_scene(batch, rng)
        if self.translator is not None:
            scene.further[TRANSLATED] = translate_source(self.translator, batch, rng)
        return scene

    @torch.no_grad()
    def look_at_target(self, scene: PullScene, target: Samples, rng: Rng) -> Output:
        output = super().look_at_target(scene, target, rng)
        assert scene.pseudo is not None
        label, confidence = scene.pseudo.label, scene.pseudo.confidence
        if target.valid is not None:
            label = label.masked_fill(~target.valid, IGNORE)
        scene.confidence = mean_confidence(confidence.flatten(), label.flatten(), self.classes)
        if self.projector is not None:
            scene.target_view = target_view(
                self.teacher_projector(output.features[self.config.pulled_map]), output.logits, target.valid
            )
        return output

    def taught(self, scene: PullScene, target: Samples) -> Output:
        """Of the source too, where its images cannot change what the norms do with the target's."""
        if self.projector is None or self.config.teacher_norms != "running":
            return super().taught(scene, target)
        output, features = self.teacher.module.segment_and_encode(target.image, scene.source.image)
        scene.source_map = features[self.config.pulled_map]
        return output

    def terms(self, scene: PullScene, outputs: Outputs, rng: Rng) -> Iterator[Term]:
        yield from super().terms(scene, outputs, rng)
        if self.config.pulls and self.config.query_from in outputs:
            features = outputs[self.config.query_from].features[self.config.pulled_map]
            yield Term("pull", self._pull(scene, features, rng), self.config.pull_weight)

    def mixed_weight(self, scene: PullScene) -> Tensor:
        weight = super().mixed_weight(scene)
        if self.config.reweight_on != "ce" or scene.mixed is None:
            return weight
        return weight * self._ce_weights(scene).to(weight)[scene.mixed.label.clamp(max=self.classes - 1)]

    def _ce_weights(self, scene: PullScene) -> Tensor:
        """Class weights scaled to mean 1; classes that the target does not show keep 1 (absent_weight zero): C."""
        if self.simple is not None:
            return self.simple / self.simple.mean()
        assert scene.confidence is not None
        confidence, present = scene.confidence
        absent, beta = self.config.absent_weight, self.config.drw_exponent
        weighed = torch.ones_like(present) if absent == "max" else present
        weights = class_weights(confidence, present, weighed, beta, absent) * weighed.sum()
        return torch.where(weighed, weights, 1)

    def _pull(self, scene: PullScene, features: Tensor, rng: Rng) -> Tensor:
        assert self.projector is not None
        query = self._labelled(scene, self.config.query_from, self.projector(features))
        with torch.no_grad():
            source = self._taught(scene, "source")
            same = self.config.positive_from == "source"
            positive = source if same else self._taught(scene, self.config.positive_from)
        return pull(
            self.config, self.classes, query, positive, source, scene.target_view,
            lambda used: self._pull_weights(scene, used), rng,
        )  # fmt: skip

    def _taught(self, scene: PullScene, key: str) -> View:
        """The teacher's projected features of some images, with their labels."""
        if key == "target":
            assert scene.target_view is not None
            return scene.target_view.view
        features = scene.source_map if key == "source" else None
        if features is None:
            features = self.teacher.module.encode(scene.image(key))[self.config.pulled_map]
        return self._labelled(scene, key, self.teacher_projector(features))

    def _labelled(self, scene: PullScene, key: str, features: Tensor) -> View:
        if key != "target":
            return view(features, scene.label)
        assert scene.target_view is not None
        return view(features, scene.label)._replace(label=scene.target_view.view.label)

    def _pull_weights(self, scene: PullScene, used: Tensor) -> Tensor:
        if self.config.reweight_on == "pull":
            if self.simple is not None:
                return fixed_weights(self.simple.to(used.device), used)
            if self.config.reweight == "drw" and scene.confidence is not None:
                return class_weights(*scene.confidence, used, self.config.drw_exponent, self.config.absent_weight)
        return equal_weights(used)


def _channels(network: Network, index: int) -> int:
    """Channels of a map of the encoder's pyramid. Raises UsageError where there is no such map."""
    channels = network.feature_channels
    if not -len(channels) <= index < len(channels):
        raise UsageError(
            f"pulled_map = {index}: the encoder's pyramid has {len(channels)} maps, 0 (fine) to -1 (last)."
        )
    return channels[index]


def _translator(config: T2SDAConfig, setup: Setup) -> Translator:
    beta = {"beta": config.fda_beta} if config.translator == "fda" else {}
    translator = setup.translator(config.translator, beta | config.translator_options)
    if config.generalize and translator.paired:
        raise UsageError(f"generalize has no target images, which translator '{config.translator}' needs.")
    return translator
