"""SAM: L = CE(source) + CE(pseudo-labels) + lambda * L_sa, a generation after the other (Eq 10 and 11)."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import replace

from torch import Generator as Rng
from torch import Tensor

from udabench.method import Batch, Event, Loss, Method, Panel, Samples, Scalar, Setup, Stage, Step
from udabench.network import Output
from udabench.parts.domain_passes import domain_losses
from udabench.parts.label_rules import QuantileRule
from udabench.parts.lengths import lengths_by
from udabench.parts.losses import segmentation_loss
from udabench.parts.panels import prediction_panel
from udabench.parts.pseudo_label_pass import PseudoLabelPass
from udabench.translate.apply import translate_source, whole_target
from udabench_sam.attention import Attentions
from udabench_sam.attention_training import attention_stage
from udabench_sam.config import SAMConfig
from udabench_sam.guard import DivergenceGuard, advice, logit_size

ATTENTION, BASELINE, LABEL = "attention", "baseline", "pseudo_label"
Terms = tuple[Tensor, Mapping[str, Tensor]]
"""A loss, and its summands for the log."""


class SAM(Method):
    """One network, begun anew for each training: with the modules, on the source, and in every generation.

    The modules are trained once, and frozen from then on.
    """

    Config = SAMConfig
    accumulates = True

    def __init__(self, config: SAMConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.config = config
        self.student = setup.network()
        self.attentions = Attentions(self.student, config) if config.attends else None
        self.translator = setup.translator(config.translator, config.translator_options)
        self.guard = DivergenceGuard(config)
        self.advice = advice(config) if config.attends else ""

    # Stages

    def stages(self) -> Sequence[Stage]:
        """Every training begins by itself: with and without the module the baseline is the same, and so its labels."""
        names = list(self._trainings())
        lengths = lengths_by(self.setup.iterations, [self._share(name) for name in names])
        return [
            stage for name, iterations in zip(names, lengths, strict=True) for stage in self._training(name, iterations)
        ]

    def _trainings(self) -> Iterator[str]:
        if self.attentions is not None and self.config.module == "conv":
            yield ATTENTION
        yield BASELINE
        yield from (f"adapt-{number}" for number in range(1, self.config.generations + 1))

    def _share(self, name: str) -> float:
        return {ATTENTION: self.config.attention_share, BASELINE: self.config.baseline_share}.get(name, 1.0)

    def _training(self, name: str, iterations: int) -> Iterator[Stage]:
        if name == ATTENTION:
            yield self._attention(iterations)
        elif name == BASELINE:
            yield self._segmenter(name, iterations, self.baseline)
        else:
            yield Stage(name.replace("adapt", "labels"), 0, domains=("target",), prepare=self._labelling())
            stage = self._segmenter(name, iterations, self.adapt)
            yield replace(stage, domains=("source", "target"), layers={LABEL: ("target", LABEL)})

    def _attention(self, iterations: int) -> Stage:
        assert self.attentions is not None
        return attention_stage(
            self.setup,
            self.student,
            self.attentions,
            iterations,
            translator=self.translator,
            ce_avg=self.config.ce_avg,
            start=self._begin_anew,
            name=ATTENTION,
        )

    def _segmenter(self, name: str, iterations: int, step: Step) -> Stage:
        paired = self.translator.paired
        return Stage(
            name,
            iterations,
            step,
            {"segmenter": self.setup.segmenter(self.student)},
            domains=("source", "target") if paired else ("source",),
            context=whole_target(self.setup) if paired else None,
            start=self._begin_anew,
        )

    def _labelling(self) -> PseudoLabelPass:
        rule = QuantileRule(self.config.label_share, self.config.label_cap)
        return PseudoLabelPass(self._probability, self.setup.task.classes, rule, LABEL)

    def _begin_anew(self) -> None:
        """The network before is given up."""
        self.student = self.setup.network()

    # Steps

    def baseline(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step on the translated source alone (No Pseudo)."""
        yield from self._step(batch, iteration, rng, {})

    def adapt(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step of a generation: Eq 10 or 11."""
        assert batch.target is not None
        target, label = batch.target, batch.target.layers[LABEL]
        yield Panel("target", lambda: target.image)
        yield Panel("pseudo_label", lambda: label)
        yield from self._step(batch, iteration, rng, {"target": (target.image, label)})

    def _step(
        self, batch: Batch, iteration: int, rng: Rng, further: Mapping[str, tuple[Tensor, Tensor]]
    ) -> Generator[Event, None, None]:
        """Source and ``further`` images with their labels; the self-attention loss in a generation."""
        assert batch.source is not None
        assert batch.source.label is not None
        image = translate_source(self.translator, batch, rng)
        data = {"source": (image, batch.source.label), **further}

        def objective(name: str, output: Output) -> Terms:
            loss = segmentation_loss(output, data[name][1], reduction=self.config.ce_avg)
            if not further or self.attentions is None or not self._acts_on(name):
                return loss, {name: loss}
            self.guard.see(logit_size(output), name, iteration)
            attention = self.attentions.loss(output)
            return loss + self.config.sa_weight * attention, {name: loss, f"{name}_attention": attention}

        yield Panel("translated", lambda: image.clamp(0, 1))
        images = {name: image for name, (image, _) in data.items()}
        for loss in domain_losses(self.student, images, objective, self.config.student_batch):
            yield loss
            yield from _seen(loss, image.shape[-2:])

    def _acts_on(self, domain: str) -> bool:
        return self.config.sa_domains == "both" or domain == "target"

    # Predictions

    def predict(self, samples: Samples) -> Tensor:
        """Of Z alone: the module takes no part."""
        logits: Tensor = self.student(samples.image).logits
        return logits

    def _probability(self, samples: Samples) -> Tensor:
        return self.predict(samples).float().softmax(1)


def _seen(loss: Loss, size: tuple[int, ...]) -> Iterator[Event]:
    """The size of the logits, and what is predicted."""
    for name, output in loss.outputs.items():
        yield Scalar(f"logits/{name}", logit_size(output))
        yield prediction_panel(output.logits, size, f"prediction_{name}")
