"""Direct entropy minimisation."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from udabench_min_entropy.method import MinEntropy

from udabench.network import Head
from udabench.plugins import import_file
from udabench.presets import presets_of
from udabench.testing import check_method, fake_registry

fakes = import_file(Path(__file__).with_name("fakes.py"))


def build(**values):
    return MinEntropy(MinEntropy.Config(**values), fakes.FakeSetup())


def entropy_by_hand(logits, size):
    """-sum p log2(p) / (n h w log2 C) at the image's size, as ADVENT's code prints it; float64."""
    p = F.interpolate(logits.double(), size, mode="bilinear").softmax(1)
    return -(p * p.log2()).sum() / (p.numel() / p.shape[1] * math.log2(p.shape[1]))


def test_the_losses_are_the_equation():
    method, batch = build(entropy_weight=0.25), fakes.batch()
    twin = copy.deepcopy(method.student).train()
    losses, others, _ = fakes.run_step(method, batch)
    assert list(losses) == ["source", "target"]
    logits = F.interpolate(twin(batch.source.image).logits, (32, 48), mode="bilinear")
    expected = F.cross_entropy(logits, batch.source.label, ignore_index=255)
    assert losses["source"].value.item() == pytest.approx(expected.item(), rel=1e-5)
    entropy = entropy_by_hand(twin(batch.target.image).logits, (32, 48)).item()
    assert losses["target"].value.item() == pytest.approx(0.25 * entropy, rel=1e-5)
    assert losses["target"].parts["entropy"].item() == pytest.approx(entropy, rel=1e-5)
    assert {panel.name: panel.picture().dim() for panel in others} == {"target": 4, "entropy": 3, "prediction": 3}


def test_every_parameter_learns_and_the_entropy_falls():
    method, batch = build(entropy_weight=10.0), fakes.batch()
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05)
    entropies = []
    for _ in range(5):
        optimizer.zero_grad()
        losses, _, _ = fakes.run_step(method, batch)
        assert set(fakes.gradients(method)) == {name for name, _ in method.named_parameters()}
        optimizer.step()
        entropies.append(losses["target"].parts["entropy"].item())
    assert entropies[-1] < entropies[0]


def test_further_heads_have_a_weight_of_their_own():
    method, batch = build(entropy_weight=1e-3, auxiliary_weight=2e-4), fakes.batch()
    forward = method.student.forward

    def with_head(image, domain=None):
        output = forward(image)
        return output._replace(heads=(Head(2 * output.logits, weight=0.1),))

    method.student.forward = with_head
    twin = copy.deepcopy(fakes.FakeSetup().network()).train()
    losses, _, _ = fakes.run_step(method, batch)
    twin(batch.source.image)
    logits = twin(batch.target.image).logits
    main, further = entropy_by_hand(logits, (32, 48)).item(), entropy_by_hand(2 * logits, (32, 48)).item()
    assert losses["target"].value.item() == pytest.approx(1e-3 * main + 2e-4 * further, rel=1e-5)


def test_one_pass_for_both_domains():
    losses, others, _ = fakes.run_step(build(student_batch="all"), fakes.batch())
    assert list(losses) == ["source+target"]
    parts = losses["source+target"].parts
    assert losses["source+target"].value.item() == pytest.approx(
        parts["source"].item() + 1e-3 * parts["entropy"].item()
    )
    assert len(others) == 3


def test_presets():
    presets = presets_of(fake_registry().methods.describe("min_entropy"))
    default = presets["default"].values
    assert (default["iterations"], default["optim.horizon"]) == (120_000, 250_000)
    assert (default["settings.entropy_weight"], default["settings.auxiliary_weight"]) == (0.001, 0.0002)
    assert all(preset.published is None and preset.reason for name, preset in presets.items() if name != "quick")


@pytest.mark.parametrize("whole_runs", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_it_passes_the_kit(whole_runs, tmp_path):
    results = check_method("min_entropy", fake_registry(), tmp_path, whole_runs=whole_runs)
    assert not [result for result in results if result.failed]
