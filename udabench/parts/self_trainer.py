"""Self-training as a method: a teacher's pseudo-labels, ClassMix, and the feature distance (DACS, DAFormer)."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import nullcontext
from typing import ClassVar, Generic, NamedTuple, TypeVar

import torch
from torch import Generator as Rng
from torch import Tensor, nn

from udabench.method import Batch, Domain, Event, Loss, Method, Samples, Setup, Shared, Stage
from udabench.network import Output
from udabench.parts.ema import Ema, ModuleT
from udabench.parts.feature_distance import feature_distance, thing_ids, thing_mask
from udabench.parts.frozen import Frozen
from udabench.parts.losses import segmentation_loss, split
from udabench.parts.norms import statistics_kept
from udabench.parts.panels import prediction_panel
from udabench.parts.scene import Scene, show
from udabench.parts.self_training import SelfTrainingConfig, claim_labels, mix_domains, within_margins
from udabench.size import Size

SceneT = TypeVar("SceneT", bound=Scene)
Outputs = Mapping[str, Output]
"""Name of images -> what the student says of them."""


class Term(NamedTuple):
    """A summand of the objective."""

    name: str
    value: Tensor
    weight: float = 1.0


class SelfTrainer(Method, Generic[SceneT]):
    """Cross entropy on the source, the same on mixed images by the teacher's labels, and the feature distance.

    A method that adds to it says which further images go through the student (:attr:`queried`), and yields what it
    asks of them in :meth:`terms`. Without the target among :attr:`domains` there is no self-training.
    """

    Config = SelfTrainingConfig
    shares = True
    outputs: tuple[str, ...] = ("source", "mixed")
    scene_type: ClassVar[type[Scene]] = Scene
    config: SelfTrainingConfig

    def __init__(self, config: SelfTrainingConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.config = config
        self.shares = "target" in self.domains
        if self.shares:
            config.check_margins(setup.crop, setup.target_size)
        self.outputs = (self.supervised, "mixed") if self.shares else (self.supervised,)
        self.student = setup.network()
        self.teacher = self.follower(self.student)
        self.imagenet: Frozen | None = None
        if config.feature_distance > 0:
            self.things = thing_ids(setup.task.classes)
            # The student itself has not been trained yet: the very weights that it starts from.
            self.imagenet = Frozen(self.student.replicate())

    @property
    def domains(self) -> tuple[Domain, ...]:
        """What a batch holds."""
        return ("source", "target")

    @property
    def supervised(self) -> str:
        """The images of the supervised cross entropy, which have the source's labels."""
        return "source"

    @property
    def queried(self) -> tuple[str, ...]:
        """Further images that go through the student."""
        return ()

    @property
    def queried_apart(self) -> bool:
        """Whether these further images have a pass of their own that leaves the running statistics alone."""
        return False

    def follower(self, module: ModuleT) -> Ema[ModuleT]:
        """The teacher's version of a module."""
        return Ema(module, self.config.ema, self.config.copy_buffers, self.config.teacher_norms)

    def heads(self) -> tuple[nn.Module, ...]:
        """Modules that are trained with the student."""
        return ()

    def context(self) -> Size | None:
        """Size of the larger crop that the stage asks for."""
        return None

    def stages(self) -> Sequence[Stage]:
        optimizers = {"segmenter": self.setup.segmenter(self.student, *self.heads())}
        after = self.follow if self.config.ema_update == "after" else None
        return [
            Stage(
                "adapt", self.setup.iterations, self.step, optimizers, self.domains,
                context=self.context(), after_step=after,
            )
        ]  # fmt: skip

    def step(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, Shared | None]:
        """One step. Returns what a method around this one trains on; None without a target."""
        if self.config.ema_update == "before":
            self.follow(iteration)
        scene = self.open_scene(batch, rng)
        if scene.target is not None:
            self.look_at_target(scene, scene.target, rng)
        yield from show(scene, self.config.threshold)
        for keys in self._passes(scene):
            yield self._loss(scene, keys, rng)
        if scene.prediction is not None:
            yield prediction_panel(scene.prediction, scene.label.shape[-2:])
        return self._shared(scene)

    def _shared(self, scene: SceneT) -> Shared | None:
        if scene.target is None or scene.pseudo is None:
            return None
        return Shared(self.student, scene.target, scene.pseudo.label, scene.pseudo.weight)

    def follow(self, iteration: int) -> None:
        """The teacher's update."""
        self.teacher.update(self.student, iteration)

    def open_scene(self, batch: Batch, rng: Rng) -> SceneT:
        """What is there before anybody looks."""
        assert batch.source is not None
        scene: SceneT = self.scene_type(batch.source, batch.target if "target" in self.domains else None)  # type: ignore[assignment]
        return scene

    @torch.no_grad()
    def look_at_target(self, scene: SceneT, target: Samples, rng: Rng) -> Output:
        """The teacher's pseudo-labels, and the image mixed by them. Returns what the teacher said."""
        config = self.config
        height, width = target.image.shape[-2:]
        output = self.taught(scene, target)
        pseudo = claim_labels(output.logits, (height, width), config.threshold, config.weight_scope, target.valid)
        inside = within_margins(target, config.margins, config.ignored_rule)
        scene.pseudo = pseudo._replace(weight=pseudo.weight * inside)
        scene.mixed = mix_domains(scene.source, target, scene.pseudo, config.augment(), rng, config.mix_scope)
        return output

    def taught(self, scene: SceneT, target: Samples) -> Output:
        """What the teacher says of the target."""
        output: Output = self.teacher(target.image)
        return output

    def _passes(self, scene: SceneT) -> list[tuple[str, ...]]:
        """Which images go through the student together, in order."""
        supervised: tuple[str, ...] = (self.supervised,)
        mixed: tuple[str, ...] = () if scene.mixed is None else ("mixed",)
        queried = tuple(key for key in self.queried if key != self.supervised)
        match self.config.student_batch:
            case "separate":
                groups = [supervised, queried, mixed]
            case "all" if not self.queried_apart:
                groups = [supervised + mixed + queried]
            case _:
                groups = [supervised + mixed, queried]
        return [group for group in groups if group]

    def _loss(self, scene: SceneT, keys: tuple[str, ...], rng: Rng) -> Loss:
        """One forward pass of the student, and the sum of all that is asked of it."""
        outputs = self._forward(scene, keys)
        terms = list(self.terms(scene, outputs, rng))
        total = torch.stack([term.weight * term.value for term in terms]).sum()
        parts = {term.name: term.value.detach() for term in terms}
        return Loss("+".join(keys), total, parts=parts, outputs=outputs if self._has_logits(keys) else {})

    def _has_logits(self, keys: tuple[str, ...]) -> bool:
        """Whether a pass goes through the head: nobody asks for the logits of further images alone."""
        return not {self.supervised, "mixed"}.isdisjoint(keys)

    def _forward(self, scene: SceneT, keys: tuple[str, ...]) -> Outputs:
        images = {key: scene.image(key) for key in keys}
        joint = torch.cat(list(images.values()))
        if self._has_logits(keys):
            output = self.student(joint)
        else:
            with statistics_kept(self.student) if self.queried_apart else nullcontext():
                features = self.student.encode(joint)
            output = Output(features[-1], features)
        return split(output, images)

    def terms(self, scene: SceneT, outputs: Outputs, rng: Rng) -> Iterator[Term]:
        """What is asked of the images of one pass."""
        config = self.config
        if self.supervised in outputs:
            output = outputs[self.supervised]
            yield Term("source", segmentation_loss(output, scene.label, reduction=config.ce_avg))
            if self.imagenet is not None:
                yield Term("feature_distance", self._distance(scene, output, self.imagenet), config.feature_distance)
        if "mixed" in outputs and scene.mixed is not None:
            output = outputs["mixed"]
            scene.prediction = output.logits.detach()
            weight = self.mixed_weight(scene)
            yield Term(
                "mixed", segmentation_loss(output, scene.mixed.label, weight, config.mixed_ce_avg or config.ce_avg)
            )

    def mixed_weight(self, scene: SceneT) -> Tensor:
        """Factor of each mixed pixel's loss: N H W."""
        assert scene.mixed is not None
        return scene.mixed.weight

    def _distance(self, scene: SceneT, output: Output, imagenet: Frozen) -> Tensor:
        features = output.features[-1]
        original = imagenet(scene.image(self.supervised), "encode")[-1]
        height, width = features.shape[-2:]
        mask = thing_mask(scene.label, self.things, (height, width), self.config.feature_majority)
        return feature_distance(features, original, mask)

    def predict(self, samples: Samples) -> Tensor:
        logits: Tensor = self.student(samples.image).logits
        return logits

    def predict_with_teacher(self, samples: Samples) -> Tensor:
        """The EMA teacher's logits."""
        logits: Tensor = self.teacher(samples.image).logits
        return logits

    def predictors(self) -> Mapping[str, Callable[[Samples], Tensor]]:
        return {"student": self.predict, "teacher": self.predict_with_teacher}
