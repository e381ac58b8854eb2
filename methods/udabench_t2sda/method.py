"""T2S-DA (Wang et al., "Pulling Target to Source", 2023): L = L_source + L_target + lambda L_pull."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence

import torch
from torch import Generator as Rng
from torch import Tensor

from udabench.errors import UsageError
from udabench.method import Batch, Domain, Event, Loss, Method, Panel, Samples, Setup, Stage
from udabench.network import Output
from udabench.parts.ema import Ema
from udabench.parts.feature_distance import feature_distance, thing_ids, thing_mask
from udabench.parts.frozen import Frozen
from udabench.parts.losses import segmentation_loss, take, upsample
from udabench.parts.projector import Projector
from udabench.parts.self_training import PseudoLabels, claim_labels, ignore_rows, mix_domains
from udabench.size import Size
from udabench.translate.apply import translate_source
from udabench.translate.base import Translator
from udabench_t2sda.config import T2SDAConfig
from udabench_t2sda.contrast import View, pull, simple_weights, target_view, view
from udabench_t2sda.pull import class_weights, equal_weights, fixed_weights, mean_confidence
from udabench_t2sda.scene import Scene, show


class T2SDA(Method):
    """Self-training, and a pull of pseudo-target features to source prototypes."""

    Config = T2SDAConfig

    def __init__(self, config: T2SDAConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        if not config.generalize:
            config.check_rows(setup.crop, setup.target_size)
        self.config = config
        self.classes = len(setup.task.classes)
        self.student = setup.network()
        self.teacher = self._follower(self.student)
        self.projector: Projector | None = None
        if config.pulls:
            width, kernel = config.projector_width, config.projector_kernel
            self.projector = Projector(self.student.feature_channels[-1], width, kernel)
            self.teacher_projector = self._follower(self.projector)
        self.translator = _translator(config, setup) if config.translates else None
        self.imagenet: Frozen | None = None
        if config.feature_distance > 0:
            self.things = thing_ids(setup.task.classes)
            # The student itself has not been trained yet: the very weights that it starts from.
            self.imagenet = Frozen(self.student.replicate())
        self.simple = simple_weights(setup.task.classes) if config.reweight == "srw" else None

    def _follower(self, module: torch.nn.Module) -> Ema:
        return Ema(module, self.config.ema, self.config.copy_buffers, self.config.teacher_norms)

    def stages(self) -> Sequence[Stage]:
        heads = () if self.projector is None else (self.projector,)
        optimizers = {"segmenter": self.setup.segmenter(self.student, *heads)}
        domains: tuple[Domain, ...] = ("source",) if self.config.generalize else ("source", "target")
        return [Stage("adapt", self.setup.iterations, self.step, optimizers, domains, context=self._context())]

    def _context(self) -> Size | None:
        """FDA sees the whole target image before the shared crop (paper, section 4, Training)."""
        whole, crop = self.setup.target_size, self.setup.crop
        wanted = self.config.translate_whole and self.translator is not None and self.translator.paired
        return whole if wanted and (whole.height > crop.height or whole.width > crop.width) else None

    def step(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, PseudoLabels | None]:
        """One step. Returns the pseudo-labels, for a method that wraps this one."""
        source, target = batch.source, None if self.config.generalize else batch.target
        assert source is not None
        self._follow(iteration)
        scene = Scene(source, target)
        if self.translator is not None:
            scene.translated = translate_source(self.translator, batch, rng)
        if target is not None:
            self._look_at_target(scene, target, rng)
        yield from show(scene, self.config.threshold)
        for keys in self._passes(scene):
            yield self._loss(scene, keys, rng)
        if scene.prediction is not None:
            logits, size = scene.prediction, source.image.shape[-2:]
            yield Panel("prediction", lambda: upsample(logits, size).argmax(1))
        return scene.pseudo

    def _follow(self, iteration: int) -> None:
        self.teacher.update(self.student, iteration)
        if self.projector is not None:
            self.teacher_projector.update(self.projector, iteration)

    @torch.no_grad()
    def _look_at_target(self, scene: Scene, target: Samples, rng: Rng) -> None:
        """The teacher's pseudo-labels, and the image mixed by them."""
        config = self.config
        height, width = target.image.shape[-2:]
        output: Output = self.teacher(target.image)
        pseudo = claim_labels(output.logits, (height, width), config.threshold, config.weight_scope, target.valid)
        rows = ignore_rows(pseudo.weight, target.size, config.ignored_top, config.ignored_bottom)
        scene.pseudo = pseudo._replace(weight=rows)
        scene.confidence = mean_confidence(pseudo.confidence.flatten(), pseudo.label.flatten(), self.classes)
        scene.mixed = mix_domains(scene.source, target, scene.pseudo, config.augment(), rng, config.mix_scope)
        if self.projector is not None:
            scene.target_view = target_view(self.teacher_projector(output.features[-1]), output.logits)

    def _passes(self, scene: Scene) -> list[tuple[str, ...]]:
        """Which images go through the student together, in order."""
        supervised: tuple[str, ...] = (self.config.ce_on,)
        mixed: tuple[str, ...] = () if scene.mixed is None else ("mixed",)
        asked = self.config.pulls and self.config.query_from != self.config.ce_on
        query: tuple[str, ...] = (self.config.query_from,) if asked else ()
        match self.config.student_batch:
            case "separate":
                groups = [supervised, query, mixed]
            case "mixed":
                groups = [supervised + mixed, query]
            case "all":
                groups = [supervised + mixed + query]
        return [group for group in groups if group]

    def _loss(self, scene: Scene, keys: tuple[str, ...], rng: Rng) -> Loss:
        """One forward pass of the student, and the sum of all that is asked of it."""
        config = self.config
        outputs = self._forward(scene, keys)
        parts: dict[str, Tensor] = {}
        total: list[Tensor] = []
        if config.ce_on in keys:
            parts["source"] = segmentation_loss(outputs[config.ce_on], scene.label, reduction=config.ce_avg)
            total.append(parts["source"])
            if self.imagenet is not None:
                parts["feature_distance"] = self._distance(scene, outputs[config.ce_on])
                total.append(config.feature_distance * parts["feature_distance"])
        if "mixed" in keys:
            parts["mixed"] = self._self_training(scene, outputs["mixed"])
            total.append(parts["mixed"])
        if config.pulls and config.query_from in keys:
            parts["pull"] = self._pull(scene, outputs[config.query_from].features[-1], rng)
            total.append(config.pull_weight * parts["pull"])
        return Loss("+".join(keys), torch.stack(total).sum(), parts={k: v.detach() for k, v in parts.items()})

    def _forward(self, scene: Scene, keys: tuple[str, ...]) -> dict[str, Output]:
        images = [scene.image(key) for key in keys]
        if keys == (self.config.query_from,) and self.config.query_from != self.config.ce_on:
            # Nobody asks for the logits of query images.
            features = self.student.encode(images[0])
            return {keys[0]: Output(features[-1], features)}
        output: Output = self.student(torch.cat(images) if len(images) > 1 else images[0])
        ends = torch.tensor([len(image) for image in images]).cumsum(0).tolist()
        return {key: take(output, end - len(image), end) for key, image, end in zip(keys, images, ends, strict=True)}

    def _distance(self, scene: Scene, output: Output) -> Tensor:
        assert self.imagenet is not None
        features = output.features[-1]
        original = self.imagenet(scene.image(self.config.ce_on), "encode")[-1]
        height, width = features.shape[-2:]
        mask = thing_mask(scene.label, self.things, (height, width), self.config.feature_majority)
        return feature_distance(features, original, mask)

    def _self_training(self, scene: Scene, output: Output) -> Tensor:
        mixed = scene.mixed
        assert mixed is not None
        scene.prediction = output.logits.detach()
        weight = mixed.weight
        if self.config.reweight_on == "ce" and self.config.reweight != "none":
            weight = weight * self._ce_weights(scene).to(weight)[mixed.label.clamp(max=self.classes - 1)]
        return segmentation_loss(output, mixed.label, weight, self.config.ce_avg)

    def _ce_weights(self, scene: Scene) -> Tensor:
        """Class weights scaled to mean 1; classes that the target does not show keep 1 (absent_weight zero): C."""
        if self.simple is not None:
            return self.simple / self.simple.mean()
        assert scene.confidence is not None
        confidence, present = scene.confidence
        absent, beta = self.config.absent_weight, self.config.drw_exponent
        weighed = torch.ones_like(present) if absent == "max" else present
        weights = class_weights(confidence, present, weighed, beta, absent) * weighed.sum()
        return torch.where(weighed, weights, 1)

    def _pull(self, scene: Scene, features: Tensor, rng: Rng) -> Tensor:
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

    def _taught(self, scene: Scene, key: str) -> View:
        """The teacher's projected features of some images, with their labels."""
        if key == "target":
            assert scene.target_view is not None
            return scene.target_view.view
        features = self.teacher.module.encode(scene.image(key))[-1]  # type: ignore[operator]
        return self._labelled(scene, key, self.teacher_projector(features))

    def _labelled(self, scene: Scene, key: str, features: Tensor) -> View:
        if key != "target":
            return view(features, scene.label)
        assert scene.target_view is not None
        return view(features, scene.label)._replace(label=scene.target_view.view.label)

    def _pull_weights(self, scene: Scene, used: Tensor) -> Tensor:
        if self.config.reweight_on == "pull":
            if self.simple is not None:
                return fixed_weights(self.simple.to(used.device), used)
            if self.config.reweight == "drw" and scene.confidence is not None:
                return class_weights(*scene.confidence, used, self.config.drw_exponent, self.config.absent_weight)
        return equal_weights(used)

    def predict(self, samples: Samples) -> Tensor:
        logits: Tensor = self.student(samples.image).logits
        return logits

    def predict_with_teacher(self, samples: Samples) -> Tensor:
        """The EMA teacher's logits."""
        logits: Tensor = self.teacher(samples.image).logits
        return logits

    def predictors(self) -> Mapping[str, Callable[[Samples], Tensor]]:
        return {"student": self.predict, "teacher": self.predict_with_teacher}


def _translator(config: T2SDAConfig, setup: Setup) -> Translator:
    beta = {"beta": config.fda_beta} if config.translator == "fda" else {}
    translator = setup.translator(config.translator, beta | config.translator_options)
    if config.generalize and translator.paired:
        raise UsageError(f"generalize has no target images, which translator '{config.translator}' needs.")
    return translator
