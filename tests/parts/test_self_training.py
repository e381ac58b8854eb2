"""Pseudo-labels, their weight, margins and mixing, by hand."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from udabench.augment.photometry import StrongAugment
from udabench.data.whole import whole_images
from udabench.parts import self_training
from udabench.parts.frozen import Frozen
from udabench.parts.projector import Projector
from udabench.parts.self_training import Margins, PseudoLabels, claim_labels, mix_domains, within_margins
from udabench.size import Size

PLAIN = StrongAugment(jitter_chance=0, blur_chance=0)


def _logits() -> torch.Tensor:
    """Two images of 1 x 4 pixels: three sure pixels in the first, one in the second."""
    sure = torch.tensor([[[9.0, 9.0, 9.0, 0.0]], [[9.0, 0.1, 0.1, 0.1]]])
    return torch.stack([torch.zeros_like(sure), sure], 1)


def test_weight_is_the_share_of_sure_pixels():
    per_image = claim_labels(_logits(), (1, 4), 0.968, "image")
    assert per_image.weight[:, 0, 0].tolist() == [0.75, 0.25]
    assert per_image.share.tolist() == [0.75, 0.25]
    assert per_image.label.tolist() == [[[1, 1, 1, 0]], [[1, 1, 1, 1]]]
    assert claim_labels(_logits(), (1, 4), 0.968, "batch").weight.unique().tolist() == [0.5]


def test_the_threshold_itself_counts():
    even = claim_labels(torch.zeros(1, 2, 1, 1), (1, 1), threshold=0.5)
    assert even.share.item() == 1


def test_padding_has_no_weight():
    valid = torch.tensor([[[True, True, False, True]]] * 2)
    assert claim_labels(_logits(), (1, 4), valid=valid).weight[:, 0, 2].tolist() == [0, 0]


def _crops(box, size, flipped=False):
    image = torch.zeros(1, 3, *box[2:])
    return whole_images(image)._replace(box=torch.tensor([box]), size=size, flipped=torch.tensor([flipped]))


MARGINS = Margins(top=1, bottom=2, left=2, right=3)


def _kept(box, size, rule, flipped=False):
    """Rows and columns of the crop that count: what is kept is their product."""
    kept = within_margins(_crops(box, size, flipped), MARGINS, rule)[0]
    rows, columns = kept.any(1), kept.any(0)
    assert torch.equal(kept, rows.unsqueeze(1) & columns.unsqueeze(0))
    return rows.nonzero().flatten().tolist(), columns.nonzero().flatten().tolist()


@pytest.mark.parametrize("rule", ["crop", "image"])
def test_margins_of_whole_images(rule):
    assert _kept((0, 0, 6, 9), Size(6, 9), rule) == ([1, 2, 3], [2, 3, 4, 5])
    assert _kept((0, 0, 6, 9), Size(6, 9), rule, flipped=True) == ([1, 2, 3], [3, 4, 5, 6])


def test_a_crop_that_is_not_as_high_keeps_its_rows_by_the_crops_rule():
    assert _kept((0, 0, 6, 9), Size(8, 9), "crop") == ([0, 1, 2, 3, 4, 5], [2, 3, 4, 5])
    assert _kept((0, 5, 6, 4), Size(6, 9), "crop") == ([1, 2, 3], [0, 1, 2, 3])


def test_by_the_images_rule_a_crop_loses_what_lies_on_the_border():
    # Rows 5 to 8 of 10: 8 and 9 are ignored. Columns 1 to 5 of 20: 0 and 1 are.
    assert _kept((5, 1, 4, 5), Size(10, 20), "image") == ([0, 1, 2], [1, 2, 3, 4])
    assert _kept((5, 1, 4, 5), Size(10, 20), "image", flipped=True) == ([0, 1, 2], [0, 1, 2, 3])
    assert _kept((3, 6, 4, 5), Size(10, 20), "image") == ([0, 1, 2, 3], [0, 1, 2, 3, 4])
    assert _kept((3, 15, 4, 5), Size(10, 20), "image", flipped=True) == ([0, 1, 2, 3], [3, 4])


def test_each_crop_of_a_batch_has_its_own_margins():
    crops = whole_images(torch.zeros(2, 3, 4, 5))._replace(
        size=Size(10, 20), box=torch.tensor([[0, 0, 4, 5], [5, 1, 4, 5]]), flipped=torch.tensor([False, True])
    )
    kept = within_margins(crops, MARGINS, "image")
    assert kept.shape == (2, 4, 5)
    assert kept.sum((1, 2)).tolist() == [3 * 3, 3 * 4]


def test_margins_are_those_of_the_image_as_it_was_scaled():
    # Of the same crop of 4 rows: all of an image of 4 rows, the end of one of 6, the beginning of one of 10.
    crops = whole_images(torch.zeros(3, 3, 4, 9))._replace(
        box=torch.tensor([[0, 0, 4, 9], [2, 0, 4, 9], [0, 0, 4, 9]]), scaled=torch.tensor([[4, 9], [6, 9], [10, 9]])
    )
    assert within_margins(crops, MARGINS, "crop").any(2).sum(1).tolist() == [1, 4, 4]
    assert within_margins(crops, MARGINS, "image").any(2).sum(1).tolist() == [1, 2, 3]


def _domains():
    source = torch.tensor([[0, 1, 2, 255]]).repeat_interleave(2, 1).expand(2, 4, 8)
    samples = SimpleNamespace(image=torch.ones(2, 3, 4, 8), label=source)
    target = SimpleNamespace(image=torch.zeros(2, 3, 4, 8), label=None)
    weight = torch.full((2, 4, 8), 0.25)
    weight[:, 0] = 0
    pseudo = PseudoLabels(torch.full((2, 4, 8), 7), weight, weight, torch.tensor([0.25, 0.25]))
    return samples, target, pseudo


def test_pasted_pixels_weigh_one_also_in_ignored_rows():
    source, target, pseudo = _domains()
    mixed = mix_domains(source, target, pseudo, PLAIN, torch.Generator().manual_seed(0))
    assert mixed.mask.any()
    assert not mixed.mask.all()
    assert mixed.weight[mixed.mask].unique().tolist() == [1]
    assert mixed.weight[:, 0][~mixed.mask[:, 0]].unique().tolist() == [0]
    assert mixed.weight[:, 1:][~mixed.mask[:, 1:]].unique().tolist() == [0.25]
    assert torch.equal(mixed.label[mixed.mask], source.label[mixed.mask])
    assert mixed.label[~mixed.mask].unique().tolist() == [7]
    assert torch.equal(mixed.image[:, 0] == 1, mixed.mask)


def test_source_images_are_spread_over_more_target_images():
    source, target, pseudo = _domains()
    source.image[1] = 0.5
    target.image = torch.zeros(3, 3, 4, 8)
    pseudo = PseudoLabels(*(t[[0, 0, 0]] for t in pseudo))
    mixed = mix_domains(source, target, pseudo, PLAIN, torch.Generator().manual_seed(0))
    assert [mixed.image[i].max().item() for i in range(3)] == [1, 1, 0.5]


def test_the_whole_mixed_image_is_augmented():
    mixed = mix_domains(*_domains(), lambda image, rng: image + 3, torch.Generator().manual_seed(0))
    assert torch.equal(mixed.image[:, 0], 3 + mixed.mask.float())


def test_classes_are_drawn_by_image_or_by_batch():
    source, target, pseudo = _domains()
    source.label = source.label.clone()
    source.label[0] = 5  # one value of its own, which the image alone always pastes

    def pasted(scope):
        rng = torch.Generator().manual_seed(0)
        return {bool(mix_domains(source, target, pseudo, PLAIN, rng, scope).mask[0].all()) for _ in range(20)}

    assert pasted("image") == {True}
    assert pasted("batch") == {True, False}


def test_projector_keeps_the_resolution_and_is_not_negative():
    projector = Projector(5, 16)
    out = projector(torch.randn(2, 5, 3, 4))
    assert out.shape == (2, 16, 3, 4)
    assert out.min() >= 0
    assert [type(m) for m in projector] == [nn.Conv2d, nn.BatchNorm2d, nn.ReLU] * 2


def test_frozen_modules_are_not_stored():
    class Owner(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.Linear(1, 1)
            self.frozen = Frozen(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9)))

    owner = Owner().train()
    assert list(owner.state_dict()) == ["own.weight", "own.bias"]
    image = torch.rand(1, 2, requires_grad=True)
    first = owner.frozen(image)
    assert not first.requires_grad
    assert torch.equal(first, owner.frozen(image))
    with pytest.raises(AttributeError):
        owner.frozen(image, "no_such_method")


def test_the_share_of_the_batch_is_that_of_all_ranks(monkeypatch):
    """The other rank's images are sure of 1/4 and 0 of their pixels: with 3/4 and 1/4 here, 5/16 of all."""
    monkeypatch.setattr(self_training, "gather", lambda share: torch.cat([share, torch.tensor([0.25, 0.0])]))
    assert claim_labels(_logits(), (1, 4), 0.968, "batch").weight.unique().tolist() == [0.3125]
    assert claim_labels(_logits(), (1, 4), 0.968, "image").weight[:, 0, 0].tolist() == [0.75, 0.25]
