"""L_pull of T2S-DA as plain functions: prototypes, query counts, negatives, class weights, InfoNCE, and their sum.

Pixels are flat: P positions of a feature grid (all images of the batch), D channels, C classes. No function draws by
itself: random positions come from uniform numbers that the caller passes. No function waits for the device, and no
shape depends on the data. With several processes, positions are drawn over all images of the batch, and each process
takes the losses of the queries that lie in its own.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from udabench.world import per_rank, rank, total, world_size

QuerySampling = Literal["cbqs", "ceqs", "uniform"]
NegativeSampling = Literal["denps", "pooled", "source"]
Alignment = Literal["infonce", "mse"]
Reduction = Literal["mean", "literal"]
AbsentWeight = Literal["zero", "max"]

BLOCK = 64
"""Queries are laid out in blocks of one class each, so that a block shares one set of negatives."""
_NOTHING = -1e4
"""Added to a logit, removes it from the sum: exp(-1e4) is 0."""


def class_masks(label: Tensor, classes: int) -> Tensor:
    """C P bool from P labels; 255 belongs to no class."""
    return label.unsqueeze(0) == torch.arange(classes, device=label.device).unsqueeze(1)


def prototypes(features: Tensor, label: Tensor, classes: int) -> Tensor:
    """Normalised mean feature of each class, C D; zeros where a class is absent (Eq 5, 6).

    The mean is taken over raw features and then normalised; Algorithm 1 has it the other way round.
    """
    masks = class_masks(label, classes)
    means = masks.to(features.dtype) @ features / masks.sum(1, keepdim=True).clamp(min=1)
    return F.normalize(means, dim=1)


def query_counts(
    label: Tensor, classes: int, base: int, sampling: QuerySampling = "cbqs", uniform: Tensor | None = None
) -> Tensor:
    """Number of queries n_q of each class, C int64; 0 where a class is absent.

    Args:
        label: P labels on the feature grid, 255 is left out.
        base: n of the paper.
        sampling: ``cbqs``: ceil(C p(c) n) by the share p of labelled pixels (Eq 11); ``ceqs``: n each;
            ``uniform``: C n draws over all labelled pixels.
        uniform: C n numbers in [0, 1), for ``uniform``.
    """
    pixels = class_masks(label, classes).sum(1)
    if sampling == "ceqs":
        return (pixels > 0) * base
    labelled = pixels.sum().clamp(min=1)
    if sampling == "cbqs":
        # In whole numbers: a float product such as 19.000000001 would add a query.
        return (pixels * (classes * base) + labelled - 1) // labelled
    if uniform is None:
        raise ValueError("uniform sampling of queries needs uniform numbers")
    drawn = torch.searchsorted(pixels.cumsum(0), (uniform * labelled).long().clamp(max=labelled - 1), right=True)
    counts = torch.zeros(classes + 1, dtype=torch.int64, device=label.device)
    # Without a labelled pixel every draw falls behind the last class and is dropped.
    return counts.index_add_(0, drawn, torch.ones_like(drawn))[:classes]


def confidence_threshold(confidence: Tensor, alpha: float) -> Tensor:
    """gamma: the value below which the share ``alpha`` of all confidences lies, linearly interpolated (Eq 9)."""
    return torch.quantile(confidence.flatten(), alpha)


def negative_candidates(
    source_label: Tensor, target_label: Tensor, unreliable: Tensor, classes: int, ignored: bool = False
) -> tuple[Tensor, Tensor]:
    """Which positions may be negatives of each class: C Ps and C Pt bool (Eq 7, 8).

    Args:
        source_label: Ps labels.
        target_label: Pt pseudo-labels.
        unreliable: Pt bool, confidence below gamma.
        ignored: positions of 255 are negatives of every class, instead of none.
    """
    source = ~class_masks(source_label, classes) & ((source_label < classes) | ignored)
    target = ~class_masks(target_label, classes) & unreliable
    return source, target


class Queries(NamedTuple):
    """Where queries are taken: G blocks of :data:`BLOCK`, each of one class.

    Attributes:
        position: G B int64, where in the grid.
        row: G int64, the block's class.
        valid: G B bool; False on slots that pad a block.
    """

    position: Tensor
    row: Tensor
    valid: Tensor


def query_slots(classes: int, base: int) -> tuple[int, int]:
    """Shape G B of the blocks that hold up to C n + C queries in any division among the classes."""
    return (classes * base + classes) // BLOCK + classes, BLOCK


def place_queries(label: Tensor, counts: Tensor, uniform: Tensor) -> Queries:
    """Draw ``counts`` queries of each class with replacement from its positions.

    Args:
        label: P labels.
        counts: C, of :func:`query_counts`.
        uniform: numbers in [0, 1) of shape :func:`query_slots`.
    """
    classes = len(counts)
    blocks = (counts + BLOCK - 1) // BLOCK
    ends = blocks.cumsum(0)
    order = torch.arange(len(uniform), device=label.device)
    row = torch.searchsorted(ends, order, right=True)
    filled = row < classes
    row = row.clamp(max=classes - 1)
    first = (order - (ends - blocks)[row]).unsqueeze(1) * BLOCK
    slot = first + torch.arange(BLOCK, device=label.device)
    valid = (slot < counts[row].unsqueeze(1)) & filled.unsqueeze(1)
    position, _ = draw(class_masks(label, classes), row.unsqueeze(1).expand_as(uniform), uniform)
    return Queries(position, row, valid)


def own_queries(queries: Queries, positions: int) -> Queries:
    """Of queries over the whole batch those on this rank's ``positions``, counted from their first; the others are not
    valid."""
    local = queries.position - rank() * positions
    inside = (local >= 0) & (local < positions)
    return queries._replace(position=torch.where(inside, local, 0), valid=queries.valid & inside)


def place_negatives(
    source: Tensor, target: Tensor, sampling: NegativeSampling, uniform: Tensor
) -> tuple[Tensor, Tensor]:
    """Draw m negatives for each class, with replacement; they serve all queries of the class.

    Args:
        source, target: C Ps and C Pt bool, of :func:`negative_candidates`.
        sampling: ``denps``: half from each domain, all from one where the other has none; ``pooled``: m from both
            together; ``source``: m from the source.
        uniform: C m numbers in [0, 1).

    Returns:
        Indices into source and target positions joined, C m, and whether a class has any negative, C bool.
    """
    classes, wanted = uniform.shape
    rows = torch.arange(classes, device=uniform.device).unsqueeze(1)
    from_source = torch.cat([source, torch.zeros_like(target)], 1)
    if sampling == "source":
        return draw(from_source, rows.expand_as(uniform), uniform)
    if sampling == "pooled":
        return draw(torch.cat([source, target], 1), rows.expand_as(uniform), uniform)
    from_target = torch.cat([torch.zeros_like(source), target], 1)
    first = torch.where(source.any(1, keepdim=True), from_source, from_target)
    second = torch.where(target.any(1, keepdim=True), from_target, from_source)
    half = rows + classes * (torch.arange(wanted, device=uniform.device) >= wanted // 2)
    return draw(torch.cat([first, second]), half, uniform, classes)


def draw(mask: Tensor, row: Tensor, uniform: Tensor, rows: int | None = None) -> tuple[Tensor, Tensor]:
    """For each slot, the position of a random set element of its row of the mask, with replacement.

    Args:
        mask: R P bool.
        row: the row of each slot, of any shape.
        uniform: in [0, 1), of the same shape: where among the row's set elements the position lies.
        rows: how many of the rows are asked about in the second result; None: all.

    Returns:
        Positions (0 where a row is empty), and whether a row has any, R (or ``rows``) bool.
    """
    ranks = mask.flatten().cumsum(0)
    ends = ranks[mask.shape[1] - 1 :: mask.shape[1]]
    sizes = mask.sum(1)
    available = sizes[row]
    chosen = torch.minimum((uniform * available).long(), available - 1).clamp(min=0)
    flat = torch.searchsorted(ranks, (ends - sizes)[row] + chosen + 1)
    position = torch.where(available > 0, flat - row * mask.shape[1], 0)
    return position, (sizes > 0)[:rows]


def mean_confidence(confidence: Tensor, label: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Mean confidence of the pixels of each pseudo-label in the whole batch, and whether there are any: C float64, C
    bool (Eq 13)."""
    inside = label < classes
    slots = torch.where(inside, label, classes)
    zeros = torch.zeros(classes + 1, dtype=torch.float64, device=label.device)
    # Hundreds of thousands of values near 1: a sum in single precision would lose the digits that matter.
    sums = total(zeros.index_add(0, slots, confidence.double()))[:classes]
    sizes = total(zeros.index_add(0, slots, torch.ones_like(confidence, dtype=torch.float64)))[:classes]
    return sums / sizes.clamp(min=1), sizes > 0


def class_weights(
    confidence: Tensor, present: Tensor, used: Tensor, beta: float, absent: AbsentWeight = "zero"
) -> Tensor:
    """w* of each class, sum 1 over the used classes (Eq 12).

    Args:
        confidence: C mean confidences.
        present: C bool, classes that have a confidence.
        used: C bool, classes that have queries; others weigh 0.
        beta: exponent.
        absent: classes without a confidence weigh 0 (``zero``), or as if it was 0 (``max``).

    Returns:
        C. Equal weights over the used classes where all would be 0 (every confidence is 1, or nothing is present).
    """
    counted = used if absent == "max" else present & used
    doubt = torch.where(counted, 1 - torch.where(present, confidence, 0), 0).clamp(min=0)
    weight = torch.where(counted, (doubt / doubt.max().clamp(min=1e-6)) ** beta, 0)
    summed = weight.sum()
    return torch.where(summed > 0, weight / summed.clamp(min=1e-12), equal_weights(used).to(weight))


def equal_weights(used: Tensor) -> Tensor:
    """1 over the number of used classes, on those: C."""
    return used.double() / used.sum().clamp(min=1)


def fixed_weights(table: Tensor, used: Tensor) -> Tensor:
    """A table of weights scaled to sum 1 over the used classes: C."""
    weight = torch.where(used, table, 0)
    return weight / weight.sum().clamp(min=1e-12)


def info_nce(
    query: Tensor, positive: Tensor, negative: Tensor, temperature: float, has_negative: Tensor | None = None
) -> Tensor:
    """InfoNCE of each query (Eq 2); all features are normalised.

    Args:
        query: G Q D.
        positive: G D, one key a group.
        negative: G m D, shared by the group's queries.
        has_negative: G bool; False: the group's negatives are void and its loss is 0.

    Returns:
        G Q.
    """
    bias = query.new_zeros(len(query), 1, 1)
    if has_negative is not None:
        bias = bias.masked_fill(~has_negative.view(-1, 1, 1), _NOTHING)
    near = (query * positive.unsqueeze(1)).sum(-1) / temperature
    far = torch.baddbmm(bias, query, negative.transpose(1, 2), alpha=1 / temperature).logsumexp(-1)
    return F.softplus(far - near)


def squared_distance(query: Tensor, positive: Tensor) -> Tensor:
    """``||q - k+||^2`` of each query: G Q D, G D -> G Q."""
    return (query - positive.unsqueeze(1)).square().sum(-1)


def pull_loss(
    features: Tensor,
    queries: Queries,
    positive: Tensor,
    negative: Tensor | None,
    has_negative: Tensor | None,
    weights: Tensor,
    temperature: float = 0.2,
    reduction: Reduction = "mean",
) -> Tensor:
    """L_pull: the losses of all queries, by class (Eq 3).

    Args:
        features: P D, the student's, not normalised; the only input that gets a gradient.
        queries: of :func:`place_queries`, those of this rank (:func:`own_queries`).
        positive: C D, of :func:`prototypes`.
        negative: C m D, normalised; None: the squared distance instead of InfoNCE.
        has_negative: C bool.
        weights: C, w*.
        reduction: ``mean``: sum_c w*_c times the mean over the queries of c; ``literal``: (1/C) sum_c w*_c times
            their sum, as Eq 3 is printed.

    Returns:
        Scalar, whose mean over the ranks is the batch's; 0 without queries.
    """
    groups, width = queries.position.shape
    query = F.normalize(features.index_select(0, queries.position.flatten()), dim=1).view(groups, width, -1)
    keys = positive[queries.row]
    if negative is None or has_negative is None:
        losses = squared_distance(query, keys)
    else:
        losses = info_nce(query, keys, negative[queries.row], temperature, has_negative[queries.row])
    sums = losses.new_zeros(len(weights)).index_add(0, queries.row, torch.where(queries.valid, losses, 0).sum(1))
    if reduction == "literal":
        return world_size() * (weights.to(sums) * sums).sum() / len(weights)
    counts = torch.zeros_like(sums).index_add(0, queries.row, queries.valid.sum(1).to(sums))
    return (weights.to(sums) * sums / per_rank(counts)).sum()
