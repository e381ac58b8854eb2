"""How a run's steps are shared out."""

import pytest

from udabench.parts.lengths import even_lengths, lengths_by, warmup_lengths


@pytest.mark.parametrize(
    ("iterations", "parts", "lengths"),
    [(9, 3, [3, 3, 3]), (11, 3, [4, 4, 3]), (2, 3, [1, 1, 1]), (5, 1, [5])],
)
def test_evenly_and_the_first_ones_longer(iterations, parts, lengths):
    assert even_lengths(iterations, parts) == lengths


@pytest.mark.parametrize(
    ("iterations", "share", "parts", "lengths"),
    [(10, 0.5, 2, [5, 3, 2]), (10, 0.0, 3, [0, 4, 3, 3]), (12, 0.9, 3, [9, 1, 1, 1]), (2, 0.9, 3, [0, 1, 1, 1])],
)
def test_a_warm_up_leaves_a_step_to_each_training(iterations, share, parts, lengths):
    assert warmup_lengths(iterations, share, parts) == lengths


@pytest.mark.parametrize(
    ("iterations", "shares", "lengths"),
    # 10 by 1 : 1 : 2 ends at 2.5 (to even: 2), 5, 10.
    [(10, [1, 1, 2], [2, 3, 5]), (100, [0.5, 0.25], [67, 33]), (3, [100, 0.1], [3, 1])],
)
def test_by_shares(iterations, shares, lengths):
    assert lengths_by(iterations, shares) == lengths
