"""Statistics over seeds, against numbers from tables and by hand."""

from __future__ import annotations

import math

import pytest

from udabench.leaderboard.statistics import Spread, paired_difference, t_quantile


@pytest.mark.parametrize(
    ("freedom", "quantile"),
    # The 97.5 % points of Student's T as printed in any table of it.
    [(1, 12.706), (2, 4.303), (3, 3.182), (4, 2.776), (5, 2.571), (9, 2.262), (10, 2.228), (29, 2.045), (120, 1.980)],
)
def test_t_quantiles(freedom: int, quantile: float) -> None:
    assert t_quantile(freedom) == pytest.approx(quantile, abs=5e-4)


def test_t_quantile_in_closed_form() -> None:
    """One degree is Cauchy's: tan(.475 pi); with two t = (2p - 1) sqrt(2 / (1 - (2p - 1)^2))."""
    assert t_quantile(1) == pytest.approx(math.tan(0.475 * math.pi), rel=1e-12)
    assert t_quantile(2) == pytest.approx(0.95 * math.sqrt(2 / (1 - 0.95**2)), rel=1e-12)
    assert t_quantile(1, level=0.5) == pytest.approx(1.0)


def test_spread_by_hand() -> None:
    found = Spread.of([1.0, 2.0, 6.0])
    assert (found.mean, found.n) == (3.0, 3)
    assert found.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert found.half_width == pytest.approx(4.30265 * math.sqrt(7) / math.sqrt(3), rel=1e-5)


def test_spread_of_few() -> None:
    one, none = Spread.of([0.5, math.nan]), Spread.of([math.nan])
    assert (one.mean, one.n) == (0.5, 1)
    assert math.isnan(one.std)
    assert math.isnan(one.half_width)
    assert math.isnan(none.mean)
    assert none.n == 0


def test_differences_are_paired_by_seed() -> None:
    """Seeds 0 and 1 are shared: +3 and +1, whatever seeds 5 and 7 did."""
    found = paired_difference({0: 10.0, 1: 20.0, 5: 99.0}, {1: 19.0, 0: 7.0, 7: 0.0})
    assert (found.mean, found.n) == (2.0, 2)
    assert found.std == pytest.approx(math.sqrt(2))


def test_no_shared_seed_gives_no_interval() -> None:
    found = paired_difference({0: 10.0, 1: 12.0}, {2: 8.0})
    assert (found.mean, found.n) == (3.0, 1)
    assert math.isnan(found.half_width)
