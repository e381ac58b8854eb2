"""BiCL (Lee et al., 2022): L = L_base + lambda_FC L_FC + lambda_BC L_BC (Eq 11 and 12)."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Generator as Rng
from torch import Tensor

from udabench.errors import UsageError
from udabench.method import Batch, Domain, Event, Loss, Method, Panel, Probe, Samples, Setup, Stage
from udabench.network import Network, Output
from udabench.parts.distillation import distillation_loss
from udabench.parts.ema import Ema
from udabench.parts.grid import inside, nearest
from udabench.parts.label_rules import LabelRule, PortionRule, TopRule
from udabench.parts.losses import segmentation_loss
from udabench.parts.panels import prediction_panel
from udabench.parts.prototypes import Prototypes, cell_counts, class_means, cosine_to
from udabench.parts.pseudo_label_pass import PseudoLabelPass
from udabench_bicl.config import BiCLConfig
from udabench_bicl.labels import DomainBias, PseudoLabels, make_labels
from udabench_bicl.losses import base_losses, contrast_loss, sure_labels, term_weights
from udabench_bicl.names import KINDS, STATIC
from udabench_bicl.schedule import RoundSchedule


class BiCL(Method):
    """A network that learns from the source, then from both domains; if asked for, it teaches a new one at the end.

    Images of a batch are taken in pairs: the k-th of the source with the k-th of the target.
    """

    Config = BiCLConfig
    outputs = ("source", "target")

    def __init__(self, config: BiCLConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.config = config
        self._check_pairs(setup.batches)
        self.student = setup.network()
        self.running = DomainBias(len(setup.task.classes), self._channels(), config.momentum)
        self.teacher: Ema[Network] | None = None
        self.domain: Domain = "source"
        """Whose path of the network is evaluated: where the target has layers of its own, they follow the warm-up."""

    def _check_pairs(self, batches: Mapping[Domain, int]) -> None:
        if batches["source"] != batches["target"]:
            raise UsageError(
                f"BiCL takes images in pairs, but data.source_batch is {batches['source']} and data.target_batch "
                f"{batches['target']}. Make them equal."
            )

    def _channels(self) -> int:
        """D. Raises UsageError where the network has no such features."""
        if self.config.features == "encoder":
            return self.student.feature_channels[-1]
        if not self.student.branch_count:
            raise UsageError(
                "features = branches needs a head whose logits are a sum of branches, as that of resnet101-deeplabv2; "
                f"{type(self.student).__name__} has none here. Use features = encoder, or such a network."
            )
        return self.student.branch_count * self.student.classes

    # Stages

    def stages(self) -> Sequence[Stage]:
        config, whole = self.config, self.setup.iterations
        shares = (config.warmup_share, config.distil_share)
        warmup, distil = (max(1, round(share * whole)) if share else 0 for share in shares)
        stages = [self._adaptation(max(1, whole - warmup - distil))]
        if warmup:
            stages.insert(0, self._warmup(warmup))
        if distil:
            stages.append(self._distillation(distil))
        return stages

    def _warmup(self, iterations: int) -> Stage:
        optimizers = {"segmenter": self.setup.segmenter(self.student)}
        return Stage("warmup", iterations, self.warm_up, optimizers, domains=("source",))

    def _adaptation(self, iterations: int) -> Stage:
        optimizer = self.setup.segmenter(self.student)
        if self.config.round_decay < 1:
            schedule = RoundSchedule(self.config.refresh_every, self.config.round_decay, optimizer.schedule)
            optimizer = replace(optimizer, schedule=schedule)
        return Stage(
            "adapt",
            iterations,
            self.adapt,
            {"segmenter": optimizer},
            layers={STATIC: ("target", STATIC)},
            start=self._begin_target,
            prepare=PseudoLabelPass(self._probability, self.setup.task.classes, self._rule(), STATIC),
            prepare_every=self.config.refresh_every,
        )

    def _rule(self) -> LabelRule:
        portion = self.config.static_portion
        return PortionRule(portion) if self.config.static_rule == "cbst" else TopRule(portion, portion)

    def _distillation(self, iterations: int) -> Stage:
        optimizers = {"segmenter": self.setup.segmenter(self.student)}
        return Stage("distil", iterations, self.distil, optimizers, start=self._begin_student)

    def _begin_target(self) -> None:
        self.student.copy_source_layers()
        self.domain = "target"

    def _begin_student(self) -> None:
        self.teacher = Ema(self.student)
        self.student = self.setup.network(self.config.distil_weights)

    # Steps

    def warm_up(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step on the source alone."""
        assert batch.source is not None
        output = self.student(batch.source.image, domain="source")
        yield Loss("source", segmentation_loss(output, batch.source.label), outputs={"source": output})

    def adapt(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step of the adaptation: labels by the prototypes of earlier steps, losses, then those prototypes."""
        assert batch.source is not None
        assert batch.target is not None
        source, target = batch.source, batch.target
        outputs = self._outputs(source, target)
        with torch.autocast(source.image.device.type, enabled=False):
            labels, contrast = self._contrast(outputs, source, target)
            parts = base_losses(self.config, outputs, source, target, labels.segment) | contrast
        weights = term_weights(self.config)
        value = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
        yield Loss("adapt", value, parts=_detached(parts), outputs=outputs)
        for name in KINDS:
            yield Probe(name, getattr(labels, name), target)
        yield from _panels(labels, target, outputs["target"].logits)

    def _contrast(
        self, outputs: Mapping[str, Output], source: Samples, target: Samples
    ) -> tuple[PseudoLabels, dict[str, Tensor]]:
        """The target's labels and the contrast's terms (order: README, "Order of a step")."""
        assert source.label is not None
        config = self.config
        near, far = self._features(outputs["source"]), self._features(outputs["target"])
        cells, rho = self._pool(near, source.label)
        labels = make_labels(config, far, rho, self.running, target.layers[STATIC], target.valid)
        target_cells, target_rho = self._pool(far, labels.chosen)
        terms = {}
        if config.fc_weight:
            cosine = cosine_to(far, rho.means)
            terms["forward"] = contrast_loss(config, cosine, target_cells, rho.present)
        if config.bc_weight:
            cosine = cosine_to(near, target_rho.means)
            terms["backward"] = contrast_loss(config, cosine, cells, target_rho.present)
        self.running.update(rho, target_rho)
        return labels, terms

    def _features(self, output: Output) -> Tensor:
        """f: N D h w."""
        features = output.features[-1] if self.config.features == "encoder" else torch.cat(output.branches, 1)
        return features.float()

    def _pool(self, features: Tensor, label: Tensor) -> tuple[Tensor, Prototypes]:
        """Pixels of each class in each cell, and the prototypes (Eq 1)."""
        classes, grid = len(self.setup.task.classes), (features.shape[2], features.shape[3])
        cells = cell_counts(label, classes, grid)
        if self.config.pooling == "pixels":
            return cells, class_means(features, cells)
        return cells, class_means(features, cell_counts(nearest(label, grid), classes, grid))

    def distil(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step of a new network: the source's labels, the teacher's sure ones, and its probabilities (ProDA)."""
        assert self.teacher is not None
        assert batch.source is not None
        assert batch.target is not None
        source, target = batch.source, batch.target
        teacher: Tensor = self.teacher(target.image, domain="target").logits
        label = sure_labels(teacher, target, self.config.distil_threshold)
        outputs = self._outputs(source, target)
        parts = {
            "source": segmentation_loss(outputs["source"], source.label),
            "target": segmentation_loss(outputs["target"], label),
            "divergence": distillation_loss(outputs["target"].logits, teacher, inside(target, teacher.shape[-2:])),
        }
        value = parts["source"] + parts["target"] + self.config.kd_weight * parts["divergence"]
        yield Loss("distil", value, parts=_detached(parts), outputs=outputs)
        yield Probe("teacher", label, target)

    def _outputs(self, source: Samples, target: Samples) -> dict[str, Output]:
        """A pass for each domain."""
        return {
            "source": self.student(source.image, domain="source"),
            "target": self.student(target.image, domain="target"),
        }

    # Predictions

    def predict(self, samples: Samples) -> Tensor:
        logits: Tensor = self.student(samples.image, domain=self.domain).logits
        return logits

    def _probability(self, samples: Samples) -> Tensor:
        return self.predict(samples).float().softmax(1)


def _detached(parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: part.detach() for name, part in parts.items()}


def _panels(labels: PseudoLabels, target: Samples, logits: Tensor) -> Generator[Event, None, None]:
    yield Panel("target", lambda: target.image)
    for name in KINDS:
        yield Panel(name, partial(getattr, labels, name))
    yield prediction_panel(logits, target.image.shape[-2:])
