"""ProDA: prototypes, rectified labels, the losses of both kinds of stage; every equation against values of its own."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from udabench_proda import prototypes as prototypes_module
from udabench_proda.losses import reverse_cross_entropy, symmetric_cross_entropy
from udabench_proda.method import ProDA
from udabench_proda.passes import MEANS, SOFT, TABLE, SureRule
from udabench_proda.prototypes import FAR, Means, TargetPrototypes, means_of, rectified_label

from udabench.augment.randaugment import RandAugment, StrongView
from udabench.config import OptimConfig
from udabench.engine.artefacts import ArtefactReader
from udabench.errors import CheckpointError, DataError
from udabench.method import Group, Loss, Optimizer, Probe, Remark, Scalar
from udabench.parts.soft_labels import pack, unpack
from udabench.plugins import import_file
from udabench.presets import presets_of
from udabench.size import Size
from udabench.testing import check_method, fake_registry, fake_setup

fakes = import_file(Path(__file__).with_name("fakes.py"))
stage_of = fakes.stage_of
rows = import_file(Path(__file__).with_name("rows.py"))
CLASSES, CHANNELS = 19, 8
GRID = (8, 12)


def build(iterations=12, setup=None, **values):
    return ProDA(ProDA.Config(**values), setup or fakes.FakeSetup(iterations=iterations))


def run(stage, batch, seed=0):
    """One step of a stage, each loss back-propagated as it comes: losses by name, and the other events."""
    losses, others = {}, []
    for event in stage.step(batch, 1, torch.Generator().manual_seed(seed)):
        if isinstance(event, Loss):
            event.value.backward()
            losses[event.name] = event
        else:
            others.append(event)
    return losses, others


def begun(**values):
    """A method whose prototypes are begun at random; without any change of views."""
    method = build(teacher_norms="running", **values)
    method.augment = RandAugment(chance=0, cutout=0)
    rng = torch.Generator().manual_seed(3)
    method.prototypes.begin(Means(torch.randn(1, CLASSES, CHANNELS, generator=rng), torch.full((1, CLASSES), 50)))
    return method


def soft_batch(seed=0):
    """A batch with soft labels, all classes kept, on the logits' grid (a quarter of the image)."""
    rng = torch.Generator().manual_seed(seed)
    soft = (3 * torch.randn(2, CLASSES, *GRID, generator=rng)).softmax(1)
    batch = fakes.batch()
    packed = torch.stack([pack(each, CLASSES) for each in soft])
    return batch._replace(target=batch.target._replace(layers={SOFT: packed})), soft


# Losses


def test_reverse_cross_entropy_by_hand():
    """Probabilities (0.7, 0.2, 0.1), label 1: -(0.7 + 0.1) log 1e-4; an unknown pixel beside it is left out."""
    logits = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]).log().T.reshape(1, 3, 1, 2) + 5
    label = torch.tensor([[[1, 255]]])
    expected = 0.8 * 4 * math.log(10)
    assert reverse_cross_entropy(logits, label).item() == pytest.approx(expected, rel=1e-6)
    symmetric = symmetric_cross_entropy(logits, label, 0.1, 2.0, 1e-4).item()
    assert symmetric == pytest.approx(0.1 * -math.log(0.2) + 2 * expected, rel=1e-6)
    assert reverse_cross_entropy(logits, torch.full_like(label, 255)).item() == 0


def test_reverse_cross_entropy_is_the_literal_sum():
    """-sum_c p_c log q_c with clamped probabilities and one-hot labels, in float64, as the authors write it."""
    rng = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(2, 7, 4, 5, generator=rng)
    label = torch.randint(7, (2, 4, 5), generator=rng).masked_fill(torch.rand(2, 4, 5, generator=rng) < 0.3, 255)
    known = label != 255
    p = logits.double().softmax(1).clamp(1e-7, 1)
    q = F.one_hot(label.where(known, 0), 7).permute(0, 3, 1, 2).double().clamp(1e-4, 1)
    literal = (-(p * q.log()).sum(1) * known).sum() / known.sum()
    assert reverse_cross_entropy(logits, label).item() == pytest.approx(literal.item(), abs=2e-5)


# Prototypes


def prototypes_of(values, known=None, rate=0.25, mean="pixels", least=1):
    values = torch.tensor(values)
    module = TargetPrototypes(*values.shape, rate, mean, least)
    module.values.copy_(values)
    module.known.copy_(torch.tensor([True] * len(values) if known is None else known))
    return module


def test_distances_are_euclidean():
    rng = torch.Generator().manual_seed(0)
    module = prototypes_of((6 * torch.randn(5, 16, generator=rng)).tolist())
    features = 6 * torch.randn(2, 16, 3, 4, generator=rng)
    flat = features.double().permute(0, 2, 3, 1).reshape(-1, 16)
    expected = torch.cdist(flat, module.values.double()).view(2, 3, 4, 5).permute(0, 3, 1, 2)
    torch.testing.assert_close(module.distances(features).double(), expected, rtol=0, atol=1e-4)


def test_a_feature_on_its_prototype_has_a_finite_gradient():
    module = prototypes_of([[1.0, 2.0], [3.0, 4.0]])
    features = torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).requires_grad_()
    module.distances(features).sum().backward()
    assert features.grad.isfinite().all()


def test_a_class_without_prototype_is_never_assigned():
    module = prototypes_of([[0.0, 0.0], [9.0, 9.0]], known=[False, True])
    distances = module.distances(torch.zeros(1, 2, 1, 1))
    assert distances.flatten().tolist() == pytest.approx([FAR, 9 * math.sqrt(2)])
    assert rectified_label(torch.tensor([0.999, 0.001]).view(1, 2, 1, 1), distances).item() == 1


def test_rectification_by_hand():
    """Distances 3 and 1: weights proportional to e^-2 = 0.1353 and 1, so probabilities of 0.88 and 0.12 tip over:
    0.88 * 0.1353 = 0.1191 < 0.12. With a temperature of 2 the weight is e^-1, and they do not."""
    distances = torch.tensor([3.0, 1.0]).view(1, 2, 1, 1)
    soft = torch.tensor([0.88, 0.12]).view(1, 2, 1, 1)
    assert rectified_label(soft, distances).item() == 1
    assert rectified_label(soft, distances, temperature=2.0).item() == 0
    assert rectified_label(torch.tensor([0.89, 0.11]).view(1, 2, 1, 1), distances).item() == 0


def test_means_of_classes_and_what_is_left_out():
    features = torch.tensor([[[[1.0, 3.0, 10.0, 50.0]], [[2.0, 4.0, 20.0, 60.0]]]])
    means = means_of(features, torch.tensor([[[0, 0, 2, 255]]]), 3)
    assert means.values[0].tolist() == [[2.0, 3.0], [0.0, 0.0], [10.0, 20.0]]
    assert means.cells[0].tolist() == [2, 0, 1]


# Two images, two classes, one channel: class 0 has means 2 (of 1 cell) and 6 (of 3), class 1 is in neither.
BATCH = Means(torch.tensor([[[2.0], [0.0]], [[6.0], [0.0]]]), torch.tensor([[1.0, 0.0], [3.0, 0.0]]))


@pytest.mark.parametrize(
    ("mean", "least", "expected"),
    [
        # (2 + 3 * 6) / 4 = 5; 1 + (5 - 1) / 4
        ("pixels", 1, 2.0),
        # 1 + (2 - 1) / 4 = 1.25; 1.25 + (6 - 1.25) / 4
        ("images", 1, 2.4375),
        # the first image shows too little: 1 + (6 - 1) / 4
        ("images", 2, 2.25),
        ("pixels", 5, 1.0),
    ],
)
def test_rate_by_hand(mean, least, expected):
    module = prototypes_of([[1.0], [7.0]], mean=mean, least=least)
    module.update(BATCH)
    assert module.values.flatten().tolist() == pytest.approx([expected, 7.0])


def test_prototypes_begin_where_enough_cells_are_seen():
    module = prototypes_of([[0.0], [0.0], [0.0]], least=10)
    module.begin(Means(torch.tensor([[[1.0], [2.0], [3.0]]]), torch.tensor([[9, 10, 11]])))
    assert module.known.tolist() == [False, True, True]


def test_a_class_begins_with_its_first_mean():
    module = prototypes_of([[0.0], [0.0]], known=[False, False])
    module.update(BATCH)
    assert module.values.flatten().tolist() == [5.0, 0.0]
    assert module.known.tolist() == [True, False]


@pytest.mark.parametrize("mean", ["pixels", "images"])
def test_ranks_update_as_one_process(mean, monkeypatch):
    """Each of two ranks has one image."""
    whole = prototypes_of([[1.0], [7.0]], mean=mean)
    whole.update(BATCH)
    parts = iter(())
    monkeypatch.setattr(prototypes_module, "total", lambda value: next(parts))
    monkeypatch.setattr(prototypes_module, "gather", lambda value: next(parts))
    cells, sums = BATCH.cells.sum(0, keepdim=True), (BATCH.values * BATCH.cells[:, :, None]).sum(0, keepdim=True)
    for rank in range(2):
        module = prototypes_of([[1.0], [7.0]], mean=mean)
        parts = iter((cells, sums) if mean == "pixels" else BATCH)
        module.update(Means(BATCH.values[rank : rank + 1], BATCH.cells[rank : rank + 1]))
        assert torch.equal(module.values, whole.values)


# The pass over the target


class Killed(Exception):
    pass


class MortalWorkspace(fakes.MemoryWorkspace):
    """Dies before its n-th image."""

    def __init__(self, images, images_left):
        super().__init__(images)
        self.images_left = images_left

    def images(self, domain, skip_done=None, share=False):
        for number, each in enumerate(super().images(domain, skip_done, share)):
            if number == self.images_left:
                raise Killed
            yield each


def make_pass(method, workspace):
    method.eval()
    with torch.no_grad():
        return list(stage_of(method, "prototypes").prepare(workspace))


def outputs_of(method, images):
    with torch.no_grad():
        return [method.networks[0].eval()(each.image) for each in images]


@pytest.mark.parametrize("mean", ["pixels", "images"])
def test_prototypes_are_the_means_of_the_whole_target(mean):
    method, images = build(prototype_mean=mean, prototype_pixels=3), fakes.whole_images(4)
    workspace = fakes.MemoryWorkspace(images)
    make_pass(method, workspace)
    features, labels = [], []
    for output in outputs_of(method, images):
        features.append(output.features[-1][0].double().flatten(1).T)
        labels.append(output.logits[0].argmax(0).flatten())
    for c in range(CLASSES):
        of_images = [f[label == c] for f, label in zip(features, labels, strict=True)]
        if mean == "pixels":
            rows = torch.cat(of_images)
            known = len(rows) >= 3
        else:
            rows = torch.stack([f.mean(0) for f in of_images if len(f) >= 3] or [torch.zeros(CHANNELS)])
            known = any(len(f) >= 3 for f in of_images)
        assert bool(method.prototypes.known[c]) == known
        if known:
            torch.testing.assert_close(method.prototypes.values[c].double(), rows.mean(0), rtol=0, atol=1e-6)
    assert torch.equal(workspace.tables[TABLE]["prototypes"], method.prototypes.values)
    assert 0 < int(method.prototypes.known.sum()) < CLASSES


def test_the_pass_goes_on_after_a_kill(monkeypatch):
    images = fakes.whole_images(4)
    whole = build()
    make_pass(whole, straight := fakes.MemoryWorkspace(images))
    method, workspace = build(), MortalWorkspace(images, 2)
    with pytest.raises(Killed):
        make_pass(method, workspace)
    assert not method.prototypes.known.any()
    workspace.images_left = -1
    seen = []
    forward = method.networks[0].forward
    monkeypatch.setattr(method.networks[0], "forward", lambda image: seen.append(1) or forward(image))
    events = make_pass(method, workspace)
    assert len(seen) == 2
    assert sum(isinstance(event, Probe) for event in events) == 4
    assert workspace.values.keys() == straight.values.keys()
    assert all(torch.equal(value, straight.values[key]) for key, value in workspace.values.items())
    assert torch.equal(method.prototypes.values, whole.prototypes.values)
    assert torch.equal(method.prototypes.known, whole.prototypes.known)


def test_what_the_pass_stores_and_says():
    method, images = build(soft_classes=5, prototype_pixels=20), fakes.whole_images(2)
    workspace = fakes.MemoryWorkspace(images)
    events = make_pass(method, workspace)
    for each, output in zip(images, outputs_of(method, images), strict=True):
        packed = workspace.values[SOFT, each.names[0]]
        assert packed.shape == (15, *GRID)
        top = output.logits.softmax(1).topk(5, 1)
        restored = unpack(packed[None], CLASSES).gather(1, top.indices)
        assert torch.allclose(restored, top.values, rtol=2**-11, atol=3e-8)
    (remark,) = [event for event in events if isinstance(event, Remark)]
    names = fakes.CITYSCAPES19.names
    known = method.prototypes.known.tolist()
    assert all((name in remark.text) != has for name, has in zip(names, known, strict=True))
    probe = next(event for event in events if isinstance(event, Probe))
    expected = outputs_of(method, images)[0].logits.argmax(1).repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert torch.equal(probe.labels, expected)


def test_means_of_other_classes_are_named():
    images = fakes.whole_images(1)
    workspace = fakes.MemoryWorkspace(images)
    make_pass(build(setup=fakes.FakeSetup(fakes.ELEVEN, iterations=12)), workspace)
    with pytest.raises(
        DataError, match=r"means of 'image 0' are of 11 classes with 8 channels; .* has 19.*class_means"
    ):
        make_pass(build(), workspace)


def test_an_image_without_soft_label_is_named(tmp_path):
    with pytest.raises(DataError, match=r"soft_label/image 7 is missing"):
        ArtefactReader(tmp_path / SOFT).read("image 7")


def test_padding_has_no_say():
    method, (each, *_) = build(), fakes.whole_images(1)
    valid = torch.ones(1, 32, 48, dtype=torch.bool)
    valid[:, :, 24:] = False
    workspace = fakes.MemoryWorkspace([each._replace(valid=valid)])
    events = make_pass(method, workspace)
    assert workspace.values[MEANS, "image 0"][:, -1].sum() == 8 * 6
    probe = next(event for event in events if isinstance(event, Probe))
    assert torch.equal(probe.labels == 255, ~valid)


# Stage 1


def expected_labels(method, batch, soft):
    """Rectified labels from the definition, in float64."""
    feature = method.teacher(batch.target.image).features[-1].double()
    flat = feature.permute(0, 2, 3, 1).reshape(-1, CHANNELS)
    distances = torch.cdist(flat, method.prototypes.values.double())
    weights = (-distances).softmax(1)
    p = soft.double().permute(0, 2, 3, 1).reshape(-1, CLASSES)
    return (weights * p).argmax(1).view(2, *GRID), distances.view(2, *GRID, CLASSES)


def test_stage_1_is_symmetric_cross_entropy_of_rectified_labels():
    method = begun(ce_weight=0.3, rce_weight=0.7, mrkld=0.2)
    batch, soft = soft_batch()
    label, _ = expected_labels(method, batch, soft)
    logits = copy.deepcopy(method.networks[0]).train()(batch.target.image).logits.double()
    logs = logits.log_softmax(1)
    p_label = logs.exp().gather(1, label[:, None])[:, 0]
    expected = 0.3 * F.cross_entropy(logits, label) + 0.7 * math.log(1e4) * (1 - p_label).mean() - 0.2 * logs.mean()
    losses, others = run(stage_of(method, "stage1"), batch)
    assert losses["target"].value.item() == pytest.approx(expected.item(), rel=1e-5)
    plain = soft.argmax(1)
    (changed,) = [event.value.item() for event in others if isinstance(event, Scalar)]
    assert changed == pytest.approx((label != plain).float().mean().item()) != 0
    probes = {event.name: event.labels[:, 2::4, 2::4] for event in others if isinstance(event, Probe)}
    assert torch.equal(probes["rectified"], label)
    assert torch.equal(probes["plain"], plain)


def test_the_source_is_supervised():
    method = begun()
    batch, _ = soft_batch()
    logits = copy.deepcopy(method.networks[0]).train()(batch.source.image).logits
    expected = F.cross_entropy(F.interpolate(logits, (32, 48), mode="bilinear"), batch.source.label, ignore_index=255)
    losses, _ = run(stage_of(method, "stage1"), batch)
    assert losses["source"].value.item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["source"].outputs["source"].logits.shape == (2, CLASSES, *GRID)
    assert losses["target"].outputs["target"].logits.shape == (2, CLASSES, *GRID)


def student_distances(method, batch):
    """Of stage 1's network for the target's images as they are: N h w C float64."""
    twin = copy.deepcopy(method.networks[0]).train()
    feature = twin(batch.target.image).features[-1].double().permute(0, 2, 3, 1)
    return torch.cdist(feature.reshape(-1, CHANNELS), method.prototypes.values.double()).view(2, *GRID, CLASSES)


@pytest.mark.parametrize(("divisor", "share"), [("pixels", 1), ("elements", CLASSES)])
def test_consistency_is_the_divergence_of_assignments(divisor, share):
    """With both divisions: the released code's is a mean over the classes too."""
    method = begun(consistency_weight=4.0, kl_divisor=divisor, temperature=0.5)
    batch, soft = soft_batch()
    _, teacher = expected_labels(method, batch, soft)
    mine = student_distances(method, batch)
    p, q = (torch.distributions.Categorical(logits=-2 * d) for d in (teacher, mine))
    expected = 4 * torch.distributions.kl_divergence(p, q).mean() / share
    losses, _ = run(stage_of(method, "stage1"), batch)
    assert losses["consistency"].value.item() == pytest.approx(expected.item(), rel=1e-4)


def test_what_a_view_does_not_show_is_not_compared():
    """The right half is cut out of the view: the loss is that of the left one."""
    method = begun()
    place = torch.eye(3)[:2].repeat(2, 1, 1)
    method.augment = lambda image, rng: StrongView(image, place, torch.tensor([[0.0, -1.0, 1.0, 1.0]] * 2))
    batch, soft = soft_batch()
    _, teacher = expected_labels(method, batch, soft)
    mine = student_distances(method, batch)
    p, q = (torch.distributions.Categorical(logits=-d[:, :, :6]) for d in (teacher, mine))
    expected = 10 * torch.distributions.kl_divergence(p, q).mean()
    losses, _ = run(stage_of(method, "stage1"), batch)
    assert losses["consistency"].value.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_crops_padding_has_no_say():
    """Images of 32 x 24, alone and in crops twice as wide: the same losses, labels and prototypes."""
    found = []
    for width in (24, 48):
        method = begun(setup=fakes.FakeSetup(iterations=12, crop=Size(32, width)), prototype_rate=0.5)
        with torch.no_grad():
            method.networks[0].encoder[0].weight.mul_(0.5)  # or its features would be those of the teacher
        losses, others = run(stage_of(method.eval(), "stage1"), _narrow(soft_batch()[0], width))
        probes = {event.name: event.labels for event in others if isinstance(event, Probe)}
        found.append(({name: loss.value for name, loss in losses.items()}, probes, method.prototypes.values))
    (losses, labels, prototypes), (padded, padded_labels, moved) = found
    torch.testing.assert_close(padded, losses)
    torch.testing.assert_close(moved, prototypes)
    for name, label in labels.items():
        assert torch.equal(padded_labels[name], F.pad(label, (0, 24), value=255))


def _narrow(batch, width):
    """The left 24 columns of all images, in crops of this width; what is beyond repeats the last cells."""
    valid = torch.arange(width) < 24
    source, target = (
        half._replace(
            image=torch.cat([half.image[..., :24], half.image[..., 20:24].repeat(1, 1, 1, 6)], 3)[..., :width],
            valid=valid.expand(2, 32, width),
            box=torch.tensor([[0, 0, 32, width]] * 2),
            size=Size(32, 24),
        )
        for half in batch
    )
    label = source.label[..., :width].masked_fill(~valid, 255)
    soft = {SOFT: target.layers[SOFT][..., :6]}
    return batch._replace(source=source._replace(label=label), target=target._replace(layers=soft))


def test_without_consistency_nothing_is_drawn():
    method = begun(consistency_weight=0)
    losses, _ = run(stage_of(method, "stage1"), soft_batch()[0])
    assert set(losses) == {"source", "target"}


def test_without_rectification_the_soft_labels_argmax_is_learnt():
    method = begun(rectify=False)
    batch, soft = soft_batch()
    _, others = run(stage_of(method, "stage1"), batch)
    probes = {event.name: event.labels for event in others if isinstance(event, Probe)}
    assert torch.equal(probes["rectified"], probes["plain"])
    assert torch.equal(probes["plain"][:, 2::4, 2::4], soft.argmax(1))


def test_prototypes_follow_the_teachers_features():
    method = begun(prototype_rate=0.5, prototype_pixels=1)
    batch, _ = soft_batch()
    before = method.prototypes.values.clone().double()
    seen = method.teacher(batch.target.image)
    flat = seen.features[-1].double().permute(0, 2, 3, 1).reshape(-1, CHANNELS)
    label = seen.logits.argmax(1).flatten()
    run(stage_of(method, "stage1"), batch)
    for c in range(CLASSES):
        rows = flat[label == c]
        expected = before[c] if not len(rows) else (before[c] + rows.mean(0)) / 2
        torch.testing.assert_close(method.prototypes.values[c].double(), expected, rtol=0, atol=1e-5)
    assert len(label.unique()) > 1


@pytest.mark.parametrize("mean", ["pixels", "images"])
def test_autocast_rounds_no_prototype(mean):
    """The network's maps are rounded; what is made of them is not: prototypes are the float32 means of these maps."""
    found = []
    for enabled in (False, True):
        method = begun(prototype_rate=1.0, prototype_pixels=1, prototype_mean=mean)
        features = method.teacher(soft_batch()[0].target.image).features[-1].bfloat16()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            label = torch.zeros(2, *GRID).long()
            method.prototypes.update(means_of(features, label, CLASSES))
        found.append(method.prototypes.values[0])
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            run(stage_of(method, "stage1"), soft_batch()[0])
    torch.testing.assert_close(*found)


def test_the_teacher_follows_without_a_ramp():
    """0.9 of the old from the first step on; buffers outright."""
    method = build(ema=0.9)
    stage = stage_of(method, "stage1")
    stage.start()
    student, teacher = method.networks[0], method.teacher.module
    before = [p.clone() for p in teacher.parameters()]
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1)
        student.encoder[1].running_mean.fill_(3)
    stage.after_step(0)
    for old, new in zip(before, teacher.parameters(), strict=True):
        assert torch.allclose(new, old + 0.1, atol=1e-6)
    assert (teacher.encoder[1].running_mean == 3).all()
    stage.start()
    assert all(torch.equal(a, b) for a, b in zip(teacher.parameters(), student.parameters(), strict=True))


def test_stage_1_trains_its_network_alone():
    method = begun()
    run(stage_of(method, "stage1"), soft_batch()[0])
    assert fakes.gradients(method.networks[0])
    assert not fakes.gradients(method.teacher)


# Distillation


def labelled(seed=0):
    rng = torch.Generator().manual_seed(seed)
    label = torch.randint(CLASSES, (2, 32, 48), generator=rng)
    label[torch.rand(label.shape, generator=rng) < 0.3] = 255
    batch = fakes.batch()
    return batch._replace(target=batch.target._replace(layers={"pseudo_label": label})), label


@pytest.mark.parametrize(("form", "divisor"), [("corrected", "pixels"), ("release", "elements")])
def test_distillation_by_hand(form, divisor):
    method = begun(kd=form, kl_divisor=divisor, kd_weight=0.5)
    with torch.no_grad():
        method.networks[0].head.weight.mul_(0.3)
    batch, label = labelled()
    stage_of(method, "stage2").start()
    twin = copy.deepcopy(method.networks[1]).train()
    twin(batch.source.image)
    student = twin(batch.target.image).logits.double()
    with torch.no_grad():
        teacher = method.networks[0].eval()(batch.target.image).logits.double()
    t = teacher.softmax(1)
    if form == "corrected":
        distance = (t * (t.log() - student.log_softmax(1))).sum(1).mean()
    else:
        distance = (t * (t.log() - student.softmax(1))).mean()
    method.train()
    losses, _ = run(stage_of(method, "stage2"), batch)
    pseudo = F.cross_entropy(student, label[:, ::4, ::4], ignore_index=255)
    assert losses["target"].value.item() == pytest.approx((pseudo + 0.5 * distance).item(), rel=1e-5)
    assert losses["target"].parts["distillation"].item() == pytest.approx(distance.item(), rel=1e-4)
    assert (distance > 0) == (form == "corrected")
    assert set(losses["target"].outputs) == {"target"}
    assert fakes.gradients(method.networks[1])
    assert not fakes.gradients(method.networks[0])


def test_labels_move_with_the_view():
    method = begun()
    method.augment = RandAugment(operations=0, chance=1, cutout=0)
    batch, label = labelled()
    losses, others = run(stage_of(method, "stage2"), batch)
    panel = next(event for event in others if event.name == "pseudo_label")
    assert torch.equal(panel.picture(), label[:, ::4, ::4].flip(2))
    assert losses["target"].value.isfinite()


def test_labels_above_the_threshold_are_kept():
    probability = torch.tensor([[0.95, 0.05], [0.9501, 0.0499], [0.3, 0.7]]).T.reshape(1, 2, 1, 3)
    assert SureRule(0.95).labels(probability, torch.zeros(2)).flatten().tolist() == [255, 0, 255]


def test_labels_come_from_the_mean_with_the_mirror_image():
    method, (each, *_) = build(), fakes.whole_images(1)
    network = method.networks[0].eval()
    with torch.no_grad():
        straight, mirrored = (network(image).logits.softmax(1) for image in (each.image, each.image.flip(3)))
        found = method._probabilities(0, each)
    assert torch.allclose(found, (straight + mirrored.flip(3)) / 2, atol=1e-6)
    assert not torch.allclose(found, straight, atol=1e-3)


@pytest.mark.parametrize("number", [1, 2])
def test_each_network_labels_for_the_next(number):
    """Stage 1's for stage 2, stage 2's for stage 3."""
    method, images = build(label_threshold=0.3), fakes.whole_images(2)
    for stage in ("stage2", "stage3"):
        stage_of(method, stage).start()
    with torch.no_grad():
        for index, network in enumerate(method.networks):
            network.head.weight.copy_(network.head.weight.roll(index, 0))
    workspace = fakes.MemoryWorkspace(images)
    method.eval()
    with torch.no_grad():
        list(stage_of(method, f"labels{number + 1}").prepare(workspace))
        p = torch.cat([method._probabilities(number - 1, each) for each in images])
    confidence, label = F.interpolate(p, (32, 48), mode="bilinear").max(1)
    written = torch.stack([workspace.read("pseudo_label", each.names[0]) for each in images])
    assert torch.equal(written, label.masked_fill(confidence <= 0.3, 255))
    assert 0 < (written != 255).double().mean() < 1


# Stages, rates, predictors


def test_stages_share_the_steps_out():
    stages = build(iterations=10).stages()
    names = ["warmup", "prototypes", "stage1", "labels2", "stage2", "labels3", "stage3"]
    assert [stage.name for stage in stages] == names
    assert [stage.iterations for stage in stages] == [3, 0, 3, 0, 2, 0, 2]
    assert stages[0].domains == ("source",)
    assert stages[2].uncut == (SOFT,)
    given = build(iterations=10, warmup_share=0.5, distillations=1).stages()
    assert [stage.iterations for stage in given] == [5, 0, 3, 0, 2]
    assert [stage.name for stage in build(warmup_share=0, distillations=0).stages()] == ["prototypes", "stage1"]


class RatedSetup(fakes.FakeSetup):
    """Encoder and head in groups of their own, at the configured rates."""

    def segmenter(self, network, *heads):
        rates = {"encoder": self.optim.lr, "head": self.optim.lr * self.optim.head_lr_factor}
        groups = [Group(tuple(given), rates[role]) for role, given in network.parameter_groups().items()]
        return Optimizer("sgd", groups)


def test_rates_of_each_training():
    optim = OptimConfig(kind="sgd", lr=1e-4, head_lr_factor=1)
    method = build(setup=RatedSetup(iterations=12, optim=optim))
    for name, encoder, head in (("warmup", 2.5e-4, 2.5e-3), ("stage1", 1e-4, 1e-4), ("stage3", 6e-4, 6e-3)):
        groups = stage_of(method, name).optimizers["segmenter"].groups
        assert [group.lr for group in groups] == pytest.approx([encoder, head])


def test_a_later_student_may_begin_from_its_teacher():
    for start, same in (("weights", False), ("teacher", True)):
        method = build(distil_start=start)
        for name in ("stage2", "stage3"):
            with torch.no_grad():
                method.networks[-1].head.weight.add_(1)
            stage_of(method, name).start()
        first, second, third = (network.head.weight for network in method.networks)
        assert torch.equal(first, second)
        assert torch.equal(second, third) == same
        # Idempotent, and alone as well.
        stage_of(method, "stage3").start()
        stage_of(again := build(distil_start=start), "stage3").start()
        assert len(method.networks) == len(again.networks) == 3


def test_what_is_stored_grows_with_the_stages():
    """The state after stage 1 is the same, however many distillations follow."""
    alone, more = build(distillations=0), build(distillations=2)
    assert alone.state_dict().keys() == more.state_dict().keys()
    stage_of(more, "stage2").start()
    assert {key for key in more.state_dict() if key not in alone.state_dict()} == {
        f"networks.1.{key}" for key in alone.networks[0].state_dict()
    }


def test_the_network_that_was_begun_last_is_evaluated():
    method, (each, *_) = build().eval(), fakes.whole_images(1)
    with torch.no_grad():
        for number, network in enumerate(method._all):
            network.head.bias.fill_(10.0 * number)
    predictors = method.predictors()
    assert list(predictors) == ["student", "stage1", "stage2"]
    assert method.network_of_record() is method._all[2]
    with torch.no_grad():
        first, *_ = logits = [network.eval()(each.image).logits for network in method._all]
        assert all(torch.equal(predict(each), first) for predict in predictors.values())
        stage_of(method, "stage3").start()
        found = [predictors[name](each) for name in ("stage1", "stage2", "student")]
    assert all(torch.equal(a, b) for a, b in zip(found, logits, strict=True))


def test_students_have_weights_and_options_of_their_own():
    overrides = {"network.name": "fake", "network.options": {"width": 4}}
    values = {"distil_weights": "none", "distil_options": {"width": 6}, "distillations": 1}
    method = ProDA(ProDA.Config(**values), fake_setup(overrides=overrides))
    assert [network.feature_channels[0] for network in method.networks] == [4]
    stage_of(method, "stage2").start()
    assert [network.feature_channels[0] for network in method.networks] == [4, 6]
    overrides |= {"network.name": "lite0-proda", "network.options": {}}
    with pytest.raises(CheckpointError, match="nowhere"):
        ProDA(ProDA.Config(distil_weights="nowhere/simclr.pth"), fake_setup(overrides=overrides))


def test_prototypes_are_of_what_the_classifier_reads():
    method = ProDA(ProDA.Config(distillations=0), fake_setup(overrides={"network.name": "lite0"}))
    assert method.prototypes.values.shape == (CLASSES, 64)
    assert method.networks[0].feature_channels[-1] == 320


# Presets and the kit


def test_published_figures():
    presets = presets_of(rows.REGISTRY.methods.describe("proda"))
    published = {name: preset.published or {} for name, preset in presets.items() if "sam" not in name}
    gta5 = {name: row["gta5-cityscapes"]["mIoU19"] for name, row in published.items() if "gta5-cityscapes" in row}
    stages = {"stage1": 53.7, "stage2": 56.9}
    assert gta5 == stages | {f"release-{k}": v for k, v in stages.items()} | {"default": 57.5, "release": 57.5}
    synthia = {name: row["synthia-cityscapes"] for name, row in published.items() if "synthia-cityscapes" in row}
    assert synthia["synthia"] == {"mIoU16": 55.5, "mIoU13*": 62.0}
    assert synthia["synthia-stage1"] == {"mIoU16": 51.9, "mIoU13*": 58.5}


def test_quick_takes_the_data_sets_own_sizes():
    """Where the default states others: null means what a data set usually has."""
    sizes = [rows.row("proda", preset).config.data.target_size for preset in (None, "quick")]
    assert sizes == [Size(1024, 2048), rows.REGISTRY.datasets.get("cityscapes").train_size]
    assert sizes[0] != sizes[1]


def test_the_pass_declares_what_it_writes():
    """Six of the 19 classes in 3 bytes each, of each cell of 4 x 4 pixels."""
    assert stage_of(build(), "prototypes").pixel_bytes == 18 / 16
    assert stage_of(build(soft_classes=40), "prototypes").pixel_bytes == 57 / 16


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ({}, ("warmup", "stage1")),
        pytest.param(
            {"settings.distillations": 2, "settings.label_threshold": 0.0},
            ("warmup", "stage1", "stage2", "stage3"),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_it_passes_the_kit(values, names, tmp_path, request):
    whole = request.node.get_closest_marker("slow") is not None
    results = check_method("proda", fake_registry(), tmp_path, values, whole_runs=whole)
    assert not [result for result in results if result.failed]
    (steps,) = [result.message for result in results if result.name == "steps"]
    assert all(name in steps for name in names)
