"""The pull of one step: from feature maps and labels to L_pull, by the configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator as Rng
from torch import Tensor
from torch.nn import functional as F

from udabench.errors import UsageError
from udabench.labels import CITYSCAPES19, IGNORE, LabelSpace
from udabench.parts.losses import upsample
from udabench.world import gather
from udabench_t2sda.config import T2SDAConfig
from udabench_t2sda.pull import (
    class_masks,
    confidence_threshold,
    negative_candidates,
    own_queries,
    place_negatives,
    place_queries,
    prototypes,
    pull_loss,
    query_counts,
    query_slots,
)

_SRW = (
    0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023, 0.9539, 0.9843, 1.1116, 0.9037,
    1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
)  # fmt: skip
"""Simple re-weighting (paper, C.2), in the order of Cityscapes' classes."""


class View(NamedTuple):
    """Features with their labels.

    Attributes:
        features: P D.
        label: P int64.
    """

    features: Tensor
    label: Tensor


class Target(NamedTuple):
    """The teacher's look at the target, on the feature grid: features, pseudo-labels (255 on padding), and P
    confidences (Eq 9)."""

    view: View
    confidence: Tensor


def view(features: Tensor, label: Tensor) -> View:
    """Flatten N D h w features and the N H W labels that belong to them (nearest)."""
    small = F.interpolate(label.unsqueeze(1).float(), features.shape[-2:], mode="nearest")
    return View(_flat(features), small.flatten().long())


def whole(part: View) -> View:
    """The whole batch's, in order, without gradient."""
    return View(gather(part.features), gather(part.label))


def target_view(features: Tensor, logits: Tensor, valid: Tensor | None = None) -> Target:
    """Flatten the teacher's features N D h w and claims; its logits N C h' w' are resized to the feature grid. Where
    ``valid`` (N H W bool) is False nothing is claimed."""
    confidence, label = upsample(logits.float(), features.shape[-2:]).softmax(1).max(1)
    if valid is not None:
        inside = F.interpolate(valid.unsqueeze(1).float(), features.shape[-2:], mode="nearest").squeeze(1) > 0
        label = label.masked_fill(~inside, IGNORE)
    return Target(View(_flat(features), label.flatten()), confidence.flatten())


def _flat(features: Tensor) -> Tensor:
    return features.float().flatten(2).transpose(1, 2).flatten(0, 1)


def pull(
    config: T2SDAConfig,
    classes: int,
    query: View,
    positive: View,
    source: View,
    target: Target | None,
    weigh: Callable[[Tensor], Tensor],
    rng: Rng,
) -> Tensor:
    """L_pull of one batch, before lambda; float32 also under autocast.

    Class counts, prototypes and negatives are of the whole batch; the losses are of this rank's queries.

    Args:
        query: the student's projected features, of this rank's images.
        positive, source, target: the teacher's, likewise.
        weigh: used classes (C bool) -> their weights (C).
        rng: CPU generator.
    """
    with torch.autocast(query.features.device.type, enabled=False):
        positive, source = (whole(source),) * 2 if positive is source else (whole(positive), whole(source))
        label = gather(query.label)
        counts = query_counts(
            label, classes, config.queries, config.query_sampling, _draws(query, rng, classes * config.queries)
        )
        # Without a prototype there is nothing to be pulled to.
        counts = counts * class_masks(positive.label, classes).any(1)
        queries = place_queries(label, counts, _draws(query, rng, *query_slots(classes, config.queries)))
        keys = prototypes(positive.features, positive.label, classes)
        negative, has_negative = None, None
        if config.alignment == "infonce":
            negative, has_negative = _negatives(config, classes, source, target, rng)
        return pull_loss(
            query.features, own_queries(queries, len(query.label)), keys, negative, has_negative, weigh(counts > 0),
            config.temperature, config.pull_reduction,
        )  # fmt: skip


def _negatives(
    config: T2SDAConfig, classes: int, source: View, target: Target | None, rng: Rng
) -> tuple[Tensor, Tensor]:
    """Normalised negatives of each class, C m D, and whether there are any, C bool. The source is the whole batch's."""
    features, label = source.features, source.label
    other, unreliable = label.new_zeros(0), label.new_zeros(0, dtype=torch.bool)
    if target is not None and config.negative_sampling != "source":
        seen, confidence = whole(target.view), gather(target.confidence)
        other = seen.label
        known = other != IGNORE
        unreliable = known & (confidence < confidence_threshold(confidence[known], config.unreliable))
        features = torch.cat([features, seen.features])
    masks = negative_candidates(label, other, unreliable, classes, config.ignored_negatives)
    uniform = _draws(source, rng, classes, config.negatives)
    index, has_negative = place_negatives(*masks, config.negative_sampling, uniform)
    return F.normalize(features[index], dim=-1), has_negative


def _draws(like: View, rng: Rng, *shape: int) -> Tensor:
    return torch.rand(shape, generator=rng).to(like.features.device)


def simple_weights(classes: LabelSpace) -> Tensor:
    """The table of simple re-weighting for these classes, by name: C. Raises UsageError for a class without a value."""
    table = dict(zip(CITYSCAPES19.names, _SRW, strict=True))
    missing = [name for name in classes.names if name not in table]
    if missing:
        raise UsageError(
            f"reweight=srw has no weight for {', '.join(missing)} of '{classes.name}'. Use reweight=drw or none."
        )
    return torch.tensor([table[name] for name in classes.names], dtype=torch.float64)
