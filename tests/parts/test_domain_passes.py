"""Source and target through one network."""

from pathlib import Path

import pytest
import torch

from udabench.parts.domain_passes import domain_losses
from udabench.plugins import import_file

fakes = import_file(Path(__file__).parents[1] / "methods" / "fakes.py")
WEIGHTS = {"source": 1.0, "target": 0.5}


def objective(name, output):
    value = output.logits.square().mean()
    return WEIGHTS[name] * value, {f"{name} square": value}


@pytest.fixture
def images():
    batch = fakes.batch()
    return {"source": batch.source.image, "target": batch.target.image[:1]}


def both(images, norms):
    """The losses and gradients of both ways, with the norms in this mode."""
    found = {}
    for passes in ("separate", "all"):
        network = fakes.FakeSetup().network().train(norms == "batch")
        losses = []
        for loss in domain_losses(network, images, objective, passes):
            loss.value.backward()
            losses.append(loss)
        found[passes] = losses, fakes.gradients(network)
    return found


def test_one_pass_gives_what_two_give_where_norms_are_fixed(images):
    found = both(images, "fixed")
    separate, joint = found["separate"][0], found["all"][0]
    assert [loss.name for loss in separate] == ["source", "target"]
    assert [loss.name for loss in joint] == ["source+target"]
    assert joint[0].value.item() == pytest.approx(sum(loss.value.item() for loss in separate), rel=1e-6)
    assert set(joint[0].parts) == {"source square", "target square"}
    assert {name: len(output.logits) for name, output in joint[0].outputs.items()} == {"source": 2, "target": 1}
    for name, gradient in found["all"][1].items():
        assert torch.allclose(gradient, found["separate"][1][name], atol=1e-6), name


def test_norms_see_the_images_of_a_pass_together(images):
    found = both(images, "batch")
    separate, joint = found["separate"][0], found["all"][0]
    total = sum(loss.value.item() for loss in separate)
    assert joint[0].value.item() != pytest.approx(total, rel=1e-3)
    assert not any(part.requires_grad for loss in (*separate, *joint) for part in loss.parts.values())
