"""Labels by transfer from prototypes (BiCL, Eq 6 to 10)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from udabench.labels import IGNORE
from udabench.parts.prototypes import Prototypes, RunningPrototypes, cosine_to, spread_cells
from udabench_bicl.config import BiCLConfig

LOWEST = -2.0
"""Below every cosine."""


class DomainBias(nn.Module):
    """The running prototypes of both domains, and what lies between them (Eq 4 to 6)."""

    def __init__(self, classes: int, channels: int, momentum: float) -> None:
        super().__init__()
        self.source = RunningPrototypes(classes, channels, momentum)
        self.target = RunningPrototypes(classes, channels, momentum)

    @property
    def bias(self) -> Tensor:
        """xi: C D; 0 for a class that one of the domains has not shown yet."""
        known = self.source.seen & self.target.seen
        return (self.target.means - self.source.means) * known[:, None]

    def update(self, source: Prototypes, target: Prototypes) -> None:
        """A batch's prototypes."""
        self.source.update(source)
        self.target.update(target)


@dataclass(frozen=True)
class PseudoLabels:
    """The kinds of labels of the paper's Table 4: N H W int64 each, 255 where nothing is claimed.

    Attributes:
        static: y_F, of the last pass over the target.
        dynamic, calibrated: y_D without and with xi.
        hybrid: the one that the configuration takes, and static labels where it claims nothing (Eq 10).
        chosen: y_T of the contrast.
        segment: y_T of the cross entropy.
    """

    static: Tensor
    dynamic: Tensor
    calibrated: Tensor
    hybrid: Tensor
    chosen: Tensor
    segment: Tensor


@torch.no_grad()
def make_labels(
    config: BiCLConfig,
    features: Tensor,
    source: Prototypes,
    running: DomainBias,
    static: Tensor,
    valid: Tensor | None = None,
) -> PseudoLabels:
    """All labels of target images, each from its own source image.

    Args:
        features: N D h w of the target.
        source: rho_S of the partners.
        running: mu_S and mu_T of the steps before.
        static: N H W int64.
        valid: N H W bool, False on padding, which gets no label.
    """
    known = source if config.label_prototypes == "instance" else _repeated(running.source, len(features))
    both = torch.cat([known.means, known.means + running.bias], 1).detach()
    dynamic, calibrated = (
        _on_pixels(dynamic_labels(cosine, known.present, config.threshold), features, static, valid)
        for cosine in cosine_to(features, both).chunk(2, 1)
    )
    hybrid = hybrid_labels(calibrated if config.calibrate else dynamic, static)
    kinds = {"static": static, "dynamic": calibrated if config.calibrate else dynamic, "hybrid": hybrid}
    chosen, segment = kinds[config.contrast_labels], kinds[config.segment_labels]
    return PseudoLabels(static, dynamic, calibrated, hybrid, chosen, segment)


def dynamic_labels(cosine: Tensor, present: Tensor, threshold: float) -> Tensor:
    """The class of the nearest prototype where its cosine is above the threshold, else 255 (Eq 8 and 9).

    Args:
        cosine: N C P.
        present: N C bool, classes that have a prototype.
        threshold: T, -1 or more.

    Returns:
        N P int64.
    """
    best, label = cosine.masked_fill(~present[:, :, None], LOWEST).max(1)
    return label.masked_fill(best <= threshold, IGNORE)


def hybrid_labels(dynamic: Tensor, static: Tensor) -> Tensor:
    """Dynamic labels, and static ones where there are none (Eq 10)."""
    return torch.where(dynamic != IGNORE, dynamic, static)


def _repeated(running: RunningPrototypes, count: int) -> Prototypes:
    return Prototypes(running.means.expand(count, -1, -1), running.seen.expand(count, -1))


def _on_pixels(cells: Tensor, features: Tensor, static: Tensor, valid: Tensor | None) -> Tensor:
    label = spread_cells(cells.view(len(cells), *features.shape[2:]), static.shape[1:])
    return label if valid is None else label.masked_fill(~valid, IGNORE)
