"""Selection without labels: criteria by hand and by loops in double precision."""

import math

import pytest
import torch

from udabench.evaluate.selection import (
    SAMPLED,
    TEMPERATURE,
    choose,
    criteria,
    neighbourhood_density,
    normalised_entropy,
)


def _literal(vectors, temperature):
    """The definition, vector by vector."""
    total, count = 0.0, len(vectors)
    for i in range(count):
        weights = {}
        for j in range(count):
            if j == i:
                continue
            dot = sum(a * b for a, b in zip(vectors[i], vectors[j], strict=True))
            norms = math.sqrt(sum(a * a for a in vectors[i])) * math.sqrt(sum(b * b for b in vectors[j]))
            weights[j] = math.exp(dot / norms / temperature)
        shares = [w / sum(weights.values()) for w in weights.values()]
        total -= sum(p * math.log(p) for p in shares)
    return total / count


@pytest.mark.parametrize("temperature", [TEMPERATURE, 0.5])
def test_density_equals_the_definition(temperature):
    logits = 2 * torch.randn(12, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    vectors = logits.softmax(1)
    found = neighbourhood_density(vectors, temperature).item()
    assert found == pytest.approx(_literal(vectors.tolist(), temperature), rel=1e-9)


def test_density_of_clusters_by_hand():
    """k clusters of n equal, mutually orthogonal vectors: each has n - 1 neighbours, ln(n - 1) up to e^-20."""
    one_hot = torch.eye(3, dtype=torch.float64)
    for size in (2, 5):
        clusters = one_hot.repeat_interleave(size, 0)
        assert neighbourhood_density(clusters).item() == pytest.approx(math.log(size - 1), abs=1e-6)
    assert neighbourhood_density(one_hot[:1].repeat(7, 1)).item() == pytest.approx(math.log(6))
    assert neighbourhood_density(one_hot[:1]).item() == 0
    assert neighbourhood_density(one_hot).item() == pytest.approx(math.log(2))


def test_entropy_by_hand():
    vectors = torch.tensor([[1, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]], dtype=torch.float64)
    assert normalised_entropy(vectors).tolist() == pytest.approx([0, 1, 0.5])


def test_criteria_of_an_image():
    rng = torch.Generator().manual_seed(1)
    logits = 3 * torch.randn(1, 4, 6, 8, generator=rng)
    vectors = logits[0].double().flatten(1).T.softmax(1)
    found = criteria(logits)
    assert found["entropy"] == pytest.approx(normalised_entropy(vectors).mean().item(), abs=1e-6)
    # 48 positions: all of them are looked at.
    assert found["snd"] == pytest.approx(neighbourhood_density(vectors).item(), abs=1e-5)


def test_views_are_averaged_as_probabilities():
    views = torch.zeros(2, 2, 1, 2)
    views[0, 0], views[1, 1] = 50, 50
    assert criteria(views)["entropy"] == pytest.approx(1)
    assert criteria(views[:1])["entropy"] == pytest.approx(0)


def test_large_images_are_sampled_always_at_the_same_places():
    logits = torch.randn(1, 3, 40, 50, generator=torch.Generator().manual_seed(2))
    state = torch.get_rng_state()
    found = criteria(logits)
    assert torch.equal(state, torch.get_rng_state())
    assert found == criteria(logits)
    assert found["snd"] <= math.log(SAMPLED - 1)
    flat = criteria(torch.zeros(1, 3, 40, 50))
    assert (flat["entropy"], flat["snd"]) == pytest.approx((1, math.log(SAMPLED - 1)))


def test_rules():
    seen = {1: {"entropy": 0.3, "snd": 2.0}, 2: {"entropy": 0.2, "snd": 3.0}, 3: {"entropy": 0.2, "snd": 1.0}}
    assert choose("entropy", dict(reversed(seen.items()))) == 2
    assert choose("snd", seen) == 2
    seen[4] = {"entropy": 0.1, "snd": 3.0}
    assert (choose("entropy", seen), choose("snd", seen)) == (4, 2)
