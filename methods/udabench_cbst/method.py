"""CBST (Zou et al., 2018) and CRST (2019): rounds of labelling a growing share of every class, and of retraining."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import Generator as Rng
from torch import Tensor
from torch.nn import functional as F

from udabench.config import EvaluateConfig
from udabench.evaluate.probability import mean_probability, views_of
from udabench.labels import IGNORE
from udabench.method import (
    Batch,
    Event,
    Loss,
    Method,
    Mining,
    Noted,
    Optimizer,
    Panel,
    Samples,
    Scalar,
    Setup,
    Stage,
    Workspace,
)
from udabench.network import Output
from udabench.parts.confidence import confidence_penalty
from udabench.parts.label_rules import PortionRule, SoftPortionRule
from udabench.parts.lengths import warmup_lengths
from udabench.parts.losses import segmentation_loss, upsample
from udabench.parts.norms import statistics_used
from udabench.parts.panels import prediction_panel
from udabench.parts.pseudo_label_pass import Form, PseudoLabelPass
from udabench.parts.soft_labels import BYTES, SOFT, pack, unpack
from udabench.parts.upsampled import summed_cross_entropy
from udabench.schedules import PolySchedule
from udabench.world import own, per_rank, world_size
from udabench_cbst.config import CBSTConfig

LABEL, MINED = "pseudo_label", "mined"


class CBST(Method):
    """One network, trained on the source and then in rounds on what it labels itself."""

    Config = CBSTConfig
    outputs = ("source", "mixed")
    accumulates = True
    source_chance: Tensor
    """Of each image of a step, in the round that was labelled last."""

    def __init__(self, config: CBSTConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.config = config
        self.student = setup.network()
        self.register_buffer("source_chance", torch.zeros(()))

    # Stages

    def stages(self) -> Sequence[Stage]:
        warmup, *rounds = warmup_lengths(self.setup.iterations, self.config.warmup_share, self.config.rounds)
        optimizer = self.setup.segmenter(self.student)
        first = Stage("warmup", warmup, self.warm_up, {"segmenter": optimizer}, domains=("source",))
        later = [stage for number, length in enumerate(rounds, 1) for stage in self._round(number, length, optimizer)]
        return [first, *later] if warmup else later

    def _round(self, number: int, iterations: int, optimizer: Optimizer) -> Iterator[Stage]:
        layers = (LABEL, SOFT) if self.config.lrent else (LABEL,)
        kept = min(self.config.soft_classes, len(self.setup.task.classes))
        size = Stage.pixel_bytes + BYTES * kept * (SOFT in layers)
        yield Stage(f"labels-{number}", 0, prepare=partial(self.label, number), pixel_bytes=size)
        yield Stage(
            f"retrain-{number}",
            iterations,
            self.retrain,
            {"segmenter": self._slower(optimizer)},
            layers={layer: ("target", layer) for layer in layers},
            mining=Mining(LABEL, MINED, self.config.mine_chance),
            source_share=self.config.source_portion_of(number),
        )

    def _slower(self, optimizer: Optimizer) -> Optimizer:
        groups = [replace(group, lr=group.lr * self.config.retrain_lr_factor) for group in optimizer.groups]
        schedule = PolySchedule(power=0) if self.config.retrain_constant else optimizer.schedule
        return replace(optimizer, groups=groups, schedule=schedule)

    # Labels

    def label(self, number: int, workspace: Workspace) -> Iterator[Noted]:
        """The pass before round ``number``: labels, the classes to be mined, the source's part of the images."""
        portion, config = self.config.portion_of(number), self.config
        soft = SoftPortionRule(portion, config.subsample, config.lrent) if config.lrent else None
        also: dict[str, Form] = {} if soft is None else {SOFT: partial(packed, soft, config.soft_classes)}
        rule = PortionRule(portion, config.subsample) if soft is None else soft
        labelling = PseudoLabelPass(self._views, self.setup.task.classes, rule, LABEL, also, expand=mean_probability)
        yield from labelling(workspace)
        pixels = labelling.table(workspace)["pixels"]
        mined = rare_classes(pixels, config.mine_share)
        workspace.write_table(MINED, {"classes": mined})
        yield Scalar("mined_classes", torch.tensor(float(len(mined))))
        if config.mixture == "drawn":
            sources = max(1, int(config.source_portion_of(number) * workspace.count("source")))
            self.source_chance.fill_(sources / (sources + workspace.count("target")))
            yield Scalar("source_chance", self.source_chance)

    def _views(self, samples: Samples) -> tuple[Tensor, ...]:
        config = self.config
        each = EvaluateConfig(
            mode=config.label_mode, window=config.label_window, stride=config.label_stride, flip=config.label_flip
        )
        return views_of(self.predict, samples, each, config.label_scales)

    # Steps

    def warm_up(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step on the source alone."""
        assert batch.source is not None
        source = batch.source
        output = self.student(source.image)
        yield Loss("source", segmentation_loss(output, source.label), outputs={"source": output})
        yield from _panels(source.image, source.label, output)

    def retrain(self, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
        """One step of a round: images of both domains in one batch, every labelled pixel of them counts the same."""
        assert batch.source is not None
        assert batch.source.label is not None
        assert batch.target is not None
        source, target = batch.source, batch.target
        sources, targets = self._mixture(len(source.image), len(target.image), rng)
        first = len(sources)
        image = torch.cat([source.image[sources], target.image[targets]])
        label = torch.cat([batch.source.label[sources], target.layers[LABEL][targets]])
        soft = unpack(target.layers[SOFT][targets], self.student.classes) if self.config.lrent else None
        with statistics_used(self.student) if self.config.frozen_norms else nullcontext():
            output = self.student(image)
        parts = {"labels": self._supervised(output, label, first, soft)}
        if self.config.mrkld or self.config.mrent:
            parts["penalty"] = confidence_penalty(
                output.logits[first:], label[first:], self.config.mrkld, self.config.mrent
            )
        detached = {name: part.detach() for name, part in parts.items()}
        yield Loss("mixed", torch.stack(list(parts.values())).sum(), parts=detached, outputs={"mixed": output})
        yield from _panels(image, label, output)

    def _mixture(self, sources: int, targets: int, rng: Rng) -> tuple[list[int], list[int]]:
        """Which of this process's images of the source and of the target are taken."""
        if self.config.mixture == "both":
            return list(range(sources)), list(range(targets))
        draws = torch.rand(targets * world_size(), generator=rng)
        taken = (own(draws) < float(self.source_chance)).tolist()
        return [i % sources for i, source in enumerate(taken) if source], [i for i in range(targets) if not taken[i]]

    def _supervised(self, output: Output, label: Tensor, first: int, soft: Tensor | None) -> Tensor:
        """Cross entropy, the mean over all labelled pixels; where there are soft labels the main logits learn these."""
        if soft is None:
            return segmentation_loss(output, label)
        hard, claimed = label[:first], label[first:] != IGNORE
        count = per_rank((label != IGNORE).sum())
        total = summed_cross_entropy(output.logits[:first], hard) if first else output.logits.sum() * 0
        if len(claimed):
            logits = upsample(output.logits[first:].float(), label.shape[-2:])
            total = total + (F.cross_entropy(logits, soft, reduction="none") * claimed).sum()
        main = output.weight * total / count
        return main + segmentation_loss(output._replace(weight=0.0), label) if output.heads else main

    # Predictions

    def predict(self, samples: Samples) -> Tensor:
        logits: Tensor = self.student(samples.image).logits
        return logits


def rare_classes(pixels: Tensor, share: float) -> Tensor:
    """The classes with a smaller share of the predicted pixels C, the rarest first: int64."""
    shares = pixels / pixels.sum().clamp(min=1)
    order = shares.argsort(stable=True)
    return order[shares[order] < share]


def packed(rule: SoftPortionRule, kept: int, probability: Tensor, thresholds: Tensor) -> Tensor:
    """A soft label to be stored, from probabilities C H W."""
    return pack(rule.soft(probability[None], thresholds)[0], kept)


def _panels(image: Tensor, label: Tensor | None, output: Output) -> Iterator[Panel]:
    yield Panel("image", lambda: image)
    if label is not None:
        yield Panel("label", lambda: label)
    yield prediction_panel(output.logits, image.shape[-2:])
