"""FDA: several bands' networks, robust entropy, rounds of self-training, the mean."""

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F
from udabench_fda.method import FDA

from udabench.method import Loss, Panel
from udabench.plugins import import_file
from udabench.presets import presets_of
from udabench.size import Size
from udabench.testing import check_method, fake_registry
from udabench.translate.fda import fda

fakes = import_file(Path(__file__).with_name("fakes.py"))
stage_of = fakes.stage_of
BANDS = (0.05, 0.2)


def build(iterations=12, setup=None, **values):
    values = {"bands": BANDS, "rounds": 1} | values
    return FDA(FDA.Config(**values), setup or fakes.FakeSetup(iterations=iterations))


def run(stage, batch, iteration=1):
    """One step of a stage, each loss back-propagated as it comes."""
    events = list(_trained(stage.step(batch, iteration, torch.Generator().manual_seed(0))))
    if stage.after_step is not None:
        stage.after_step(iteration)
    return {event.name: event for event in events if isinstance(event, Loss)}, events


def _trained(events):
    for event in events:
        if isinstance(event, Loss):
            event.value.backward()
        yield event


def labelled(batch, seed=0):
    """The batch with pseudo-labels: a third of the pixels unknown."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(19, (2, 32, 48), generator=rng)
    label[torch.rand(label.shape, generator=rng) < 0.3] = 255
    return batch._replace(target=batch.target._replace(layers={"pseudo_label": label}))


def cross_entropy(logits, label):
    return F.cross_entropy(F.interpolate(logits, label.shape[-2:], mode="bilinear"), label, ignore_index=255).item()


def robust(logits, eta=2.0):
    """Mean of (h^2 + 1e-8)^eta, h the entropy over log C, on the logits as they are; float64."""
    p = logits.detach().double().softmax(1)
    h = -(p * p.log()).sum(1) / math.log(p.shape[1])
    return ((h**2 + 1e-8) ** eta).mean().item()


def translated(batch, band, window="symmetric"):
    return fda(batch.source.image, batch.target.image, band, window)


# Stages


def test_stages_share_the_steps_out():
    names = [
        "adapt-0-0.05", "adapt-0-0.2",
        "labels-1", "adapt-1-0.05", "adapt-1-0.2",
        "labels-2", "adapt-2-0.05", "adapt-2-0.2",
    ]  # fmt: skip
    stages = build(iterations=20, rounds=2).stages()
    assert [stage.name for stage in stages] == names
    assert [stage.iterations for stage in stages] == [4, 4, 0, 3, 3, 0, 3, 3]
    assert sum(stage.iterations for stage in stages) == 20
    assert [bool(stage.layers) for stage in stages] == [False, False, False, True, True, False, True, True]
    assert [stage.start is not None for stage in stages] == [bool(stage.layers) for stage in stages]


def test_the_plain_row_is_one_stage():
    (stage,) = build(bands=(0.01,), rounds=0).stages()
    assert (stage.name, stage.iterations, stage.layers) == ("adapt-0-0.01", 12, {})


def test_every_stage_is_a_step_long_at_least():
    assert [stage.iterations for stage in build(iterations=2).stages()] == [1, 1, 0, 1, 1]


def test_only_the_stages_own_network_is_trained():
    method, batch = build(), labelled(fakes.batch())
    for index, name in enumerate(("adapt-0-0.05", "adapt-0-0.2")):
        stage = stage_of(method, name)
        own = {id(p) for p in method.networks[index].parameters()}
        assert {id(p) for group in stage.optimizers["segmenter"].groups for p in group.parameters} == own
        for iteration in range(2):
            losses, _ = run(stage, batch, iteration)
            assert all(loss.value.isfinite() for loss in losses.values())
        assert set(fakes.gradients(method.networks[index]))
        assert not fakes.gradients(method.networks[1 - index])
        method.zero_grad(set_to_none=True)


def test_a_round_begins_from_the_initial_weights():
    method = build()
    with torch.no_grad():
        for parameter in method.parameters():
            parameter.add_(1)
    method.trained.fill_(True)
    initial = fakes.FakeSetup().network().state_dict()
    stage = stage_of(method, "adapt-1-0.05")
    stage.start()
    assert all(torch.equal(value, initial[key]) for key, value in method.networks[0].state_dict().items())
    assert not torch.equal(method.networks[1].head.weight, initial["head.weight"])
    assert method.trained.tolist() == [False, True]
    # What is declared anew trains the new network.
    again = stage_of(method, "adapt-1-0.05").optimizers["segmenter"].groups[0].parameters
    assert again[0] is next(method.networks[0].parameters())


# Steps


def test_round_0_is_cross_entropy_of_translated_source_and_robust_entropy():
    batch = fakes.batch()
    for index, band in enumerate(BANDS):
        method = build(entropy_weight=0.5, entropy_eta=1.5)
        twin = copy.deepcopy(method.networks[index]).train()
        losses, events = run(stage_of(method, f"adapt-0-{band:g}"), batch)
        source = twin(translated(batch, band)).logits
        assert losses["source"].value.item() == pytest.approx(cross_entropy(source, batch.source.label), rel=1e-5)
        target = twin(batch.target.image).logits
        assert losses["target"].value.item() == pytest.approx(0.5 * robust(target, 1.5), rel=1e-5)
        pictures = {event.name: event.picture() for event in events if isinstance(event, Panel)}
        assert set(pictures) == {"translated", "target", "entropy", "prediction"}
        assert pictures["entropy"].shape == pictures["prediction"].shape == (2, 32, 48)


def test_the_entropy_acts_behind_its_step():
    stage = stage_of(build(entropy_after=5), "adapt-0-0.05")
    assert [list(run(stage, fakes.batch(), i)[0]) for i in (0, 5, 6)] == [["source"], ["source"], ["source", "target"]]
    # As the code of FDA compares: with 0 the first step is without it.
    assert list(run(stage_of(build(), "adapt-0-0.05"), fakes.batch(), 0)[0]) == ["source"]
    assert list(run(stage_of(build(entropy_weight=0), "adapt-0-0.05"), fakes.batch())[0]) == ["source"]


def test_a_later_round_learns_the_pseudo_labels():
    method, batch = build(entropy_weight=0.5, entropy_after=100), labelled(fakes.batch())
    twin = copy.deepcopy(method.networks[1]).train()
    losses, _ = run(stage_of(method, "adapt-1-0.2"), batch, 0)
    source = twin(translated(batch, 0.2)).logits
    assert losses["source"].value.item() == pytest.approx(cross_entropy(source, batch.source.label), rel=1e-5)
    target = twin(batch.target.image).logits
    pseudo = cross_entropy(target, batch.target.layers["pseudo_label"])
    assert losses["target"].parts["pseudo"].item() == pytest.approx(pseudo, rel=1e-5)
    assert losses["target"].value.item() == pytest.approx(pseudo + 0.5 * robust(target), rel=1e-5)


def test_labels_of_nothing_are_no_loss():
    batch = labelled(fakes.batch())
    batch.target.layers["pseudo_label"].fill_(255)
    losses, _ = run(stage_of(build(), "adapt-1-0.05"), batch)
    assert losses["target"].parts["pseudo"].item() == 0
    assert losses["target"].value.isfinite()


def test_one_pass_for_both_domains():
    losses, _ = run(stage_of(build(student_batch="all"), "adapt-1-0.05"), labelled(fakes.batch()))
    (loss,) = losses.values()
    parts = {name: value.item() for name, value in loss.parts.items()}
    assert set(parts) == {"source", "pseudo", "entropy"}
    expected = parts["source"] + parts["pseudo"] + 0.005 * parts["entropy"]
    assert loss.value.item() == pytest.approx(expected, rel=1e-6)


def test_window_and_range_of_translated_images():
    batch = fakes.batch()
    method = build(window="corner")
    twin = copy.deepcopy(method.networks[1]).train()
    losses, _ = run(stage_of(method, "adapt-0-0.2"), batch)
    source = twin(translated(batch, 0.2, "corner")).logits
    assert losses["source"].value.item() == pytest.approx(cross_entropy(source, batch.source.label), rel=1e-5)
    assert [engine.clamp for engine in build(clamp=True).translators] == [True, True]
    assert [engine.beta for engine in build().translators] == list(BANDS)


def test_the_whole_target_image_lends_its_amplitudes():
    setup = fakes.FakeSetup(target_size=Size(64, 96))
    assert {stage.context for stage in build(setup=setup).stages() if stage.iterations} == {Size(64, 96)}
    assert {stage.context for stage in build(setup=setup, translate_whole=False).stages()} == {None}
    assert {stage.context for stage in build().stages()} == {None}


# Predictions and labels


@pytest.fixture
def different():
    """A method whose networks disagree."""
    method = build().eval()
    with torch.no_grad():
        method.networks[1].head.weight.mul_(-1)
    method.trained.fill_(True)
    return method


def probabilities(method, image):
    with torch.no_grad():
        return [network(image).logits.softmax(1) for network in method.networks]


def test_the_prediction_is_the_mean_probability(different):
    target = fakes.batch().target
    first, second = probabilities(different, target.image)
    with torch.no_grad():
        predictions = {name: predict(target) for name, predict in different.predictors().items()}
    assert list(predictions) == ["mean", "band-0.05", "band-0.2"]
    assert torch.allclose(predictions["mean"].exp(), (first + second) / 2, atol=1e-6)
    assert torch.allclose(predictions["band-0.2"].softmax(1), second, atol=1e-6)
    # The softmax of what is returned is the mean itself.
    assert torch.allclose(predictions["mean"].softmax(1), (first + second) / 2, atol=1e-6)


def test_a_network_that_is_not_trained_has_no_say(different):
    target = fakes.batch().target
    different.trained[1] = False
    assert torch.allclose(different.predict(target).softmax(1), probabilities(different, target.image)[0], atol=1e-6)
    run(stage_of(different, "adapt-0-0.2"), fakes.batch(), 0)
    assert different.trained.tolist() == [True, True]


def test_probabilities_of_zero_stay_finite(different):
    with torch.no_grad():
        for network in different.networks:
            network.head.weight.mul_(1e4)
    assert different.predict(fakes.batch().target).isfinite().all()


def test_one_band_is_a_student():
    method = build(bands=(0.01,)).eval()
    assert list(method.predictors()) == ["student"]
    target = fakes.batch().target
    assert torch.equal(method.predict(target), method.networks[0](target.image).logits)


def test_without_the_average_each_labels_for_itself(different):
    method = build(average=False).eval()
    method.load_state_dict(different.state_dict())
    names = [stage.name for stage in method.stages()]
    assert names[2:] == ["labels-1-0.05", "labels-1-0.2", "adapt-1-0.05", "adapt-1-0.2"]
    artefacts = [stage_of(method, f"adapt-1-{band:g}").layers["pseudo_label"] for band in BANDS]
    assert artefacts == [("target", "pseudo_label-0.05"), ("target", "pseudo_label-0.2")]
    assert list(method.predictors()) == ["band-0.05", "band-0.2"]
    target = fakes.batch().target
    assert torch.equal(method.predict(target), method.networks[0](target.image).logits)
    labels = {}
    for band in BANDS:
        workspace = fakes.MemoryWorkspace(fakes.whole_images(2))
        with torch.no_grad():
            list(stage_of(method, f"labels-1-{band:g}").prepare(workspace))
        labels[band] = workspace.read(f"pseudo_label-{band:g}", "image 0")
    assert not torch.equal(*labels.values())


def test_pseudo_labels_are_the_top_third_of_the_mean(different):
    workspace = fakes.MemoryWorkspace(fakes.whole_images(3))
    stage = stage_of(different, "labels-1")
    with torch.no_grad():
        list(stage.prepare(workspace))
    mean = [torch.stack(probabilities(different, s.image)).mean(0) for s in workspace.samples]
    full = torch.cat([F.interpolate(m, (32, 48), mode="bilinear") for m in mean])
    label, confidence = full.argmax(1).numpy(), full.amax(1).numpy()
    for index in np.unique(label):
        values = np.sort(confidence[label == index])
        threshold = min(values[min(round(0.66 * len(values)), len(values) - 1)], np.float32(0.9))
        label[(label == index) & (confidence < threshold)] = 255
    written = np.stack([workspace.read("pseudo_label", s.names[0]).numpy() for s in workspace.samples])
    assert np.array_equal(written, label)


# What is configured


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"bands": ()}, "at least 1 item"),
        ({"bands": (0.01, 0.6)}, "0.6 is no share of the shorter side"),
        ({"bands": (0.01, 0.01)}, "0.01, 0.01 names one twice"),
        ({"rounds": -1}, "greater than or equal to 0"),
        ({"label_share": 1.1}, "less than or equal to 1"),
    ],
)
def test_configurations_that_cannot_be(values, said):
    with pytest.raises(ValidationError, match=said):
        FDA.Config(**values)


def test_presets():
    presets = presets_of(fake_registry().methods.describe("fda"))
    default = presets["default"]
    assert default.published == {
        "gta5-cityscapes": {"mIoU19": 50.45, "mIoU16": 54.23, "mIoU13*": 59.78},
        "synthia-cityscapes": {"mIoU13*": 52.5},
    }
    # Nine trainings, each as long as the code's.
    assert default.values["iterations"] == 3 * (1 + FDA.Config().rounds) * presets["band-0.01"].values["iterations"]
    assert presets["band-0.01"].published == {"gta5-cityscapes": {"mIoU19": 44.6}}
    unpublished = {name for name, preset in presets.items() if preset.reason}
    assert unpublished == {"band-0.05", "band-0.09", "bands"}


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, 2),
        ({"settings.bands": BANDS, "settings.rounds": 2, "settings.average": False}, 6),
        pytest.param({"settings.bands": list(BANDS)}, 4, marks=pytest.mark.slow),
    ],
)
def test_it_passes_the_kit(values, names, tmp_path, request):
    whole = request.node.get_closest_marker("slow") is not None
    results = check_method("fda", fake_registry(), tmp_path, values, whole_runs=whole)
    assert not [result for result in results if result.failed]
    (steps,) = [result.message for result in results if result.name == "steps"]
    assert steps.count("adapt-") == names
