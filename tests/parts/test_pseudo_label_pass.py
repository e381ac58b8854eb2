"""The pass that labels the target."""

from pathlib import Path

import numpy as np
import pytest
import torch

from udabench.labels import CITYSCAPES19, IGNORE
from udabench.method import Panel, Probe, Scalar
from udabench.parts.label_rules import QuantileRule
from udabench.parts.pseudo_label_pass import PseudoLabelPass
from udabench.plugins import import_file

fakes = import_file(Path(__file__).parents[1] / "methods" / "fakes.py")
RULE = QuantileRule(0.66, 0.9)


@pytest.fixture
def workspace():
    return fakes.MemoryWorkspace(fakes.whole_images(4))


@pytest.fixture
def network():
    return fakes.FakeSetup().network().eval()


class Predict:
    """Probabilities of a network, and for which images they were asked."""

    def __init__(self, network):
        self.network = network
        self.asked = []

    @torch.no_grad()
    def __call__(self, samples):
        self.asked.append(samples.names[0])
        return self.network(samples.image).logits.softmax(1)


def expected(network, images):
    """The labels by the sorted rule, image by image, with the softmax before the upsampling."""
    with torch.no_grad():
        probabilities = [network(samples.image).logits.softmax(1) for samples in images]
        full = [torch.nn.functional.interpolate(p, (32, 48), mode="bilinear") for p in probabilities]
    label = np.stack([p.argmax(1)[0].numpy() for p in full])
    confidence = np.stack([p.amax(1)[0].numpy() for p in full])
    for index in np.unique(label):
        values = np.sort(confidence[label == index])
        threshold = min(values[min(int(np.round(0.66 * len(values))), len(values) - 1)], np.float32(0.9))
        label[(label == index) & (confidence < threshold)] = IGNORE
    return label


def test_labels_are_those_of_the_sorted_rule(workspace, network):
    predict = Predict(network)
    events = list(PseudoLabelPass(predict, CITYSCAPES19, RULE)(workspace))
    labels = expected(network, workspace.samples)
    for samples, label in zip(workspace.samples, labels, strict=True):
        assert np.array_equal(workspace.read("pseudo_label", samples.names[0]).numpy(), label)
    # A small target is predicted once, and it is not all certain.
    assert predict.asked == [samples.names[0] for samples in workspace.samples]
    assert 0.3 < (labels != IGNORE).mean() < 0.5
    shares = [event.value.item() for event in events if isinstance(event, Scalar) and event.name.endswith("density")]
    assert shares == pytest.approx((labels != IGNORE).mean((1, 2)).tolist())
    assert sum(isinstance(event, Probe) for event in events) == 4
    assert {event.picture().shape[0] for event in events if isinstance(event, Panel)} == {1}


def test_a_large_target_is_predicted_twice_and_almost_equal(workspace, network):
    predict = Predict(network)
    list(PseudoLabelPass(predict, CITYSCAPES19, RULE, exact=2000, keep=0)(workspace))
    assert len(predict.asked) == 8
    labels = np.stack([workspace.read("pseudo_label", samples.names[0]).numpy() for samples in workspace.samples])
    # Thresholds lie up to 2^-16 lower: nothing that the exact rule keeps is lost.
    exact = expected(network, workspace.samples)
    assert (labels[exact != IGNORE] == exact[exact != IGNORE]).all()
    assert (labels != exact).mean() < 0.002


@pytest.mark.parametrize("keep", [2**20, 0])
def test_a_killed_pass_goes_on(workspace, network, keep):
    labelling = PseudoLabelPass(Predict(network), CITYSCAPES19, RULE, keep=keep)
    whole = fakes.MemoryWorkspace(workspace.samples)
    list(labelling(whole))
    events = labelling(workspace)
    next(events)
    events.close()
    assert len(workspace.values) == 1
    thresholds = workspace.read_table("pseudo_label-thresholds")["thresholds"]
    again = Predict(network)
    list(PseudoLabelPass(again, CITYSCAPES19, RULE, keep=keep)(workspace))
    assert again.asked == [samples.names[0] for samples in workspace.samples[1:]]
    assert torch.equal(workspace.read_table("pseudo_label-thresholds")["thresholds"], thresholds)
    assert all(torch.equal(workspace.values[key], value) for key, value in whole.values.items())


def test_padding_is_neither_counted_nor_labelled(network):
    images = fakes.whole_images(1)
    valid = torch.ones(1, 32, 48, dtype=torch.bool)
    valid[:, :, 24:] = False
    workspace = fakes.MemoryWorkspace([images[0]._replace(valid=valid)])
    list(PseudoLabelPass(Predict(network), CITYSCAPES19, RULE)(workspace))
    label = workspace.read("pseudo_label", images[0].names[0])
    assert (label[:, 24:] == IGNORE).all()
    assert (label[:, :24] != IGNORE).any()
    assert workspace.read_table("pseudo_label-thresholds")["pixels"].sum() == 32 * 24
