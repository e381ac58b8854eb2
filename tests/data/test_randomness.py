from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from udabench.data.randomness import permute, rng_at, seed_of


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 16, 17, 100, 1000, 1025])
def test_permute_is_a_permutation(length: int) -> None:
    for key in (0, 1, seed_of("any")):
        assert sorted(permute(i, length, key) for i in range(length)) == list(range(length))


@given(st.integers(1, 10**12), st.integers(0, 2**128 - 1), st.data())
def test_permute_is_injective_in_products_too_large_to_list(length: int, key: int, data: st.DataObject) -> None:
    places = data.draw(st.sets(st.integers(0, length - 1), min_size=1, max_size=50))
    images = {permute(i, length, key) for i in places}
    assert len(images) == len(places)
    assert all(0 <= image < length for image in images)


@pytest.mark.parametrize("length", [2, 3, 7, 12])
def test_permute_sends_every_position_everywhere_equally_often(length: int) -> None:
    keys = [seed_of("key", i) for i in range(3000)]
    for position in (0, length - 1):
        counts = Counter(permute(position, length, key) for key in keys)
        expected = len(keys) / length
        # Chi-squared of a fair permutation with length - 1 degrees of freedom: 45 is beyond 1e-5 for all lengths here.
        assert sum((counts[i] - expected) ** 2 / expected for i in range(length)) < 45


def test_permutations_of_neighbouring_keys_differ() -> None:
    orders = {tuple(permute(i, 20, seed_of(7, epoch)) for i in range(20)) for epoch in range(50)}
    assert len(orders) == 50


def test_seed_depends_on_every_part_and_on_where_it_is_split() -> None:
    places = [(1, 2), (1, 2, 0), (12,), ("1", 2), (1, "2"), (2, 1), ("a", "bc"), ("ab", "c"), (1 << 32,), (0, 1)]
    assert len({seed_of(*place) for place in places}) == len(places)


def test_random_numbers_are_the_same_in_another_process() -> None:
    code = "from udabench.data.randomness import rng_at; print(rng_at(3, 'stage', 7, 'source').random())"
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert float(other) == rng_at(3, "stage", 7, "source").random()
