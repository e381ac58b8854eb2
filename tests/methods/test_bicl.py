"""BiCL as a method: its stages, the order of a step, what is learnt from which labels, the table at its end."""

import copy
import json
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from udabench_bicl.method import BiCL
from udabench_bicl.names import KINDS, STATIC
from udabench_bicl.report import print_table, score, split_periods

from udabench.config import OptimConfig
from udabench.engine.checkpoint import load_model, open_checkpoint, write_checkpoint
from udabench.errors import CheckpointError, UsageError
from udabench.method import Loss, Probe
from udabench.networks.build import build_network
from udabench.parts.label_rules import PortionRule, TopRule
from udabench.parts.prototypes import cell_counts, class_means
from udabench.plugins import import_file, load_registry
from udabench.presets import presets_of
from udabench.testing import check_method, fake_registry

fakes = import_file(Path(__file__).with_name("fakes.py"))
stage_of = fakes.stage_of
rows = import_file(Path(__file__).with_name("rows.py"))


def build(setup=None, **values):
    values = {"warmup_share": 0.25, "refresh_every": 2, "threshold": 0.5} | values
    return BiCL(BiCL.Config(**values), setup or fakes.FakeSetup(iterations=12)).train()


def labelled(seed=0):
    """A batch whose target has static labels on a third of its pixels."""
    data = fakes.batch()
    rng = torch.Generator().manual_seed(seed)
    static = fakes.samples(19, True, 7).label
    static[torch.rand(static.shape, generator=rng) < 0.66] = 255
    return data._replace(target=data.target._replace(layers={STATIC: static}))


def run(method, name="adapt", batch=None, iteration=1):
    """One step, each loss back-propagated as it comes: the loss, and the events."""
    rng = torch.Generator().manual_seed(0)
    events = []
    for event in stage_of(method, name).step(batch or labelled(), iteration, rng):
        if isinstance(event, Loss):
            event.value.backward()
        events.append(event)
    (loss,) = [event for event in events if isinstance(event, Loss)]
    return loss, events


def probes(events):
    return {event.name: event.labels for event in events if isinstance(event, Probe)}


# Stages


def test_stages_share_the_steps_out():
    stages = build(distil_share=0.5).stages()
    assert [(stage.name, stage.iterations) for stage in stages] == [("warmup", 3), ("adapt", 3), ("distil", 6)]
    warmup, adapt, _ = stages
    assert warmup.domains == ("source",)
    assert adapt.layers == {STATIC: ("target", STATIC)}
    assert adapt.prepare_every == 2


def test_an_adaptation_may_begin_at_once():
    assert [(stage.name, stage.iterations) for stage in build(warmup_share=0.0).stages()] == [("adapt", 12)]


@pytest.mark.parametrize(
    ("values", "rule"),
    [
        ({"static_rule": "cbst", "static_portion": 0.3}, PortionRule(0.3)),
        ({"static_rule": "dass", "static_portion": 0.1}, TopRule(0.1, 0.1)),
    ],
)
def test_static_labels_follow_the_rule(values, rule):
    assert stage_of(build(**values), "adapt").prepare.rule == rule


def test_the_rate_may_begin_again_with_every_round():
    optim = OptimConfig(kind="sgd", warmup=0, power=0.9, horizon=12)
    setup = fakes.FakeSetup(iterations=100, optim=optim)
    plain = stage_of(build(setup, refresh_every=10), "adapt").optimizers["segmenter"].schedule
    rounds = stage_of(build(setup, refresh_every=10, round_decay=0.5), "adapt").optimizers["segmenter"].schedule
    assert rounds.factor(20, 75) == 0.25
    assert rounds.factor(13, 75) == 0.5 * plain.factor(3, 10)


# A step


def test_the_loss_is_equation_12():
    """Against the equations as they are written, on features at the label's size, in the order of the README."""
    weights = {
        "source_weight": 1.0, "target_weight": 0.3, "source_entropy_weight": 0.4, "target_entropy_weight": 0.12,
        "fc_weight": 0.2, "bc_weight": 0.7,
    }  # fmt: skip
    method, batch = build(**weights, segment_labels="hybrid"), labelled()
    twin = copy.deepcopy(method.student)
    loss, events = run(method, batch=batch)
    source, target = twin(batch.source.image), twin(batch.target.image)
    hybrid = probes(events)["hybrid"]
    expected = 0.0
    for name, output, label in (("source", source, batch.source.label), ("target", target, hybrid)):
        logits = F.interpolate(output.logits, label.shape[-2:], mode="bilinear")
        expected += weights[f"{name}_weight"] * F.cross_entropy(logits, label, ignore_index=255)
        entropy = torch.distributions.Categorical(logits=logits.permute(0, 2, 3, 1)).entropy().mean()
        expected += weights[f"{name}_entropy_weight"] * entropy
    forward = _one_way(target, hybrid, source, batch.source.label)
    backward = _one_way(source, batch.source.label, target, hybrid)
    expected = expected + 0.2 * forward + 0.7 * backward
    torch.testing.assert_close(loss.value, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.parts["forward"], forward.detach(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(loss.parts["backward"], backward.detach(), rtol=1e-5, atol=1e-5)
    # The gradient goes through the prototypes of both domains too.
    expected.backward()
    mine, theirs = fakes.gradients(method.student), fakes.gradients(twin)
    assert mine.keys() == theirs.keys()
    for name, gradient in theirs.items():
        torch.testing.assert_close(mine[name], gradient, rtol=1e-4, atol=1e-5)


def _one_way(output, label, other, other_label):
    """Eq 1 and 2 for each pair: pixels of ``output`` against prototypes of ``other``."""
    size, values = label.shape[1:], []
    large, other_large = (F.interpolate(each.features[-1], size, mode="nearest") for each in (output, other))
    for image in range(len(label)):
        present = [c for c in range(19) if (other_label[image] == c).any()]
        means = torch.stack([other_large[image][:, other_label[image] == c].mean(1) for c in present])
        index = torch.full((256,), 255)
        index[present] = torch.arange(len(present))
        cosine = F.cosine_similarity(large[image][None], means[:, :, None, None], dim=1)
        values.append(F.cross_entropy(cosine[None] / 0.1, index[label[image]][None], ignore_index=255))
    return torch.stack(values).mean()


def test_labels_come_from_the_running_prototypes_of_earlier_steps():
    method, batch = build(momentum=0.9), labelled()
    _, events = run(method, batch=batch)
    # Nothing is known of the domains' difference before the first step.
    assert torch.equal(probes(events)["dynamic"], probes(events)["calibrated"])
    features = method.student(batch.source.image).features[-1].detach()
    near = class_means(features, cell_counts(batch.source.label, 19, (8, 12)))
    first = method.running.source.means.clone()
    torch.testing.assert_close(first, near.means.sum(0) / near.present.sum(0).clamp(min=1)[:, None])
    far_label = probes(events)["hybrid"]
    far = class_means(method.student(batch.target.image).features[-1].detach(), cell_counts(far_label, 19, (8, 12)))
    torch.testing.assert_close(method.running.target.means, far.means.sum(0) / far.present.sum(0).clamp(min=1)[:, None])
    assert torch.equal(method.running.target.seen, far.present.any(0))
    _, events = run(method, batch=batch)
    assert not torch.equal(probes(events)["dynamic"], probes(events)["calibrated"])


def test_the_cross_entropy_and_the_contrast_have_labels_of_their_own():
    """By default static ones in Eq 11, hybrid ones in Eq 2: what they differ in is seen by the contrast alone."""
    method, batch = build(threshold=0.9), labelled()
    twin = copy.deepcopy(method.student)
    loss, events = run(method, batch=batch)
    static, hybrid = (probes(events)[name] for name in ("static", "hybrid"))
    assert not torch.equal(static, hybrid)
    source, target = twin(batch.source.image), twin(batch.target.image)
    logits = F.interpolate(target.logits, static.shape[-2:], mode="bilinear")
    torch.testing.assert_close(loss.parts["target"], F.cross_entropy(logits, static, ignore_index=255).detach())
    forward = _one_way(target, hybrid, source, batch.source.label)
    torch.testing.assert_close(loss.parts["forward"], forward.detach(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stage", ["adapt", "distil"])
def test_padding_has_no_say(stage):
    """The right half of every crop is padding, which repeats the last column of cells: nothing is as without it."""
    found = []
    for part in (_left_half(labelled()), _padded(labelled())):
        method = build(distil_share=0.3, distil_threshold=0.05, threshold=0.7)
        if stage == "distil":
            stage_of(method, stage).start()
            with torch.no_grad():
                method.student.head.weight.mul_(0.5)  # or it would say what its teacher says
        method.eval()
        loss, events = run(method, stage, part)
        found.append((loss, probes(events)))
    (cut, labels), (padded, padded_labels) = found
    assert cut.parts.keys() == padded.parts.keys()
    for name, value in cut.parts.items():
        torch.testing.assert_close(padded.parts[name], value)
    for name, label in labels.items():
        assert torch.equal(padded_labels[name], F.pad(label, (0, 24), value=255))


def _left_half(batch):
    """Crops of 32 x 24."""
    halves = (
        half._replace(
            image=half.image[..., :24],
            label=None if half.label is None else half.label[..., :24],
            layers={name: layer[..., :24] for name, layer in half.layers.items()},
        )
        for half in batch
    )
    return type(batch)(*halves)


def _padded(batch):
    """Crops of 32 x 48 that show what the left halves show."""
    valid = (torch.arange(48) < 24).expand(2, 32, 48)
    halves = (
        half._replace(
            image=torch.cat([half.image[..., :24], half.image[..., 20:24].repeat(1, 1, 1, 6)], 3),
            label=None if half.label is None else half.label.masked_fill(~valid, 255),
            layers={name: layer.masked_fill(~valid, 255) for name, layer in half.layers.items()},
            valid=valid,
        )
        for half in batch
    )
    return type(batch)(*halves)


def test_dynamic_labels_change_the_loss_and_the_gradient():
    """As they do not in the released code, which computes and forgets them."""
    found = {}
    for kind in ("static", "dynamic", "hybrid"):
        method = build(contrast_labels=kind, threshold=0.9)
        loss, events = run(method)
        gradient = torch.cat([g.flatten() for g in fakes.gradients(method.student).values()])
        found[kind] = (loss.parts["forward"], gradient)
        claimed = probes(events)["dynamic"] != 255
        assert 0 < claimed.double().mean() < 1
    for one, other in (("static", "dynamic"), ("static", "hybrid"), ("dynamic", "hybrid")):
        assert found[one][0] != found[other][0]
        assert not torch.equal(found[one][1], found[other][1])


def test_rows_without_a_term_do_not_make_it():
    loss, _ = run(build(fc_weight=0, bc_weight=0, contrast_labels="static"))
    assert set(loss.parts) == {"source", "target", "source_entropy", "target_entropy"}
    loss, _ = run(build(bc_weight=0))
    assert "forward" in loss.parts
    assert "backward" not in loss.parts


def test_prototypes_of_labels_that_are_downsampled():
    """The released code takes one pixel of each cell for a prototype, and all of them for the loss."""
    batch = labelled()
    batch.source.label[:, 1::2] = 18  # at 32x48 and stride 4, nearest downsampling never takes an odd row
    method = build(pooling="nearest")
    run(method, batch=batch)
    shown = batch.source.label[:, ::4, ::4]
    assert method.running.source.seen.nonzero()[:, 0].tolist() == sorted(set(shown.unique().tolist()) - {255})
    method = build(pooling="pixels")
    run(method, batch=batch)
    assert method.running.source.seen[18]


def test_four_kinds_of_labels_are_probed_every_step():
    _, events = run(build())
    assert tuple(probes(events)) == KINDS
    assert torch.equal(probes(events)["static"], labelled().target.layers[STATIC])


# Self-distillation


def test_a_new_network_learns_from_the_adapted_one():
    method = build(distil_share=0.25, distil_threshold=0.5)
    with torch.no_grad():
        method.student.head.weight.add_(1)
    adapted = copy.deepcopy(method.student)
    stage_of(method, "distil").start()
    method.train()
    assert torch.equal(method.teacher.module.head.weight, adapted.head.weight)
    assert torch.equal(method.student.head.weight, fakes.FakeSetup().network().head.weight)
    # The declarations are those of the new network.
    (group, *_) = stage_of(method, "distil").optimizers["segmenter"].groups
    assert next(method.student.parameters()) is group.parameters[0]
    batch = labelled()
    loss, events = run(method, "distil", batch)
    assert not fakes.gradients(method.teacher)
    assert fakes.gradients(method.student)
    confidence, label = F.interpolate(
        adapted.eval()(batch.target.image).logits, (32, 48), mode="bilinear"
    ).softmax(1).max(1)  # fmt: skip
    assert torch.equal(probes(events)["teacher"], label.masked_fill(confidence < 0.5, 255))
    twin = fakes.FakeSetup().network().train()
    logs, wanted = twin(batch.target.image).logits.log_softmax(1), adapted(batch.target.image).logits.log_softmax(1)
    divergence = F.kl_div(logs, wanted, reduction="none", log_target=True).sum(1).mean()
    torch.testing.assert_close(loss.parts["divergence"], divergence.detach())
    assert loss.parts["divergence"] >= 0


def test_the_teacher_is_part_of_the_state_from_its_stage_on():
    method = build(distil_share=0.25)
    assert not any(key.startswith("teacher") for key in method.state_dict())
    stage_of(method, "distil").start()
    assert any(key.startswith("teacher") for key in method.state_dict())


# The released code's network


@pytest.fixture(scope="module")
def released():
    """A ResNet-50 with a stem for each domain, and features of the head's branches."""
    network = partial(
        build_network, load_registry(), "resnet50-deeplabv2", 19, "none", {"lineage": "caffe", "domain_stem": True}
    )
    setup = fakes.FakeSetup(iterations=12)
    setup.network = lambda weights=None: network()
    torch.manual_seed(0)
    return build(setup, features="branches", absent_in_denominator="minus_one", contrast_labels="static")


def test_features_of_the_branches(released):
    assert released.running.source.means.shape == (19, 4 * 19)
    before = released.student.backbone.target.conv1.weight
    loss, _ = run(released)
    assert loss.value.isfinite()
    assert before.grad.abs().sum() > 0
    assert released.student.backbone.conv1.weight.grad.abs().sum() > 0


def test_the_targets_stem_follows_the_warm_up(released):
    with torch.no_grad():
        released.student.backbone.conv1.weight.mul_(1.5)
    data = fakes.samples(19, False, 3)
    released.eval()
    with torch.no_grad():
        before = released.predict(data)
        stage_of(released, "adapt").start()
        assert torch.equal(released.predict(data), before)
        released.student.backbone.target.conv1.weight.mul_(2)
        assert not torch.equal(released.predict(data), before)


# Bad input


def test_batches_that_do_not_pair_are_named():
    setup = fakes.FakeSetup(batches={"source": 2, "target": 1})
    with pytest.raises(UsageError, match=r"data\.source_batch is 2 and data\.target_batch 1\. Make them equal"):
        build(setup)


def test_a_head_without_branches_is_named():
    with pytest.raises(UsageError, match=r"TinyNetwork has none here\. Use features = encoder"):
        build(features="branches")


def test_prototypes_of_other_classes_are_named(tmp_path):
    other = build(fakes.FakeSetup(fakes.ELEVEN, iterations=12))
    write_checkpoint(tmp_path / "5", {}, other, {})
    with pytest.raises(CheckpointError, match=r"running\.source\.means has \(11, 8\), the network \(19, 8\)"):
        load_model(build(), open_checkpoint(tmp_path / "5"))


# The table


def entry(iteration, **scores):
    values = {}
    for name, (density, accuracy) in scores.items():
        values[f"probe/{name}/density"] = density
        if accuracy is not None:
            values[f"probe/{name}/accuracy"] = accuracy
    return {"stage": "adapt", "iteration": iteration, "values": values}


def test_the_table_is_of_each_refresh(tmp_path, capsys):
    four = dict.fromkeys(KINDS, (0.2, 0.5))
    entries = [
        entry(4, **{STATIC: (0.1, 0.9)}),
        entry(5, **four | {"hybrid": (0.2, 0.5)}),
        entry(6, **four | {"hybrid": (0.6, 0.9)}),
        entry(7, source=(1.0, None)),
        entry(7, **{STATIC: (0.1, 0.9)}),
        entry(8, **four | {"dynamic": (0.0, None)}),
    ]
    periods = split_periods(entries)
    assert {step: len(found) for step, found in periods.items()} == {4: 2, 7: 1}
    # Of 0.8 labelled pixels 0.1 + 0.54 are right.
    assert score(periods[4], "hybrid") == pytest.approx((0.4, 0.64 / 0.8))
    assert score(periods[7], "dynamic") == (0.0, None)
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, entries)))
    print_table(str(tmp_path))
    printed = capsys.readouterr().out.splitlines()
    assert printed[1].split() == ["from", "step", *KINDS]
    assert " ".join(printed[2].split()) == "4 20.0 / 50.0 20.0 / 50.0 20.0 / 50.0 40.0 / 80.0"
    assert " ".join(printed[3].split()) == "7 20.0 / 50.0 0.0 / - 20.0 / 50.0 20.0 / 50.0"


def test_a_run_of_another_method_prints_nothing(tmp_path, capsys):
    (tmp_path / "metrics.jsonl").write_text('{"stage": "train", "iteration": 1, "values": {"loss/source": 1.0}}')
    print_table(str(tmp_path))
    assert capsys.readouterr().out == ""


# Rows

TABLE_3 = {"base": (49.5, 45.1), "fcl": (51.2, 48.8), "bcl": (53.5, 51.3), "dynamic": (55.3, 53.5), "cal": (57.1, 55.6)}
LABELS = {"base": "static", "fcl": "static", "bcl": "static", "dynamic": "hybrid", "cal": "hybrid"}


@pytest.mark.parametrize(("row", "figures"), TABLE_3.items())
def test_rows_of_table_3(row, figures):
    gta, synthia = figures
    published = presets_of(rows.REGISTRY.methods.describe("bicl"))[f"table3-{row}"].published
    assert published == {"gta5-cityscapes": {"mIoU19": gta}, "synthia-cityscapes": {"mIoU16": synthia}}
    for name in (f"table3-{row}", "quick" if row == "cal" else f"quick-{row}"):
        values = rows.row("bicl", name).config.settings
        assert (values.fc_weight > 0, values.bc_weight > 0) == (row != "base", row not in ("base", "fcl"))
        assert values.contrast_labels == LABELS[row]
        assert values.calibrate is (row != "dynamic")
        assert values.distil_share == 0


def test_the_distilled_row_adds_a_training():
    plain, distilled = (rows.row("bicl", f"table3-{row}").config for row in ("cal", "cal-distilled"))

    def lengths(config):
        stages = BiCL(config.settings, fakes.FakeSetup(iterations=config.iterations)).stages()
        return {stage.name: stage.iterations for stage in stages}

    assert lengths(plain) == {"warmup": 20_000, "adapt": 100_000}
    assert lengths(distilled) == {**lengths(plain), "distil": 100_000}


def test_the_released_codes_row():
    config = rows.row("bicl", "dass-release").config
    assert config.network.options == {"lineage": "caffe", "domain_stem": True}
    assert (config.settings.contrast_labels, config.settings.features) == ("static", "branches")
    assert (config.settings.static_rule, config.settings.static_portion) == ("dass", 0.1)
    method = BiCL(config.settings.model_copy(update={"features": "encoder"}), fakes.FakeSetup(optim=config.optim))
    rate = stage_of(method, "adapt").optimizers["segmenter"].schedule
    assert method.config.round_decay == 0.5
    assert rate.length == config.settings.refresh_every == 10_000


# The kit


@pytest.mark.parametrize(
    "values",
    [
        {"distil_share": 0.25},
        pytest.param({"distil_share": 0.25, "refresh_every": 2}, marks=pytest.mark.slow, id="whole-runs"),
    ],
)
def test_it_passes_the_kit(values, tmp_path, request):
    whole = request.node.get_closest_marker("slow") is not None
    results = check_method("bicl", fake_registry(), tmp_path, values, whole_runs=whole)
    assert not [result for result in results if result.failed]
