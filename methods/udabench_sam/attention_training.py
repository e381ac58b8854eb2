"""Stage A of SAM: the modules learn the correlations of pixels, with a network that is thrown away afterwards."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial

import torch
from torch import Generator as Rng

from udabench.method import Batch, Event, Loss, Panel, Scalar, Setup, Stage
from udabench.network import Network
from udabench.parts.losses import Reduction, segmentation_loss
from udabench.parts.panels import prediction_panel
from udabench.translate.apply import translate_source, whole_target
from udabench.translate.base import Translator
from udabench_sam.attention import Attentions
from udabench_sam.guard import logit_size


def attention_stage(
    setup: Setup,
    network: Network,
    attentions: Attentions,
    iterations: int,
    *,
    translator: Translator | None = None,
    ce_avg: Reduction = "valid",
    start: Callable[[], None] | None = None,
    name: str = "attention",
) -> Stage:
    """A network and its modules, trained jointly on the source: cross entropy of softmax(up(Z + Z')) (section 4.1).

    Args:
        setup: the method's.
        network: with its initial weights; what becomes of it is up to the caller (the paper discards it).
        attentions: the modules, trained by the same optimiser, at the head's learning rate.
        iterations: length of the stage.
        translator: what source images go through; None: they are taken as they are.
        ce_avg: see :func:`udabench.parts.losses.segmentation_loss`.
        start: the stage's.
        name: the stage's.
    """
    paired = translator is not None and translator.paired
    return Stage(
        name,
        iterations,
        partial(_step, network, attentions, translator, ce_avg),
        {"segmenter": setup.segmenter(network, attentions)},
        domains=("source", "target") if paired else ("source",),
        context=whole_target(setup) if paired else None,
        start=start,
    )


def _step(
    network: Network,
    attentions: Attentions,
    translator: Translator | None,
    ce_avg: Reduction,
    batch: Batch,
    iteration: int,
    rng: Rng,
) -> Generator[Event, None, None]:
    assert batch.source is not None
    label, image = batch.source.label, batch.source.image
    if translator is not None:
        image = translate_source(translator, batch, rng)
    size: tuple[int, ...] = image.shape[-2:]
    output = network(image)
    changed = list(attentions.attended(network, output, size))
    loss = torch.stack([segmentation_loss(each, label, reduction=ce_avg) for each in changed]).sum()
    yield Loss("attention", loss)
    yield Scalar("logits/source", logit_size(output))
    yield Panel("image", lambda: image.clamp(0, 1))
    yield prediction_panel(output.logits, size)
    yield prediction_panel(changed[0].logits, size, "attended")
