"""The pass that labels the target."""

from pathlib import Path

import numpy as np
import pytest
import torch

from udabench.errors import UsageError
from udabench.labels import CITYSCAPES19, IGNORE
from udabench.method import Panel, Probe, Remark, Scalar
from udabench.parts.label_rules import PortionRule, QuantileRule
from udabench.parts.pseudo_label_pass import PseudoLabelPass, confidence_levels
from udabench.parts.thresholds import ClassConfidences, quantile_thresholds
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


def values_of(events):
    return [(event.name, event.value.item()) for event in events if isinstance(event, Scalar)]


def test_what_is_logged_is_of_all_images_however_often_a_pass_begins(workspace, network):
    whole = values_of(PseudoLabelPass(Predict(network), CITYSCAPES19, RULE)(fakes.MemoryWorkspace(workspace.samples)))
    list(zip(range(40), PseudoLabelPass(Predict(network), CITYSCAPES19, RULE)(workspace), strict=False))
    assert 0 < len(workspace.values) < 4
    assert values_of(PseudoLabelPass(Predict(network), CITYSCAPES19, RULE)(workspace)) == whole
    # A pass that is done is not made again, but told again.
    idle = Predict(network)
    assert values_of(PseudoLabelPass(idle, CITYSCAPES19, RULE)(workspace)) == whole
    assert idle.asked == []


def test_shares_of_the_classes_add_up_to_the_density(workspace, network):
    values = dict(values_of(PseudoLabelPass(Predict(network), CITYSCAPES19, RULE)(workspace)))
    shares = [value for name, value in values.items() if name.startswith("pseudo_label/share/")]
    assert len(shares) == 19
    assert sum(shares) == pytest.approx(values["pseudo_label/density"])
    label = workspace.read("pseudo_label", workspace.samples[-1].names[0])
    assert values["pseudo_label/share/road"] == (label == 0).float().mean()


def test_further_artefacts_are_written_before_the_labels(workspace, network):
    written = []
    original = workspace.write
    workspace.write = lambda artefact, name, value: (written.append(artefact), original(artefact, name, value))
    also = {"sure": confidence_levels, "limits": lambda probability, thresholds: thresholds[:, None, None]}
    list(PseudoLabelPass(Predict(network), CITYSCAPES19, RULE, also=also)(workspace))
    assert written == ["sure", "limits", "pseudo_label"] * 4
    image = workspace.samples[0]
    with torch.no_grad():
        full = torch.nn.functional.interpolate(network(image.image).logits.softmax(1), (32, 48), mode="bilinear")
    assert torch.equal(workspace.read("sure", image.names[0]), (full.amax(1)[0] * 255).round().long())
    assert torch.equal(
        workspace.read("limits", image.names[0])[:, 0, 0],
        workspace.read_table("pseudo_label-thresholds")["thresholds"],
    )


class Fixed:
    """All pixels are of class 0, as sure as the image says; a few are of class 1, hardly so."""

    def __call__(self, samples):
        probability = torch.zeros(1, 19, 32, 48)
        probability[:, 0] = 0.9
        probability[:, 0, :1, :8], probability[:, 1, :1, :8] = 0.4, 0.6
        return probability


def test_a_class_of_which_nothing_is_kept_is_named(workspace):
    """Class 1: 8 pixels of each of 4 images; its threshold is too high for all of them."""

    class Strict(QuantileRule):
        def thresholds(self, confidences):
            return torch.tensor([0.5, 0.7] + [0.0] * 17)

    remarks = [event for event in PseudoLabelPass(Fixed(), CITYSCAPES19, Strict(0.5))(workspace) if is_remark(event)]
    said = "pseudo_label: predicted, but nothing kept: sidewalk (32 pixels, threshold 0.7)"
    assert [remark.text for remark in remarks] == [said]


def test_thresholds_that_keep_nothing_at_all_are_an_error(workspace):
    """16 x 24 pixels of each image count; of 4 x 4 in class 1 a ten-thousandth is none, of 1520 in class 0 too."""
    with pytest.raises(UsageError) as error:
        list(PseudoLabelPass(Fixed(), CITYSCAPES19, PortionRule(1e-4, 2))(workspace))
    said = str(error.value)
    assert "'pseudo_label' keep no pixel of the target: road (6112 pixels, threshold 1), sidewalk (32 pixels" in said
    assert "PortionRule(portion=0.0001, subsample=2) is too strict" in said


def is_remark(event):
    return isinstance(event, Remark)


def test_subsampling_is_for_thresholds_alone(workspace, network):
    rule = QuantileRule(0.66, 0.9, subsample=3)
    list(PseudoLabelPass(Predict(network), CITYSCAPES19, rule)(workspace))
    table = workspace.read_table("pseudo_label-thresholds")
    assert table["pixels"].sum() == 4 * 32 * 48
    confidences = ClassConfidences(19)
    for image in workspace.samples:
        with torch.no_grad():
            full = torch.nn.functional.interpolate(network(image.image).logits.softmax(1), (32, 48), mode="bilinear")
        confidence, label = full.max(1)
        confidences.add(label[:, ::3, ::3], confidence[:, ::3, ::3])
    assert torch.equal(table["thresholds"], quantile_thresholds(confidences, 0.66, 0.9))
