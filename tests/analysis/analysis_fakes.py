"""Images as an analysis sees them, made of plain tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from udabench.analysis.base import Analysis, Place, Seen, Subject
from udabench.config import RunConfig
from udabench.data.whole import whole_images
from udabench.labels import LabelSpace
from udabench.plugins import load_registry
from udabench.size import Size

COLORS = ((200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 90))


def classes(count: int = 3) -> LabelSpace:
    return LabelSpace("few", tuple("abcd"[:count]), COLORS[:count])


def make(name: str, count: int = 3, config: Any = None, **values: object) -> Any:
    """An analysis by its registered name, on ``count`` classes."""
    analysis: type[Analysis] = load_registry().analyses.get(name)
    return analysis(analysis.Config.model_validate(values), Subject(nn.Module(), config or RunConfig(), classes(count)))  # type: ignore[arg-type]


def seen(features: Tensor, label: Tensor, place: Place = "target", logits: Tensor | None = None) -> Seen:
    """D h w features with h w labels on the same grid; ``logits`` C h w."""
    given = features if logits is None else logits
    image = torch.zeros(1, 3, *label.shape)
    return Seen(place, whole_images(image, ("one",)), features, given[None], label.to(torch.uint8), Size(*label.shape))


def pixels(points: list[list[float]], label: list[int], place: Place = "target") -> Seen:
    """A row of pixels, each with its features."""
    return seen(torch.tensor(points).float().T[:, None], torch.tensor([label]), place)
