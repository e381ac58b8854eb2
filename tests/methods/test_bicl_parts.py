"""BiCL's equations: by hand with two classes, and against loops over pixels."""

import math

import pytest
import torch
from torch.nn import functional as F
from udabench_bicl.config import BiCLConfig
from udabench_bicl.labels import DomainBias, dynamic_labels, hybrid_labels, make_labels
from udabench_bicl.losses import base_losses, contrast_loss, sure_labels
from udabench_bicl.schedule import RoundSchedule

from udabench.method import Samples
from udabench.network import Output
from udabench.parts.prototypes import Prototypes, cell_counts, class_means, cosine_to
from udabench.schedules import PolySchedule
from udabench.size import Size

SOURCE = torch.tensor([[1.0, 0], [3, 0], [0, 2]], dtype=torch.float64).T[None, :, None]
"""Features (1, 0), (3, 0) and (0, 2) of three pixels in a row, 1 2 1 3."""
TARGET = torch.tensor([[3.0, 4], [0, 1], [1, 0]], dtype=torch.float64).T[None, :, None]
SOURCE_LABEL = torch.tensor([[[0, 0, 1]]])
COSINES = torch.tensor([[0.6, 0.0, 1.0], [0.8, 1.0, 0.0]], dtype=torch.float64)[None]
"""Of the target's pixels to the source's prototypes (2, 0) and (0, 2)."""


def settings(**values):
    return BiCLConfig(**values)


def rho(features=SOURCE, label=SOURCE_LABEL, classes=2):
    return class_means(features, cell_counts(label, classes, tuple(features.shape[2:])))


def contrast(config, features, label, prototypes, classes=2):
    counts = cell_counts(label, classes, tuple(features.shape[2:]))
    return contrast_loss(config, cosine_to(features, prototypes.means), counts, prototypes.present)


def samples(image=(2, 3, 4, 4), label=None, valid=None):
    image = torch.zeros(image)
    size, count = Size(*image.shape[2:]), len(image)
    names, box = ("a",) * count, torch.tensor([[0, 0, *size]] * count)
    return Samples(image, label, names, valid, box, size, torch.zeros(count, dtype=torch.bool), {})


# By hand


def test_equation_1_prototypes():
    means, present = rho()
    assert means[0].tolist() == [[2, 0], [0, 2]]
    assert present.all()


def test_equation_2_forward_term():
    torch.testing.assert_close(cosine_to(TARGET, rho().means), COSINES)
    label = torch.tensor([[[0, 1, 255]]])
    # tau 0.5: logits (1.2, 1.6) with class 0, and (0, 2) with class 1.
    expected = (math.log1p(math.exp(0.4)) + math.log1p(math.exp(-2))) / 2
    assert contrast(settings(temperature=0.5), TARGET, label, rho()).item() == pytest.approx(expected, abs=1e-12)


def test_equation_3_backward_term():
    # One labelled pixel each: rho_T = (3, 4) and (1, 0). Class 0 of (1, 0), (3, 0) and (0, 2): 0.6, 0.6, 0.8; class 1:
    # 1, 1, 0.
    label = torch.tensor([[[0, 255, 1]]])
    prototypes = rho(TARGET, label)
    logs = [math.log1p(math.exp(0.8)), math.log1p(math.exp(0.8)), math.log1p(math.exp(1.6))]
    value = contrast(settings(temperature=0.5), SOURCE, SOURCE_LABEL, prototypes)
    assert value.item() == pytest.approx(sum(logs) / 3, abs=1e-12)


def bias(source, target, momentum=0.9):
    """Running prototypes of one channel, two classes; None: never shown."""
    running = DomainBias(2, 1, momentum).double()

    def prototypes(values):
        means = torch.tensor([[value or 0.0] for value in values], dtype=torch.float64)[None]
        return Prototypes(means, torch.tensor([[value is not None for value in values]]))

    running.update(prototypes(source), prototypes(target))
    return running, prototypes


def test_equations_4_to_6_bias():
    running, prototypes = bias([2.0, 4.0], [5.0, None])
    assert running.bias[:, 0].tolist() == [3, 0]
    running.update(prototypes([4.0, 8.0]), prototypes([5.0, 6.0]))
    # mu_S = 0.9 * 2 + 0.1 * 4 and 0.9 * 4 + 0.1 * 8; mu_T = 5 and, for the first time, 6.
    torch.testing.assert_close(running.bias[:, 0], torch.tensor([5 - 2.2, 6 - 4.4], dtype=torch.float64))


def test_equation_7_moves_the_instance_prototypes():
    """Class 0 at (2, 0) with xi = (0, 2) lies at (2, 2): the cosine of (3, 4) rises from 0.6 to 0.7 * sqrt 2."""
    running = DomainBias(2, 2, 0.9).double()
    other = Prototypes(torch.tensor([[[1.0, 1], [0, 1]]], dtype=torch.float64), torch.ones(1, 2, dtype=torch.bool))
    running.update(other, other._replace(means=other.means + torch.tensor([[0.0, 2], [0, 0]])))
    nothing = torch.full((1, 1, 3), 255)
    for threshold, third in ((0.7, 0), (0.72, 255)):
        labels = make_labels(settings(threshold=threshold), TARGET, rho(), running, nothing)
        assert labels.dynamic.tolist() == [[[1, 1, 0]]]
        # (3, 4): 0.98995 to class 0 and 0.8 to class 1; (0, 1): 0.7071 and 1; (1, 0): 0.7071 and 0.
        assert labels.calibrated.tolist() == [[[0, 1, third]]]


@pytest.mark.parametrize(
    ("threshold", "expected"), [(0.7, [1, 1, 0]), (0.8, [255, 1, 0]), (1.0, [255] * 3), (-1.0, [1, 1, 0])]
)
def test_equations_8_and_9_dynamic_labels(threshold, expected):
    assert dynamic_labels(COSINES, torch.tensor([[True, True]]), threshold).tolist() == [expected]


def test_an_absent_class_is_never_transferred():
    assert dynamic_labels(COSINES, torch.tensor([[True, False]]), -1.0).tolist() == [[0, 0, 0]]
    assert dynamic_labels(COSINES, torch.tensor([[False, False]]), -1.0).tolist() == [[255] * 3]


def test_equation_10_hybrid_labels():
    dynamic, static = torch.tensor([255, 3, 255, 3]), torch.tensor([1, 1, 255, 255])
    assert hybrid_labels(dynamic, static).tolist() == [1, 3, 255, 3]


def test_equation_11_base_losses():
    """Two classes with logits 0 and log 3: probabilities 1/4 and 3/4."""
    logits = torch.tensor([0.0, math.log(3)]).view(1, 2, 1, 1).expand(2, 2, 4, 4)
    outputs = {"source": Output(logits, ()), "target": Output(2 * logits, ())}  # the target's: 1/10 and 9/10
    label = torch.zeros(2, 4, 4).long()
    config = settings(fc_weight=0, bc_weight=0)
    terms = base_losses(config, outputs, samples(label=label), samples(), torch.ones(2, 4, 4).long())
    entropies = [-(p * math.log(p) + (1 - p) * math.log(1 - p)) for p in (1 / 4, 1 / 10)]
    expected = [math.log(4), -math.log(0.9), *entropies]
    assert [term.item() for term in terms.values()] == pytest.approx(expected, rel=1e-6)


def test_a_term_without_a_weight_is_not_made():
    logits = torch.zeros(2, 2, 4, 4)
    outputs = {"source": Output(logits, ()), "target": Output(logits, ())}
    config = settings(source_entropy_weight=0, target_weight=0)
    label = torch.zeros(2, 4, 4).long()
    assert list(base_losses(config, outputs, samples(label=label), samples(), label)) == ["source", "target_entropy"]


# The literal form


def literal_contrast(config, features, label, others, other_label, classes):
    """Eq 1 and 2 pixel by pixel, on features upsampled to the label's size, for each pair."""
    values = []
    size = label.shape[1:]
    large, other_large = (F.interpolate(each, size, mode="nearest") for each in (features, others))
    for image in range(len(label)):
        means = {
            c: other_large[image][:, other_label[image] == c].mean(1)
            for c in range(classes)
            if (other_label[image] == c).any()
        }
        losses = []
        for row in range(size[0]):
            for column in range(size[1]):
                c = int(label[image, row, column])
                if c not in means:
                    continue
                feature = large[image, :, row, column]
                cosine = {
                    k: F.cosine_similarity(feature, mean, dim=0) / config.temperature for k, mean in means.items()
                }
                bottom = sum(value.exp() for value in cosine.values())
                if config.absent_in_denominator == "minus_one":
                    bottom = bottom + (classes - len(means)) * math.exp(-1 / config.temperature)
                losses.append(bottom.log() - cosine[c])
        values.append(torch.stack(losses).mean() if losses else features.new_zeros(()))
    return torch.stack(values).mean()


@pytest.mark.parametrize("absent", ["drop", "minus_one"])
def test_both_terms_are_those_of_the_literal_form(absent):
    """Five classes: 4 nowhere, 3 in the source alone, 2 in the target alone; the second pair has none in common."""
    rng = torch.Generator().manual_seed(0)
    source, target = (torch.randn(2, 6, 4, 5, dtype=torch.float64, generator=rng) for _ in range(2))
    source_label = torch.tensor([0, 1, 3, 255])[torch.randint(4, (2, 11, 13), generator=rng)]
    target_label = torch.tensor([0, 1, 2, 255])[torch.randint(4, (2, 11, 13), generator=rng)]
    source_label[1], target_label[1] = 3, 2
    config = settings(absent_in_denominator=absent)
    inputs = [source.requires_grad_(), target.requires_grad_()]
    near, far = rho(source, source_label, 5), rho(target, target_label, 5)
    for own, literal in (
        (
            contrast(config, target, target_label, near, 5),
            literal_contrast(config, target, target_label, source, source_label, 5),
        ),
        (
            contrast(config, source, source_label, far, 5),
            literal_contrast(config, source, source_label, target, target_label, 5),
        ),
    ):
        torch.testing.assert_close(own, literal)
        mine = torch.autograd.grad(own, inputs, retain_graph=True)
        theirs = torch.autograd.grad(literal, inputs, retain_graph=True)
        for one, other in zip(mine, theirs, strict=True):
            torch.testing.assert_close(one, other)
            # Through the prototypes too: both domains' features have a gradient from either term.
            assert one.abs().sum() > 0


def test_the_ways_of_absent_classes_differ():
    label = torch.zeros(1, 1, 3).long()
    alone = rho(label=torch.zeros(1, 1, 3).long())
    assert contrast(settings(), TARGET, label, alone).item() == 0
    assert contrast(settings(absent_in_denominator="minus_one"), TARGET, label, alone).item() > 0


def test_nothing_in_common_costs_nothing_and_gives_no_nan():
    features = TARGET.clone().requires_grad_()
    value = contrast(settings(), features, torch.full((1, 1, 3), 255), rho(label=torch.full((1, 1, 3), 255)))
    value.backward()
    assert value.item() == 0
    assert not features.grad.any()


# Labels


def scene(classes=6, seed=0):
    rng = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 8, generator=rng)

    def features(shift):
        which = torch.randint(classes, (2, 5, 6), generator=rng)
        noise = 0.6 * torch.randn(2, 8, 5, 6, generator=rng)
        return centres[which].permute(0, 3, 1, 2) + noise + shift, which

    source, label = features(0)
    target, _ = features(0.5)
    static = torch.randint(classes, (2, 10, 12), generator=rng)
    static[torch.rand(static.shape, generator=rng) < 0.6] = 255
    return source, label.repeat_interleave(2, 1).repeat_interleave(2, 2), target, static


def running(source, target, classes=6):
    bias = DomainBias(classes, 8, 0.9)
    bias.update(source, target)
    return bias


def test_equal_means_calibrate_nothing():
    source, label, target, static = scene()
    prototypes = rho(source, label, 6)
    labels = make_labels(settings(threshold=0.5), target, prototypes, running(prototypes, prototypes), static)
    assert torch.equal(labels.calibrated, labels.dynamic)
    moved = running(prototypes, rho(target, static, 6))
    labels = make_labels(settings(threshold=0.5), target, prototypes, moved, static)
    assert not torch.equal(labels.calibrated, labels.dynamic)


@pytest.mark.parametrize("calibrate", [True, False])
def test_hybrid_labels_never_override_dynamic_ones(calibrate):
    source, label, target, static = scene()
    prototypes = rho(source, label, 6)
    bias = running(prototypes, rho(target, static, 6))
    labels = make_labels(settings(threshold=0.6, calibrate=calibrate), target, prototypes, bias, static)
    dynamic = labels.calibrated if calibrate else labels.dynamic
    claimed = dynamic != 255
    assert 0 < claimed.double().mean() < 1
    assert torch.equal(labels.hybrid[claimed], dynamic[claimed])
    assert torch.equal(labels.hybrid[~claimed], static[~claimed])


def test_density_never_rises_with_the_threshold():
    source, label, target, static = scene()
    prototypes = rho(source, label, 6)
    bias = running(prototypes, rho(target, static, 6))
    densities = [
        (make_labels(settings(threshold=t / 20), target, prototypes, bias, static).calibrated != 255).double().mean()
        for t in range(-20, 21)
    ]
    assert densities == sorted(densities, reverse=True)
    assert densities[0] == 1
    assert densities[-1] == 0


@pytest.mark.parametrize("kind", ["static", "dynamic", "hybrid"])
def test_labels_are_chosen_for_either_loss(kind):
    source, label, target, static = scene()
    prototypes = rho(source, label, 6)
    bias = running(prototypes, rho(target, static, 6))
    labels = make_labels(
        settings(contrast_labels=kind, segment_labels="static", threshold=0.6), target, prototypes, bias, static
    )
    expected = {"static": static, "dynamic": labels.calibrated, "hybrid": labels.hybrid}[kind]
    assert torch.equal(labels.chosen, expected)
    assert torch.equal(labels.segment, static)


def test_running_prototypes_stand_in_for_the_instance():
    """Fig 7: with mu_S the labels are the same whichever source image the target is paired with."""
    source, label, target, static = scene()
    prototypes = rho(source, label, 6)
    bias = running(prototypes, rho(target, static, 6))
    swapped = Prototypes(prototypes.means.flip(0), prototypes.present.flip(0))
    for kind, same in (("running", True), ("instance", False)):
        config = settings(label_prototypes=kind, threshold=0.3)
        one, other = (make_labels(config, target, each, bias, static).calibrated for each in (prototypes, swapped))
        assert torch.equal(one, other) is same


def test_padding_gets_no_label():
    source, label, target, static = scene()
    valid = torch.ones(static.shape, dtype=torch.bool)
    valid[:, :3] = False
    static = static.masked_fill(~valid, 255)
    prototypes = rho(source, label, 6)
    labels = make_labels(settings(threshold=-1), target, prototypes, DomainBias(6, 8, 0.9), static, valid)
    assert (labels.hybrid[~valid] == 255).all()
    assert (labels.hybrid[valid] != 255).all()


def test_a_teachers_sure_labels():
    logits = torch.tensor([0.0, math.log(9)]).view(1, 2, 1, 1).repeat(1, 1, 2, 2)  # 0.9
    logits[:, :, 0] *= 2  # 81 / 82
    valid = torch.ones(1, 2, 2, dtype=torch.bool)
    valid[0, 0, 0] = False
    label = sure_labels(logits, samples((1, 3, 2, 2), valid=valid), 0.95)
    assert label.tolist() == [[[255, 1], [255, 255]]]
    # What just reaches the threshold is kept.
    assert sure_labels(torch.zeros(1, 2, 1, 1), samples((1, 3, 1, 1)), 0.5).tolist() == [[[0]]]


# Values


def test_a_rounds_schedule():
    """DASS code: a poly decay over 12,000 of 10,000 steps, halved with every round."""
    schedule = RoundSchedule(10_000, 0.5, PolySchedule(power=0.9, horizon=12_000))
    assert schedule.factor(0, 100_000) == 1
    assert schedule.factor(9_999, 100_000) == pytest.approx((1 - 9_999 / 12_000) ** 0.9)
    assert schedule.factor(25_000, 100_000) == pytest.approx(0.25 * (1 - 5_000 / 12_000) ** 0.9)


def test_shares_that_leave_nothing_are_named():
    with pytest.raises(ValueError, match=r"warmup_share 0\.5 and distil_share 0\.5 leave nothing"):
        settings(warmup_share=0.5, distil_share=0.5)


def test_no_loss_at_all_is_named():
    none = dict.fromkeys(
        ("source_weight", "target_weight", "source_entropy_weight", "target_entropy_weight", "fc_weight", "bc_weight"),
        0.0,
    )
    with pytest.raises(ValueError, match="are all 0: nothing would be learnt"):
        settings(**none)
