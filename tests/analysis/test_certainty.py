"""What a network claims: entropy, pseudo-labels, calibration."""

from __future__ import annotations

import math

import pytest
import torch
from analysis_fakes import make, seen
from matplotlib.figure import Figure
from matplotlib.patches import StepPatch
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics.classification import MulticlassCalibrationError

from udabench.analysis.base import Seen, claim_of
from udabench.analysis.calibration import calibration_error, diagram
from udabench.config import RunConfig
from udabench.parts.self_training import SelfTrainingConfig
from udabench.size import Size


def logits_of(probabilities: list[list[float]]) -> Tensor:
    """C 1 n logits of the class probabilities of n pixels."""
    return torch.tensor(probabilities).log().T[:, None]


def claims(probabilities: list[list[float]], label: list[int]) -> Seen:
    logits = logits_of(probabilities)
    return seen(logits, torch.tensor([label]))


def test_claims_against_torch_distributions() -> None:
    logits = torch.randn(1, 5, 6, 4, generator=torch.Generator().manual_seed(0)) * 3
    for align in (False, True):
        claim = claim_of(logits, Size(13, 9), align)
        full = interpolate(logits.double(), (13, 9), mode="bilinear", align_corners=align)
        expected = torch.distributions.Categorical(logits=full[0].permute(1, 2, 0))
        torch.testing.assert_close(claim.entropy.double(), expected.entropy(), rtol=1e-4, atol=1e-5)
        best = expected.probs.max(-1)
        torch.testing.assert_close(claim.confidence.double(), best.values, rtol=1e-4, atol=1e-5)
        assert (claim.label == best.indices).all()


def test_entropy_by_hand() -> None:
    analysis = make("entropy", 2)
    half = math.log(2)
    quarter = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    # Two right pixels, one wrong one and an unknown; then an image without a wrong one.
    analysis.look(claims([[0.5, 0.5], [0.75, 0.25], [0.75, 0.25], [0.5, 0.5]], [0, 0, 1, 255]), 0)
    analysis.look(claims([[0.75, 0.25]], [0]), 0)
    table = analysis.table().set_index("pixels")
    assert table["entropy"].tolist() == pytest.approx([((half + quarter) / 2 + quarter) / 2, quarter])
    assert table["images"].tolist() == [2, 1]


def test_pseudo_labels_by_hand() -> None:
    analysis = make("pseudo-labels", 3, threshold=0.7)
    # Claimed a: sure and right, sure and wrong, sure and unknown, unsure. Claimed b: unsure. c: never.
    a, unsure, b = [0.8, 0.1, 0.1], [0.5, 0.3, 0.2], [0.2, 0.6, 0.2]
    analysis.look(claims([a, a, a], [0, 2, 255]), 0)
    analysis.look(claims([unsure, b], [0, 1]), 0)
    table = analysis.table().set_index("class")
    assert table["share"].tolist() == pytest.approx([0.8, 0.2, 0, 1])
    assert table["density"].tolist() == pytest.approx([0.75, 0, math.nan, 0.6], nan_ok=True)
    assert table["accuracy"].tolist() == pytest.approx([0.5, math.nan, math.nan, 0.5], nan_ok=True)
    assert analysis.notes() == {"threshold": 0.7, "sure pixels with a known truth": 2}


def test_density_is_known_without_any_truth() -> None:
    analysis = make("pseudo-labels", 2, threshold=0.7)
    image = claims([[0.8, 0.2], [0.6, 0.4]], [0, 0])
    image.truth = None
    analysis.look(image, 0)
    table = analysis.table().set_index("class")
    assert table["density"]["a"] == 0.5
    assert math.isnan(table["accuracy"]["all"])


@pytest.mark.parametrize(("settings", "threshold"), [(None, 0.968), (0.9, 0.9)])
def test_the_runs_own_threshold(settings: float | None, threshold: float) -> None:
    own = {} if settings is None else {"settings": SelfTrainingConfig(threshold=settings)}
    assert make("pseudo-labels", config=RunConfig(**own)).threshold == threshold
    assert make("pseudo-labels", config=RunConfig(**own), threshold=0.5).threshold == 0.5


def test_calibration_by_hand() -> None:
    analysis = make("calibration", 2, bins=2)
    # The lower bin stays empty but for .5, which is the upper bin's lower edge; 1 belongs to the last bin.
    analysis.add(torch.tensor([0.5, 0.9, 1.0, 0.2]), torch.tensor([False, True, True, True]))
    table = analysis.table()
    assert table["pixels"].tolist() == [1, 3]
    assert table["confidence"].tolist() == pytest.approx([0.2, 0.8])
    assert table["accuracy"].tolist() == pytest.approx([1, 2 / 3])
    assert calibration_error(table) == pytest.approx((0.8 + 3 * (0.8 - 2 / 3)) / 4)


def test_empty_bins_have_no_share_of_the_pixels() -> None:
    """Bins of a quarter; one pixel in the first, three in the second, none beyond."""
    analysis = make("calibration", 2, bins=4)
    analysis.add(torch.tensor([0.1, 0.3, 0.3, 0.4]), torch.tensor([False, True, True, True]))
    axis = Figure().subplots()
    diagram(axis, analysis.table(), "blue")
    (share,) = (patch for patch in axis.patches if isinstance(patch, StepPatch))
    assert share.get_data()[0].tolist() == [0.25, 0.75, 0, 0]


def test_calibration_error_against_torchmetrics_in_parts() -> None:
    rng = torch.Generator().manual_seed(0)
    analysis, peer = make("calibration", 4), MulticlassCalibrationError(4, n_bins=15, norm="l1", ignore_index=255)
    for _ in range(5):
        logits = torch.randn(4, 20, 30, generator=rng) * 2
        label = torch.randint(0, 4, (20, 30), generator=rng)
        label[torch.rand(20, 30, generator=rng) < 0.2] = 255
        analysis.look(seen(logits, label), 0)
        peer.update(logits.softmax(0)[None], label[None])
    assert analysis.notes()["calibration error"] == pytest.approx(float(peer.compute()), abs=1e-6)


def test_nothing_known_is_no_number() -> None:
    analysis = make("calibration", 2)
    assert math.isnan(calibration_error(analysis.table()))
    assert analysis.notes() == {}
