"""CBST and CRST: portions, rounds, mined classes, the mixture of a step, the losses by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F
from udabench_cbst.config import CBSTConfig
from udabench_cbst.method import CBST, LABEL, MINED, SOFT, rare_classes

from udabench.labels import IGNORE
from udabench.method import Loss, Mining, Scalar
from udabench.parts.soft_labels import pack
from udabench.plugins import import_file

fakes = import_file(Path(__file__).with_name("fakes.py"))


def built(iterations=12, **values):
    return CBST(CBSTConfig(**values), fakes.FakeSetup(iterations=iterations))


def stages_of(method):
    return {stage.name: stage for stage in method.stages()}


class Sized(fakes.MemoryWorkspace):
    """Beside a few target images it is told of many of the source."""

    def count(self, domain):
        return 24966 if domain == "source" else 2975


def labelled(method, number=1, images=3):
    workspace = Sized(fakes.whole_images(images))
    with torch.no_grad():
        events = list(method.eval().label(number, workspace))
    return workspace, events


# Rounds


def test_portions_of_the_rounds():
    config = CBSTConfig()
    assert [config.portion_of(n) for n in (1, 2, 3, 7, 8)] == pytest.approx([0.2, 0.25, 0.3, 0.5, 0.5])
    assert [config.source_portion_of(n) for n in (1, 2, 13, 14)] == pytest.approx([0.03, 0.0325, 0.06, 0.06])
    with pytest.raises(ValidationError, match=r"portion: 0.6 lies above portion_max 0.5"):
        CBSTConfig(portion=0.6)
    with pytest.raises(ValidationError, match=r"label_scales: 0 is no factor"):
        CBSTConfig(label_scales=(0.0,))


def test_stages_share_the_steps_out():
    stages = built(13, warmup_share=0.3, rounds=4).stages()
    assert [(s.name, s.iterations) for s in stages] == [
        ("warmup", 4), ("labels-1", 0), ("retrain-1", 3), ("labels-2", 0), ("retrain-2", 2), ("labels-3", 0),
        ("retrain-3", 2), ("labels-4", 0), ("retrain-4", 2),
    ]  # fmt: skip
    assert stages[0].domains == ("source",)
    assert [s.source_share for s in stages if s.name.startswith("retrain")] == pytest.approx(
        [0.03, 0.0325, 0.035, 0.0375]
    )
    assert stages[2].mining == Mining(LABEL, MINED, 0.8)
    assert stages[2].layers == {LABEL: ("target", LABEL)}
    assert stages_of(built(13, warmup_share=0))["retrain-1"].iterations == 5
    assert "warmup" not in stages_of(built(13, warmup_share=0))
    assert SOFT in stages_of(built(lrent=0.25))["retrain-1"].layers


def test_retraining_is_slower_and_constant():
    def rates(**values):
        stages = stages_of(built(**values))
        return [stages[name].optimizers["segmenter"] for name in ("warmup", "retrain-1")]

    first, later = rates()
    assert [group.lr for group in later.groups] == pytest.approx([0.2 * group.lr for group in first.groups])
    assert [later.schedule.factor(i, 100) for i in (0, 50, 99)] == [1, 1, 1]
    assert first.schedule.factor(50, 100) < 1
    assert rates(retrain_constant=False)[1].schedule == first.schedule


# Labels


def test_the_pass_labels_mines_and_weighs_the_domains():
    method = built(mine_share=0.05)
    workspace, events = labelled(method, 3)
    table = workspace.read_table("pseudo_label-thresholds")
    assert torch.equal(workspace.read_table(MINED)["classes"], rare_classes(table["pixels"], 0.05))
    assert 0 < len(workspace.read_table(MINED)["classes"]) < 19
    # floor(0.035 * 24966) = floor(873.81) images of the source beside 2975 of the target.
    assert method.source_chance.item() == pytest.approx(873 / (873 + 2975), abs=1e-6)
    assert {e.name: e.value.item() for e in events if isinstance(e, Scalar)}["source_chance"] == method.source_chance
    label = torch.stack([workspace.read(LABEL, image.names[0]) for image in workspace.samples])
    # 30 % of each class reach its own threshold; a pixel may reach another class's.
    assert 0.29 < (label != IGNORE).float().mean() < 0.9
    assert "source_chance" in dict(method.named_buffers())


@pytest.mark.parametrize(("number", "portion"), [(1, 0.2), (3, 0.3)])
def test_labels_are_of_the_scaled_image_and_its_mirror_image(number, portion):
    method = built(subsample=1)
    workspace, _ = labelled(method, number)
    image = torch.cat([each.image for each in workspace.samples])
    with torch.no_grad():
        small = F.interpolate(image, (29, 43), mode="bilinear", antialias=True)
        views = [method.student(small).logits, method.student(small.flip(-1)).logits.flip(-1)]
        mean = sum(F.interpolate(view, (32, 48), mode="bilinear").softmax(1) for view in views) / 2
    confidence, predicted = mean.max(1)
    thresholds = torch.ones(19)
    for c in range(19):
        values = confidence[predicted == c].sort(descending=True).values
        if rank := math.floor(portion * len(values)):
            thresholds[c] = values[rank - 1]
    torch.testing.assert_close(workspace.read_table("pseudo_label-thresholds")["thresholds"], thresholds)
    ratio, label = (mean / thresholds.view(1, -1, 1, 1)).max(1)
    written = torch.stack([workspace.read(LABEL, each.names[0]) for each in workspace.samples])
    assert (written != label.masked_fill(ratio < 1, IGNORE)).double().mean() < 1e-3  # rounding, in batches


def test_rare_classes_are_those_below_the_share_the_rarest_first():
    pixels = torch.tensor([900, 30, 0, 10, 60])
    assert rare_classes(pixels, 0.05).tolist() == [2, 3, 1]
    assert rare_classes(pixels, 0.0).tolist() == []
    assert rare_classes(torch.zeros(3, dtype=torch.long), 0.1).tolist() == [0, 1, 2]


# Steps


def target_batch(seed=5, soft=None):
    """A batch whose pseudo-labels are the source's blocks; half of the pixels unknown."""
    batch = fakes.batch()
    label = fakes.samples(19, True, seed).label
    label = torch.where(torch.rand(label.shape, generator=torch.Generator().manual_seed(seed)) < 0.5, label, IGNORE)
    layers = {LABEL: label} if soft is None else {LABEL: label, SOFT: soft}
    return batch._replace(target=batch.target._replace(layers=layers))


def loss_of(method, batch, seed=0):
    method.train()
    events = list(method.retrain(batch, 0, torch.Generator().manual_seed(seed)))
    return next(event for event in events if isinstance(event, Loss))


def log_probability(method, image):
    with torch.no_grad():
        logits = method.student.eval()(image).logits.double()
    return F.interpolate(logits, image.shape[-2:], mode="bilinear").log_softmax(1)


def test_every_labelled_pixel_of_a_mixed_batch_counts_the_same():
    method, batch = built(mixture="both", mrkld=0.1, mrent=0.3), target_batch()
    loss = loss_of(method, batch)
    logs = log_probability(method, torch.cat([batch.source.image, batch.target.image]))
    label = torch.cat([batch.source.label, batch.target.layers[LABEL]])
    assert float(loss.parts["labels"]) == pytest.approx(float(F.nll_loss(logs, label, ignore_index=IGNORE)), rel=1e-5)
    claimed = (label[2:] != IGNORE)[:, None].double()
    kld = -(logs[2:].mean(1, keepdim=True) * claimed).sum() / claimed.sum()
    entropy = ((logs[2:].exp() * logs[2:]).sum(1, keepdim=True) * claimed).sum() / claimed.sum()
    assert float(loss.parts["penalty"]) == pytest.approx(float(0.1 * kld + 0.3 * entropy), rel=1e-4)
    assert float(loss.value.detach()) == pytest.approx(float(loss.parts["labels"] + loss.parts["penalty"]), rel=1e-6)


def test_soft_labels_are_learnt_where_a_label_is_kept():
    method = built(mixture="both", lrent=0.25)
    # Of these very images: other images would have another loss.
    soft = (2 * log_probability(method, target_batch().target.image)).softmax(1)
    batch = target_batch(soft=torch.stack([pack(each, 19) for each in soft]))
    loss = loss_of(method, batch)
    logs = log_probability(method, torch.cat([batch.source.image, batch.target.image]))
    hard, claimed = batch.source.label, batch.target.layers[LABEL] != IGNORE
    total = (
        F.nll_loss(logs[:2], hard, ignore_index=IGNORE, reduction="sum") - ((soft * logs[2:]).sum(1) * claimed).sum()
    )
    assert float(loss.value.detach()) == pytest.approx(
        float(total / ((hard != IGNORE).sum() + claimed.sum())), rel=1e-3
    )
    loss.value.backward()
    assert fakes.gradients(method.student)


def test_images_of_a_step_are_drawn_by_the_domains_parts():
    method = built()
    method.source_chance.fill_(0.2)
    rng = torch.Generator().manual_seed(0)
    drawn = [method._mixture(2, 2, rng) for _ in range(2000)]
    # A place is the source's or the target's: as many processes share a batch, the same images are taken.
    assert all(sorted([*sources, *targets]) == [0, 1] for sources, targets in drawn)
    counts = torch.tensor([len(sources) for sources, _ in drawn]).double()
    assert counts.mean() / 2 == pytest.approx(0.2, abs=0.02)
    # Two of two: 4 %.
    assert (counts == 2).double().mean() == pytest.approx(0.04, abs=0.015)
    assert {len(method._mixture(1, 2, rng)[0]) for _ in range(300)} == {0, 1, 2}


@pytest.mark.parametrize("chance", [0.0, 1.0])
@pytest.mark.parametrize("values", [{"mrkld": 0.1}, {"lrent": 0.25}])
def test_a_batch_of_one_domain_alone(chance, values):
    soft = torch.stack([pack(torch.rand(19, 32, 48), 3)] * 2)
    method, batch = built(**values), target_batch(soft=soft)
    method.source_chance.fill_(chance)
    loss = loss_of(method, batch)
    image, label = (
        (batch.source.image, batch.source.label) if chance else (batch.target.image, batch.target.layers[LABEL])
    )
    assert torch.equal(loss.outputs["mixed"].logits.isfinite(), torch.ones_like(loss.outputs["mixed"].logits).bool())
    if chance or "mrkld" in values:
        expected = F.nll_loss(log_probability(method, image), label, ignore_index=IGNORE)
        assert float(loss.parts["labels"]) == pytest.approx(float(expected), rel=1e-5)
    if chance:
        assert float(loss.parts.get("penalty", 0)) == 0
    loss.value.backward()


@pytest.mark.parametrize("frozen", [True, False])
def test_norms_keep_their_statistics_in_retraining_alone(frozen):
    method, batch = built(frozen_norms=frozen), target_batch()
    norm = method.student.encoder[1]
    before = norm.running_mean.clone()
    loss_of(method, batch).value.backward()
    assert torch.equal(norm.running_mean, before) is frozen
    assert norm.weight.grad is not None
    list(method.warm_up(batch, 0, torch.Generator()))
    assert not torch.equal(norm.running_mean, before)


def test_soft_labels_are_counted_for_the_disk():
    plain, soft = (stages_of(built(lrent=lrent))["labels-1"].pixel_bytes for lrent in (0.0, 0.25))
    assert soft - plain == 9
