"""SAM: the module's training, the self-attention loss of a step, generations, the guard."""

import copy
from functools import partial
from math import exp, log
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import nn
from torch.nn import functional as F
from udabench_sam.config import AttentionConfig
from udabench_sam.guard import Diverged
from udabench_sam.method import SAM

from udabench.config import extra_of
from udabench.errors import UsageError
from udabench.method import Loss, Panel, Scalar
from udabench.network import Network, Output
from udabench.networks.fcn8s import FCN8s
from udabench.plugins import import_file
from udabench.presets import presets_of
from udabench.size import Size
from udabench.testing import check_method, fake_registry
from udabench.translate.fda import fda

fakes = import_file(Path(__file__).with_name("fakes.py"))
stage_of = fakes.stage_of
PLAIN = {"translator": "identity"}


def build(iterations=12, setup=None, **values):
    return SAM(SAM.Config(**(PLAIN | values)), setup or fakes.FakeSetup(iterations=iterations))


def begun(method, name):
    """The stage after its start, as the engine reads it."""
    stage_of(method, name).start()
    return stage_of(method, name)


def events_of(stage, batch, iteration=0):
    return list(stage.step(batch, iteration, torch.Generator().manual_seed(0)))


def losses_of(stage, batch, iteration=0):
    return {event.name: event for event in events_of(stage, batch, iteration) if isinstance(event, Loss)}


def labelled(batch, seed=0):
    """The batch with pseudo-labels: a third of the pixels unknown."""
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(19, tuple(batch.target.image.shape[::2])[:1] + batch.target.image.shape[-2:], generator=rng)
    label[torch.rand(label.shape, generator=rng) < 0.3] = 255
    return batch._replace(target=batch.target._replace(layers={"pseudo_label": label}))


def cross_entropy(logits, label):
    return F.cross_entropy(
        F.interpolate(logits.double(), label.shape[-2:], mode="bilinear"), label, ignore_index=255
    ).item()


def dense(module, value):
    """Equations 4 to 7 as they are written, in float64."""
    rows = copy.deepcopy(module).double().query(value.double()).flatten(2).mT
    unit = rows / rows.norm(dim=2, keepdim=True)
    positive = (unit @ unit.mT).relu()
    weights = positive / positive.sum(2, keepdim=True)
    return (weights @ value.double().flatten(2).mT).mT.reshape(value.shape)


# Stages


def lengths(method):
    return {stage.name: stage.iterations for stage in method.stages()}


def test_stages_share_the_steps_out():
    expected = {"attention": 4, "baseline": 4, "labels-1": 0, "adapt-1": 4}
    assert lengths(build()) == expected
    assert lengths(build(iterations=11, generations=2)) == {
        "attention": 3, "baseline": 3, "labels-1": 0, "adapt-1": 2, "labels-2": 0, "adapt-2": 3,
    }  # fmt: skip
    assert lengths(build(attention_share=0.5, baseline_share=1.5)) == expected | {"attention": 2, "baseline": 6}
    assert lengths(build(iterations=1)) == {"attention": 1, "baseline": 1, "labels-1": 0, "adapt-1": 1}


def test_what_needs_no_module_trains_none():
    for values in ({"sa_weight": 0}, {"module": "none"}):
        assert lengths(build(**values)) == {"baseline": 6, "labels-1": 0, "adapt-1": 6}
    assert lengths(build(generations=0)) == {"baseline": 12}
    assert build(sa_weight=0).attentions is build(generations=0).attentions is None
    assert not list(build(module="none").attentions.parameters())


def test_the_target_is_opened_where_it_is_needed():
    domains = {stage.name: stage.domains for stage in build().stages()}
    assert domains == {
        "attention": ("source",), "baseline": ("source",), "labels-1": ("target",), "adapt-1": ("source", "target"),
    }  # fmt: skip
    paired = [stage for stage in build(translator="fda").stages() if stage.iterations]
    assert {stage.domains for stage in paired} == {("source", "target")}
    setup = fakes.FakeSetup(target_size=Size(64, 96))
    wide = [stage.context for stage in build(setup=setup, translator="fda").stages() if stage.iterations]
    assert wide == 3 * [Size(64, 96)]


def test_every_training_has_a_new_network_and_the_module_stays():
    method = build(generations=2)
    initial = fakes.FakeSetup().network().state_dict()
    module = {name: value.clone() for name, value in method.attentions.state_dict().items()}
    names = ["attention", "baseline", "adapt-1", "adapt-2"]
    assert [stage.name for stage in method.stages() if stage.start is not None] == names
    for name in names:
        with torch.no_grad():
            for parameter in method.student.parameters():
                parameter.add_(1)
        before = method.student
        stage = begun(method, name)
        assert method.student is not before
        assert all(torch.equal(value, initial[key]) for key, value in method.student.state_dict().items())
        trained = {id(p) for group in stage.optimizers["segmenter"].groups for p in group.parameters}
        own = {id(p) for p in method.student.parameters()}
        assert trained == (own | {id(p) for p in method.attentions.parameters()} if name == "attention" else own)
    assert all(torch.equal(value, module[key]) for key, value in method.attentions.state_dict().items())
    # One network at a time: those that were discarded are in no checkpoint.
    assert {key.split(".")[0] for key in method.state_dict()} == {"student", "attentions"}


def test_pseudo_labels_are_the_upper_half_of_each_class():
    method = build().eval()
    workspace = fakes.MemoryWorkspace(fakes.whole_images(3))
    with torch.no_grad():
        method.student.head.weight.mul_(6)
        list(stage_of(method, "labels-1").prepare(workspace))
        p = torch.cat([method.student(s.image).logits.softmax(1) for s in workspace.samples])
    confidence, label = F.interpolate(p, (32, 48), mode="bilinear").max(1)
    medians = {}
    for index in label.unique().tolist():
        values = confidence[label == index].sort().values
        medians[index] = values[round(len(values) * 0.5)].item()
        label[(label == index) & (confidence < min(medians[index], 0.9))] = 255
    # The cap is at work, and not on all classes.
    assert min(medians.values()) < 0.89
    assert max(medians.values()) > 0.91
    written = torch.stack([workspace.read("pseudo_label", s.names[0]) for s in workspace.samples])
    assert torch.equal(written, label)


# The module's training


@pytest.mark.parametrize("skip", [True, False])
def test_the_module_is_trained_by_the_attended_logits(skip):
    method, batch = build(skip=skip), fakes.batch()
    logits = copy.deepcopy(method.student).train()(batch.source.image).logits
    attended = dense(method.attentions.layers["prediction"], logits) + (logits if skip else 0)
    method.train()
    (loss,) = losses_of(stage_of(method, "attention"), batch).values()
    assert loss.value.item() == pytest.approx(cross_entropy(attended, batch.source.label), rel=1e-5)
    loss.value.backward()
    for module in (method.student, method.attentions):
        assert set(fakes.gradients(module)) == {name for name, _ in module.named_parameters()}


def test_features_are_attended_before_the_head():
    method, batch = build(sa_on="both"), fakes.batch()
    twin = copy.deepcopy(method.student).train()
    output, layers = twin(batch.source.image), method.attentions.layers
    attended = dense(layers["features"], output.features[-1]) + output.features[-1]
    by_features = cross_entropy(twin.head(attended.float()), batch.source.label)
    by_logits = cross_entropy(dense(layers["prediction"], output.logits) + output.logits, batch.source.label)
    method.train()
    (loss,) = losses_of(stage_of(method, "attention"), batch).values()
    assert loss.value.item() == pytest.approx(by_features + by_logits, rel=1e-5)
    (alone,) = losses_of(stage_of(_like(method, sa_on="features"), "attention"), batch).values()
    assert alone.value.item() == pytest.approx(by_features, rel=1e-5)


def _like(method, **values):
    """Another configuration with the same values of what both have."""
    other = build(**values).train()
    other.load_state_dict(method.state_dict(), strict=False)
    return other


def test_its_own_upsampling_takes_the_attended_map():
    """As FCN-8s has it: Z is the map before the network's upsampling."""
    setup = fakes.FakeSetup()
    setup.network = Upscoring
    method, batch = build(setup=setup), fakes.batch()
    coarse = method.student(batch.source.image).score_map
    assert coarse.shape[-2:] == (4, 6)
    attended = 3 * F.interpolate((dense(method.attentions.layers["prediction"], coarse) + coarse), scale_factor=8)
    (loss,) = losses_of(stage_of(method, "attention"), batch).values()
    assert loss.value.item() == pytest.approx(cross_entropy(attended, batch.source.label), rel=1e-5)


class Upscoring(Network):
    """Logits at 1/8, repeated and thrice as large."""

    def __init__(self):
        super().__init__()
        self.classes, self.output_stride, self.feature_channels = 19, 1, (3,)
        torch.manual_seed(0)
        self.score = nn.Conv2d(3, 19, 1)

    def encode(self, image, domain=None):
        return (F.avg_pool2d(image, 8),)

    def forward(self, image, domain=None):
        features = self.encode(image)
        coarse = self.score(features[0])
        return Output(self.upscore(coarse, image.shape[-2:]), features, coarse=coarse)

    def upscore(self, coarse, size):
        return 3 * F.interpolate(coarse, tuple(size))

    def parameter_groups(self):
        return {"head": list(self.score.parameters())}


def test_features_need_a_head_of_their_own():
    setup = fakes.FakeSetup()
    setup.network = Upscoring
    with pytest.raises(UsageError, match=r"sa_on=features .* Upscoring has none that takes features"):
        build(setup=setup, sa_on="features")


# A step of a generation


class Table(Network):
    """Its logits are its parameters, one for each pixel, whatever the image."""

    def __init__(self, values):
        super().__init__()
        self.classes, self.output_stride, self.feature_channels = len(values[0]), 1, (3,)
        self.z = nn.Parameter(torch.tensor(values, dtype=torch.float64).T.reshape(1, -1, 1, len(values)))

    def encode(self, image, domain=None):
        return (image,)

    def forward(self, image, domain=None):
        return Output(self.z, (image,))

    def parameter_groups(self):
        return {"head": [self.z]}


def two_pixels(**values):
    """Z = (2, 1) and (1, 2), whose cosine is 0.8; attended by themselves, without a convolution. Both are 'class 0'."""
    setup = fakes.FakeSetup(crop=Size(1, 2), target_size=Size(1, 2))
    setup.network = partial(Table, [[2.0, 1.0], [1.0, 2.0]])
    batch = fakes.batch(size=(8, 8))
    image, label = batch.source.image[:1, :, :1, :2], torch.zeros(1, 1, 2, dtype=torch.int64)
    source = batch.source._replace(image=image, label=label)
    batch = batch._replace(source=source, target=source._replace(label=None, layers={"pseudo_label": label}))
    method = build(setup=setup, module="none", **values)
    return method, losses_of(stage_of(method, "adapt-1"), batch)


CE = (log(1 + exp(-1)) + log(1 + exp(1))) / 2
"""Of both pixels."""
CE_GRADIENT = [-1 / (1 + exp(1)), 1 / (1 + exp(1)), -1 / (1 + exp(-1)), 1 / (1 + exp(-1))]
"""p - y of the first pixel's logits, and of the second's; to be halved."""


def test_a_step_by_hand_with_eq_8():
    """Z' = (2.8, 2.6) / 1.8 and (2.6, 2.8) / 1.8: their mean is 1.5, and all are positive."""
    method, losses = two_pixels(sa_weight=0.4)
    assert set(losses) == {"source", "target"}
    for name, loss in losses.items():
        assert loss.parts[name].item() == pytest.approx(CE, rel=1e-6)
        assert loss.parts[f"{name}_attention"].item() == pytest.approx(1.5, rel=1e-12)
        assert loss.value.item() == pytest.approx(CE + 0.6, rel=1e-6)
        method.zero_grad()
        loss.value.backward()
        gradient = method.student.z.grad[0, :, 0].T.flatten().tolist()
        assert gradient == pytest.approx([own / 2 - 0.1 for own in CE_GRADIENT], rel=1e-5)


def test_a_step_by_hand_with_eq_9_and_eq_11():
    """Z - Z' = (0.8, -0.8) / 1.8 and (-0.8, 0.8) / 1.8."""
    method, losses = two_pixels(sa_weight=0.4, sa_target="attended", sa_domains="target")
    assert losses["source"].value.item() == pytest.approx(CE, rel=1e-6)
    assert set(losses["source"].parts) == {"source"}
    loss = losses["target"]
    assert loss.value.item() == pytest.approx(CE + 0.4 * 0.8 / 1.8, rel=1e-6)
    loss.value.backward()
    gradient = method.student.z.grad[0, :, 0].T.flatten().tolist()
    expected = [own / 2 + 0.1 * sign for own, sign in zip(CE_GRADIENT, (1, -1, -1, 1), strict=True)]
    assert gradient == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"sa_loss": "l2"}, (2.8**2 + 2.6**2) / 2 / 1.8**2),
        ({"sa_reduction": "pixel"}, 3.0),
        ({"sa_loss": "cos", "sa_target": "attended"}, 1 - (2 * 2.8 + 2.6) / (5**0.5 * (2.8**2 + 2.6**2) ** 0.5)),
        # softmax of (2, 1) is 1 / (1 + e^-1); of (2.8, 2.6) / 1.8 with the difference 1 / 9.
        (
            {"sa_space": "probabilities", "sa_target": "attended"},
            1 / (1 + exp(-1)) - 1 / (1 + exp(-1 / 9)),
        ),
    ],
)
def test_other_readings_by_hand(values, expected):
    _, losses = two_pixels(**values)
    assert losses["target"].parts["target_attention"].item() == pytest.approx(expected, rel=1e-6)


def test_eq_8_pushes_each_logit_along_its_attended_value():
    method, batch = build(sa_weight=0.3), labelled(fakes.batch())
    plain = _like(method, sa_weight=0)
    method.train()
    losses, without = (losses_of(stage_of(each, "adapt-1"), batch) for each in (method, plain))
    for name, loss in losses.items():
        logits = loss.outputs[name].logits
        of_all, of_labels = (
            torch.autograd.grad(each[name].value, each[name].outputs[name].logits)[0] for each in (losses, without)
        )
        attended = dense(method.attentions.layers["prediction"], logits.detach())
        expected = -0.3 * attended.sign().float() / logits.numel()
        torch.testing.assert_close(of_all - of_labels, expected, rtol=1e-3, atol=1e-7)


def test_the_module_is_frozen_in_a_generation():
    method, batch = build(sa_on="both").train(), labelled(fakes.batch())
    for loss in losses_of(stage_of(method, "adapt-1"), batch).values():
        loss.value.backward()
    assert not fakes.gradients(method.attentions)
    assert len(fakes.gradients(method.student)) == len(list(method.student.parameters()))


def test_both_layers_add_up():
    batch = labelled(fakes.batch())
    method = build(sa_on="both").train()
    parts = [
        losses_of(stage_of(each, "adapt-1"), batch)["target"].parts["target_attention"].item()
        for each in (method, _like(method), _like(method, sa_on="features"))
    ]
    assert parts[0] == pytest.approx(parts[1] + parts[2], rel=1e-6)
    features = copy.deepcopy(method.student)(batch.target.image).features[-1]
    expected = dense(method.attentions.layers["features"], features).abs().mean().item()
    assert parts[2] == pytest.approx(expected, rel=1e-5)


def test_fcn8s_attends_before_its_own_upsampling():
    setup, batch = fakes.FakeSetup(), labelled(fakes.batch())
    setup.network = lambda: FCN8s(19, "none", width=2)
    method = build(setup=setup).eval()
    coarse = method.student(batch.target.image).coarse
    loss = losses_of(stage_of(method, "adapt-1"), batch)["target"]
    expected = dense(method.attentions.layers["prediction"], coarse).abs().mean().item()
    assert loss.parts["target_attention"].item() == pytest.approx(expected, rel=1e-5)
    loss.value.backward()
    assert len(fakes.gradients(method.student)) == len(list(method.student.parameters()))


def test_without_the_loss_a_generation_is_plain_self_training():
    method, batch = build(sa_weight=0).train(), labelled(fakes.batch())
    twin = copy.deepcopy(method.student)
    losses = losses_of(stage_of(method, "adapt-1"), batch)
    expected = {
        "source": cross_entropy(twin(batch.source.image).logits, batch.source.label),
        "target": cross_entropy(twin(batch.target.image).logits, batch.target.layers["pseudo_label"]),
    }
    assert {name: loss.value.item() for name, loss in losses.items()} == pytest.approx(expected, rel=1e-5)
    (baseline,) = losses_of(stage_of(method, "baseline"), fakes.batch()).values()
    assert baseline.name == "source"
    assert set(baseline.parts) == {"source"}


def test_source_images_are_translated_in_every_training():
    method, batch = build(translator="fda", translator_options={"beta": 0.2}).train(), labelled(fakes.batch())
    image = fda(batch.source.image, batch.target.image, 0.2).clamp(0, 1)
    expected = cross_entropy(copy.deepcopy(method.student)(image).logits, batch.source.label)
    for name in ("baseline", "adapt-1"):
        found = losses_of(stage_of(method, name), batch)["source"].parts["source"]
        assert found.item() == pytest.approx(expected, rel=1e-5)
    pictures = [e.picture() for e in events_of(stage_of(method, "attention"), batch) if isinstance(e, Panel)]
    torch.testing.assert_close(pictures[0], image)


def test_one_pass_for_both_domains():
    (loss,) = losses_of(stage_of(build(student_batch="all").train(), "adapt-1"), labelled(fakes.batch())).values()
    parts = {name: value.item() for name, value in loss.parts.items()}
    attention = parts["source_attention"] + parts["target_attention"]
    assert loss.value.item() == pytest.approx(parts["source"] + parts["target"] + 0.1 * attention, rel=1e-6)


def test_the_size_of_the_logits_is_logged():
    batch = labelled(fakes.batch())
    for name, domains in (("attention", {"source"}), ("baseline", {"source"}), ("adapt-1", {"source", "target"})):
        method = build().train()
        events = events_of(begun(method, name), batch)
        sizes = {event.name: event.value.item() for event in events if isinstance(event, Scalar)}
        assert set(sizes) == {f"logits/{domain}" for domain in domains}
    expected = copy.deepcopy(method.student)(batch.target.image).logits.abs().mean().item()
    assert sizes["logits/target"] == pytest.approx(expected, rel=1e-5)


def test_the_prediction_is_that_of_z_alone():
    method, target = build().eval(), fakes.batch().target
    assert torch.equal(method.predict(target), method.student(target.image).logits)


# The guard


def test_growing_logits_stop_the_run_before_its_gradient():
    with pytest.raises(Diverged) as stopped:
        two_pixels(sa_limit=1.4)
    said = str(stopped.value)
    assert "the mean of |Z| of source images is 1.5 at iteration 0 of this stage, above sa_limit = 1.4" in said
    for other in ("sa_space=probabilities", "sa_target=attended (Eq 9)", "sa_domains=target", "sa_weight than 0.1"):
        assert other in said
    assert "sa_reduction" not in said
    two_pixels(sa_limit=1.6)


def test_what_is_set_already_is_not_advised():
    with pytest.raises(Diverged) as stopped:
        two_pixels(sa_limit=1.4, sa_space="probabilities", sa_domains="target")
    assert "of target images" in str(stopped.value)
    assert "sa_space" not in str(stopped.value)
    assert "sa_domains" not in str(stopped.value)


def test_no_number_is_above_every_limit():
    method = build(sa_limit=1e30).train()
    with torch.no_grad():
        method.student.head.bias[0] = torch.nan
    with pytest.raises(Diverged, match="is nan"):
        losses_of(stage_of(method, "adapt-1"), labelled(fakes.batch()))


def test_only_the_loss_is_guarded():
    for values, name in (({"sa_weight": 0}, "adapt-1"), ({}, "baseline"), ({}, "attention")):
        assert losses_of(stage_of(build(sa_limit=1e-6, **values).train(), name), labelled(fakes.batch()))
    assert build(sa_weight=0).advice == ""
    assert "sa_space=probabilities" in build().advice


# What is configured


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"kernel": 2}, "2 has no middle; use an odd number, such as 3"),
        ({"sa_on": "features", "sa_space": "probabilities"}, "features have no probabilities"),
        ({"sa_on": "both", "sa_loss": "kl"}, "features have no probabilities"),
        ({"attention_share": 0}, "greater than 0"),
        ({"sa_limit": 0}, "greater than 0"),
        ({"generations": -1}, "greater than or equal to 0"),
    ],
)
def test_configurations_that_cannot_be(values, said):
    with pytest.raises(ValidationError, match=said):
        SAM.Config(**values)


def test_the_values_of_the_loss_act_in_generations_alone():
    """Of a run with other ones the module, the source-only network and the labels may be taken over."""
    said = {key: extra_of(field, "stages", None) for key, field in SAM.Config.model_fields.items()}
    loss = {"sa_weight", "sa_target", "sa_domains", "sa_loss", "sa_space", "sa_reduction", "sa_limit"}
    assert {key for key, stages in said.items() if stages == "adapt-*"} == loss
    assert {key for key, stages in said.items() if stages == "labels-*"} == {"label_share", "label_cap"}
    # Around another method the stages have its names.
    assert not any(extra_of(field, "stages", None) for field in AttentionConfig.model_fields.values())


def test_rows_of_the_paper():
    presets = presets_of(fake_registry().methods.describe("sam"))
    figures = {name: preset.published for name, preset in presets.items() if preset.published}
    gta5 = {name: of["gta5-cityscapes"]["mIoU19"] for name, of in figures.items() if "gta5-cityscapes" in of}
    synthia = {name: of["synthia-cityscapes"]["mIoU16"] for name, of in figures.items() if "synthia-cityscapes" in of}
    ours = [gta5[name] for name in ("default", "gen2", "gen3", "gen4", "gen5")]
    assert ours == [50.7, 51.2, 51.4, 51.7, 52.2]
    assert [synthia[name] for name in ("synthia", "synthia-gen2", "synthia-gen5")] == [45.1, 47.9, 48.5]
    assert (gta5["no-conv"], synthia["synthia-no-skip"], gta5["cosine"]) == (42.7, 44.4, 48.5)
    assert (gta5["fcn8s-gen6"], synthia["fcn8s-pseudo-only-gen6"]) == (45.7, 42.3)
    lost = {name for name, preset in presets.items() if preset.reason}
    assert lost == {"l2"} | {f"fcn8s-{row}" for row in ("no-pseudo", "eq9", "target-only", "no-conv", "no-skip")}


def test_rows_have_trainings_of_120_000_steps():
    for name, preset in presets_of(fake_registry().methods.describe("sam")).items():
        if name.startswith("quick"):
            continue
        settings = {key.removeprefix("settings."): v for key, v in preset.values.items() if key.startswith("settings.")}
        method = build(iterations=preset.values["iterations"], **(settings | PLAIN))
        trained = {iterations for iterations in lengths(method).values() if iterations}
        assert trained == {120_000}, name


@pytest.mark.parametrize(
    "values",
    [
        {"settings.generations": 2, "settings.sa_on": "both", "settings.sa_space": "logits"},
        pytest.param({}, marks=pytest.mark.slow),
    ],
)
def test_it_passes_the_kit(values, tmp_path, request):
    whole = request.node.get_closest_marker("slow") is not None
    results = check_method("sam", fake_registry(), tmp_path, values, whole_runs=whole)
    assert not [result for result in results if result.failed]
