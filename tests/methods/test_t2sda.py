"""T2S-DA as a method: every switch steps, trains what it should, and changes what it should."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pydantic import ValidationError
from udabench_t2sda.config import T2SDAConfig
from udabench_t2sda.contrast import Target, View, _negatives, pull, simple_weights, target_view, view
from udabench_t2sda.method import T2SDA

from udabench.config import ASSUMED, extra_of
from udabench.errors import UsageError
from udabench.labels import CITYSCAPES19, SYNTHIA16
from udabench.method import Panel, Probe, Scalar
from udabench.network import Output
from udabench.plugins import import_file
from udabench.size import Size

fakes = import_file(Path(__file__).with_name("fakes.py"))

SMALL = {
    "queries": 4, "negatives": 8, "projector_width": 6, "fda_beta": 0.1, "ignored_top": 0, "ignored_bottom": 0,
}  # fmt: skip
SPACES = pytest.mark.parametrize("space", [CITYSCAPES19, fakes.ELEVEN], ids=["19", "11"])


def _method(space=CITYSCAPES19, setup=None, **values) -> T2SDA:
    torch.manual_seed(7)
    return T2SDA(T2SDAConfig(**(SMALL | values)), setup or fakes.FakeSetup(space))


def _step(space=CITYSCAPES19, data=None, **values):
    method = _method(space, **values)
    losses, others, result = fakes.run_step(method, data or fakes.batch(len(space)))
    return method, losses, others, result


GENERAL = {"generalize": True, "negative_sampling": "source", "reweight": "none", "translator": "color_jitter"}
SWITCHES = [
    {},
    {"alignment": "mse"},
    {"alignment": "none"},
    {"query_sampling": "ceqs"},
    {"query_sampling": "uniform"},
    {"negative_sampling": "pooled"},
    {"negative_sampling": "source"},
    {"reweight": "none"},
    {"reweight_on": "ce"},
    {"absent_weight": "max"},
    {"ignored_negatives": True},
    {"pull_reduction": "literal"},
    {"query_from": "source"},
    {"query_from": "target"},
    {"positive_from": "pseudo_target"},
    {"positive_from": "target"},
    {"query_from": "source", "positive_from": "target"},
    {"ce_on": "pseudo_target"},
    {"student_batch": "mixed"},
    {"student_batch": "all"},
    {"translator": "identity"},
    {"translator": "color_jitter"},
    {"translator": "gaussian_blur"},
    {"feature_distance": 0.0},
    {"weight_scope": "batch"},
    {"mix_scope": "image"},
    {"teacher_norms": "batch"},
    {"copy_buffers": False},
    {"ce_avg": "valid"},
    {"projector_kernel": 3},
    {"pulled_map": 0},
    {"translated_norms": "apart"},
    GENERAL,
]


@SPACES
@pytest.mark.parametrize("values", SWITCHES, ids=lambda v: ",".join(f"{k}={w}" for k, w in v.items()) or "default")
def test_every_switch_steps_and_trains_only_what_is_named(space, values):
    method, losses, _, _ = _step(space, **values)
    assert all(loss.trains == "segmenter" and loss.value.isfinite() for loss in losses.values())
    grads = fakes.gradients(method)
    groups = method.stages()[0].optimizers["segmenter"].groups
    named = {id(p) for group in groups for p in group.parameters}
    owned = {name for name, p in method.named_parameters() if id(p) in named}
    assert set(grads) == owned
    assert all(name.startswith(("student.", "projector.")) for name in owned)
    assert all(gradient.isfinite().all() for gradient in grads.values())
    if method.config.pulls:
        assert sum(g.abs().sum() for name, g in grads.items() if name.startswith("projector.0")) > 0


@SPACES
def test_srw_needs_weights_by_name(space):
    for place in ("pull", "ce"):
        _step(space, reweight="srw", reweight_on=place)
    with pytest.raises(UsageError, match="no weight for tree"):
        simple_weights(type(space)("odd", ("tree",), ((0, 0, 0),)))


def test_simple_weights_go_by_name():
    weights = simple_weights(SYNTHIA16)
    assert weights[:2].tolist() == [0.8373, 0.918]
    assert weights[SYNTHIA16.names.index("bus")].item() == 1.0955
    assert simple_weights(CITYSCAPES19).tolist()[-1] == 1.0507


CHANGES_PULL = [
    {"alignment": "mse"},
    {"query_sampling": "ceqs"},
    {"query_sampling": "uniform"},
    {"negative_sampling": "pooled"},
    {"negative_sampling": "source"},
    {"reweight": "none"},
    {"reweight": "srw"},
    {"reweight_on": "ce"},
    {"absent_weight": "max"},
    {"ignored_negatives": True},
    {"drw_exponent": 2.0},
    {"pull_reduction": "literal"},
    {"query_from": "source"},
    {"query_from": "target"},
    {"positive_from": "target"},
    {"positive_from": "pseudo_target"},
    {"translator": "identity"},
    {"translator": "color_jitter", "translator_options": {"chance": 1.0}},
    {"fda_beta": 0.3},
    {"temperature": 0.5},
    {"unreliable": 0.9},
    {"queries": 8},
    {"negatives": 16},
]


@pytest.mark.parametrize("values", CHANGES_PULL, ids=lambda v: ",".join(f"{k}={w}" for k, w in v.items()))
def test_switches_of_the_pull_change_the_pull_and_nothing_else(values):
    base, other = _parts(), _parts(**values)
    assert other["pull"].item() != pytest.approx(base["pull"].item(), rel=1e-6)
    if values.get("reweight_on") != "ce":
        # The translation's draws come first, so mixed images differ where an engine draws.
        kept = ["source", "feature_distance"] + (["mixed"] if "color_jitter" not in values.values() else [])
        assert all(torch.equal(other[name], base[name]) for name in kept)


def _parts(**values):
    _, losses, _, _ = _step(**(_LOW | values))
    return {name: value for loss in losses.values() for name, value in loss.parts.items()}


_LOW = {"threshold": 0.16}
"""An untrained network is seldom sure; with 0.968 hardly any target pixel would weigh anything."""


@pytest.mark.parametrize(
    ("values", "changed"),
    [
        ({"ce_on": "pseudo_target"}, "source"),
        ({"ce_avg": "valid"}, "source"),
        ({"reweight_on": "ce"}, "mixed"),
        ({"reweight_on": "ce", "reweight": "srw"}, "mixed"),
        ({"reweight_on": "ce", "absent_weight": "max"}, "mixed"),
        ({"threshold": 0.2}, "mixed"),
        ({"ignored_top": 20}, "mixed"),
        ({"ignored_bottom": 3}, "mixed"),
        ({"jitter_strength": 0.5}, "mixed"),
        ({"jitter_chance": 0.0}, "mixed"),
        ({"blur_chance": 1.0}, "mixed"),
        ({"mix_scope": "image"}, "mixed"),
        ({"teacher_norms": "batch"}, "mixed"),
        ({"feature_majority": 1.0}, "feature_distance"),
        ({"student_batch": "mixed"}, "source"),
        ({"student_batch": "all"}, "mixed"),
    ],
    ids=lambda v: str(v),
)
def test_other_switches_change_their_part(values, changed):
    base, other = (
        _parts(jitter_chance=1.0, blur_chance=0.0),
        _parts(**({"jitter_chance": 1.0, "blur_chance": 0.0} | values)),
    )
    assert other[changed].item() != pytest.approx(base[changed].item(), rel=1e-6)


def test_weight_scope_divides_the_share():
    """Image 0 is black (one answer everywhere), image 1 noise: their shares differ, their mean is the batch's."""
    data = fakes.batch()
    data.target.image[0] = 0
    claims = {scope: _step(data=data, weight_scope=scope, threshold=0.16)[3] for scope in ("image", "batch")}
    image = claims["image"].weight[:, 0, 0]
    assert image[0] != image[1]
    assert claims["batch"].weight[:, 0, 0].tolist() == pytest.approx([image.mean().item()] * 2)


def test_margins_that_leave_nothing_are_refused():
    with pytest.raises(UsageError, match="ignored_top \\+ ignored_bottom = 135 leaves nothing of images of 32 rows"):
        _method(ignored_top=15, ignored_bottom=120)
    # A crop that is lower than the image keeps all its rows.
    _method(setup=fakes.FakeSetup(target_size=Size(64, 96)), ignored_top=15, ignored_bottom=120)


def test_pull_is_weighted_by_lambda():
    """The gradient of the projector comes from the pull alone, and is proportional to lambda."""
    one, ten = (fakes.gradients(_step(pull_weight=w)[0])["projector.0.weight"] for w in (0.1, 1.0))
    torch.testing.assert_close(10 * one, ten)


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, ["source", "pseudo_target", "mixed"]),
        ({"student_batch": "mixed"}, ["source+mixed", "pseudo_target"]),
        ({"student_batch": "all"}, ["source+mixed+pseudo_target"]),
        ({"student_batch": "all", "translated_norms": "apart"}, ["source+mixed", "pseudo_target"]),
        ({"query_from": "source"}, ["source", "mixed"]),
        ({"ce_on": "pseudo_target"}, ["pseudo_target", "mixed"]),
        ({"alignment": "none"}, ["source", "mixed"]),
        ({"pull_weight": 0}, ["source", "mixed"]),
        (GENERAL, ["source", "pseudo_target"]),
    ],
)
def test_passes_of_the_student(values, names):
    _, losses, _, _ = _step(**values)
    assert list(losses) == names


def test_translated_images_may_leave_no_trace_in_the_norms():
    def mean(**values):
        return _step(student_batch="all", **values)[0].student.encoder[1].running_mean

    torch.testing.assert_close(mean(translated_norms="apart"), mean(alignment="none"))
    assert not torch.allclose(mean(), mean(alignment="none"))


@pytest.mark.parametrize("index", [1, -2])
def test_a_map_that_the_pyramid_lacks_is_refused(index):
    with pytest.raises(UsageError, match=rf"pulled_map = {index}: the encoder's pyramid has 1 maps"):
        _method(pulled_map=index)


def test_domain_generalisation_never_sees_the_target():
    method = _method(**GENERAL)
    assert method.stages()[0].domains == ("source",)
    _, _, result = fakes.run_step(method, fakes.batch()._replace(target=None))
    assert result is None


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"generalize": True}, "negative_sampling=denps, reweight=drw"),
        (GENERAL | {"query_from": "target"}, "no target images"),
    ],
)
def test_generalisation_refuses_what_needs_the_target(values, error):
    with pytest.raises(ValidationError, match=error):
        T2SDAConfig(**values)


def test_weights_on_the_cross_entropy_must_be_there():
    with pytest.raises(ValidationError, match="reweight_on=ce has no weights"):
        T2SDAConfig(reweight="none", reweight_on="ce")


class Restless(fakes.FakeSetup):
    """Every network that it builds starts elsewhere, as without published weights."""

    def network(self, weights=None):
        return fakes.TinyNetwork(len(self.classes))


def test_the_distance_is_to_the_students_own_start():
    method = _method(setup=Restless())
    image = fakes.batch().source.image
    method.eval()
    assert torch.equal(method.imagenet(image, "encode")[-1], method.student.encode(image)[-1])
    assert not any(p.requires_grad for p in method.imagenet.module.parameters())
    with torch.no_grad():
        method.student.encoder[0].weight.zero_()
    assert method.imagenet.module.encoder[0].weight.abs().sum() > 0


def test_generalisation_refuses_a_paired_translator():
    with pytest.raises(UsageError, match="translator 'fda' needs"):
        _method(**(GENERAL | {"translator": "fda"}))


def test_context_is_asked_for_where_a_paired_engine_gains_by_it():
    large = fakes.FakeSetup(target_size=Size(64, 96))
    assert _method(setup=large).stages()[0].context == Size(64, 96)
    assert _method().stages()[0].context is None
    for values in ({"translator": "color_jitter"}, {"translate_whole": False}, {"alignment": "none"}):
        assert _method(setup=large, **values).stages()[0].context is None
    _, losses, _, _ = _step(data=fakes.batch(context=16))
    assert losses["pseudo_target"].value.isfinite()


def test_the_teacher_follows_student_and_projector():
    method = _method(ema=0.9)
    with torch.no_grad():
        method.student.head.weight.add_(1.0)
        method.projector[0].weight.add_(1.0)
    before = method.teacher.module.head.weight.clone(), method.teacher_projector.module[0].weight.clone()
    fakes.run_step(method, fakes.batch(), iteration=100)
    torch.testing.assert_close(method.teacher.module.head.weight, before[0] + 0.1)
    torch.testing.assert_close(method.teacher_projector.module[0].weight, before[1] + 0.1)


def test_the_first_step_copies_the_student():
    method = _method()
    with torch.no_grad():
        method.student.head.weight.mul_(3)
    fakes.run_step(method, fakes.batch(), iteration=0)
    assert torch.equal(method.teacher.module.head.weight, method.student.head.weight)


def test_a_step_repeats_and_follows_its_generator():
    (_, once, _, _), (_, again, _, _) = _step(), _step()
    assert all(torch.equal(once[name].value, again[name].value) for name in once)
    other, _, _ = fakes.run_step(_method(), fakes.batch(), seed=1)
    assert not torch.equal(once["pseudo_target"].value, other["pseudo_target"].value)


def test_state_holds_both_networks_and_projectors_but_not_the_imagenet_encoder():
    method = _method()
    state = method.state_dict()
    assert {name.split(".")[0] for name in state} == {"student", "teacher", "projector", "teacher_projector"}
    assert method.imagenet is not None


def test_events():
    _, losses, others, pseudo = _step()
    panels = {event.name: event.picture() for event in others if isinstance(event, Panel)}
    assert list(panels) == [
        "source", "translated", "target", "pseudo_label", "confidence", "mixed", "mixed_label", "prediction",
    ]  # fmt: skip
    for name, picture in panels.items():
        assert picture.shape == ((2, 3, 32, 48) if picture.ndim == 4 else (2, 32, 48)), name
        assert not picture.requires_grad
    probes = {event.name: event for event in others if isinstance(event, Probe)}
    assert torch.equal(probes["pseudo_label"].labels, pseudo.label)
    assert set(probes["sure_pseudo_label"].labels.unique().tolist()) == {255}
    assert [event.name for event in others if isinstance(event, Scalar)] == ["sure_share"]
    assert set(losses["source"].parts) == {"source", "feature_distance"}


def test_student_and_teacher_can_be_evaluated():
    method = _method().eval()
    target = fakes.batch().target
    assert list(method.predictors()) == ["student", "teacher"]
    assert method.predict(target).shape == (2, 19, 8, 12)
    with torch.no_grad():
        method.student.head.weight.mul_(2)
    assert not torch.equal(method.predictors()["teacher"](target), method.predict(target))


def test_views_flatten_features_and_labels_alike():
    features = torch.arange(2 * 3 * 2 * 2.0).view(2, 3, 2, 2)
    label = torch.arange(2 * 4 * 4).view(2, 4, 4)
    flat = view(features, label)
    assert flat.label.tolist() == [0, 2, 8, 10, 16, 18, 24, 26]
    assert flat.features[5].tolist() == features[1, :, 0, 1].tolist()
    looked = target_view(features, torch.tensor([[[[9.0]], [[0.0]]], [[[0.0]], [[9.0]]]]))
    assert looked.view.label.tolist() == [0] * 4 + [1] * 4
    assert looked.confidence.shape == (8,)


def test_every_value_states_its_origin_and_the_assumed_ones_say_so():
    fields = T2SDAConfig.model_fields
    assert all(
        extra_of(field, "origin") not in ("", "udabench")
        for name, field in fields.items()
        if name != "translator_options"
    )
    assumed = {name for name, field in fields.items() if extra_of(field, "origin").startswith(ASSUMED)}
    assert assumed == {
        "absent_weight", "copy_buffers", "fda_beta", "feature_distance", "ignored_negatives", "projector_kernel",
        "pull_reduction", "translated_norms",
    }  # fmt: skip


def test_paper_values():
    config = T2SDAConfig()
    values = (config.temperature, config.unreliable, config.drw_exponent, config.queries, config.negatives)
    assert values == (0.2, 0.5, 0.5, 128, 1024)
    assert (config.pull_weight, config.ema, config.threshold) == (0.1, 0.999, 0.968)


@pytest.mark.parametrize("bad", [{"temperature": 0}, {"unreliable": 1.5}, {"negatives": 1}, {"alignment": "cosine"}])
def test_bounds(bad):
    with pytest.raises(ValidationError):
        T2SDAConfig(**bad)


class _Joint(fakes.TinyNetwork):
    """One pass of the encoder over both, as networks with a head of their own do it."""

    seen = 0

    def segment_and_encode(self, image, other):
        type(self).seen += 1
        (features,) = self.encode(torch.cat([image, other]))
        mine, others = features[: len(image)], features[len(image) :]
        return Output(self.head(mine), (mine,)), (others,)


@pytest.mark.parametrize(("norms", "passes"), [("running", 1), ("batch", 0)])
def test_the_teacher_sees_source_and_target_together_where_norms_cannot_mix_them(norms, passes, monkeypatch):
    def pulled():
        _, losses, _, _ = _step(teacher_norms=norms, pulled_map=-1)
        return losses["pseudo_target"].value

    apart = pulled()
    _Joint.seen = 0
    monkeypatch.setattr(fakes, "TinyNetwork", _Joint)
    torch.testing.assert_close(pulled(), apart)
    assert _Joint.seen == passes


def test_a_pass_of_their_own_needs_further_images():
    _, losses, _, _ = _step(alignment="none", translated_norms="apart", student_batch="all")
    assert list(losses) == ["source+mixed"]


def test_weights_on_the_cross_entropy_have_mean_one_over_the_shown_classes():
    confidence, present = torch.zeros(19, dtype=torch.float64), torch.zeros(19, dtype=torch.bool)
    confidence[:4], present[:4] = torch.tensor([0.95, 0.9, 0.8, 0.5], dtype=torch.float64), True
    weights = _method(reweight_on="ce")._ce_weights(SimpleNamespace(confidence=(confidence, present)))
    roots = [0.05**0.5, 0.1**0.5, 0.2**0.5, 0.5**0.5]
    assert weights[:4].tolist() == pytest.approx([4 * root / sum(roots) for root in roots])
    assert weights[4:].tolist() == [1.0] * 15


def test_negatives_of_the_target_are_its_unsure_positions():
    eye = torch.eye(5)
    source = View(eye[:1], torch.tensor([0]))
    target = Target(View(eye[1:], torch.ones(4, dtype=torch.int64)), torch.tensor([0.9, 0.2, 0.3, 0.8]))
    keys, has = _negatives(T2SDAConfig(negatives=64), 2, source, target, torch.Generator().manual_seed(0))
    # Of class 0 all, since the source has none; of class 1 the source's, since the target shows nothing else.
    assert has.tolist() == [True, True]
    assert keys[0].sum(0).bool().tolist() == [False, False, True, True, False]
    assert keys[1].sum(0).bool().tolist() == [True, False, False, False, False]


def test_padding_of_the_target_gives_no_negative_and_no_threshold():
    """Without it the median of the three that are left is 0.3, so that one of them is unsure."""
    eye = torch.eye(5)
    source = View(eye[:1], torch.tensor([0]))
    features = eye[1:].T.reshape(1, 5, 1, 4)
    sure = torch.tensor([0.9, 0.2, 0.3, 0.1])
    logits = torch.stack([torch.zeros(4), torch.logit(sure * 0.4 + 0.55)]).view(1, 2, 1, 4)
    valid = torch.tensor([[[True, True, True, False]]])
    target = target_view(features, logits, valid)
    assert target.view.label.tolist() == [1, 1, 1, 255]
    keys, _ = _negatives(T2SDAConfig(negatives=64), 2, source, target, torch.Generator().manual_seed(0))
    assert keys[0].sum(0).bool().tolist() == [False, False, True, False, False]


def test_a_class_without_a_prototype_is_not_used():
    used = []

    def weigh(classes):
        used.append(classes)
        return classes.double()

    query, positive = View(torch.rand(4, 3), torch.tensor([0, 0, 1, 255])), View(torch.rand(2, 3), torch.tensor([0, 2]))
    pull(T2SDAConfig(queries=2, negatives=4), 3, query, positive, positive, None, weigh, torch.Generator())
    assert used[0].tolist() == [True, False, False]
