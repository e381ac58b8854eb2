"""ClassMix: how many label values are copied, and which."""

import pytest
import torch

from udabench.augment import classmix
from udabench.augment.classmix import class_mask, paste


def _values(label, mask):
    return [set(one[m].tolist()) for one, m in zip(label, mask, strict=True)]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("values", "copied"), [((3,), 1), ((3, 255), 1), ((0, 5, 255), 2), (tuple(range(7)), 4)])
def test_half_of_the_values_of_an_image_rounded_up(values, copied, seed):
    label = torch.tensor(values).repeat(2, 6, 1)
    mask = class_mask(label, torch.Generator().manual_seed(seed))
    for one, m, chosen in zip(label, mask, _values(label, mask), strict=True):
        assert len(chosen) == copied
        # Whole classes: nothing of a chosen value is left out.
        assert torch.equal(m, torch.isin(one, torch.tensor(sorted(chosen))))


def test_values_of_the_whole_batch():
    label = torch.stack([torch.zeros(2, 4), torch.arange(1, 9).view(2, 4)]).long()
    sizes = set()
    for seed in range(20):
        mask = class_mask(label, torch.Generator().manual_seed(seed), "batch")
        chosen = _values(label, mask)
        assert 4 <= len(chosen[1]) <= 5  # five of nine values, of which one lies in the other image
        sizes.add(len(chosen[0]))
    assert sizes == {0, 1}


def test_every_value_is_as_likely():
    label = torch.arange(4).view(1, 2, 2)
    rng = torch.Generator().manual_seed(0)
    hits = sum(class_mask(label, rng)[0].float() for _ in range(2000)) / 2000
    assert hits.flatten().tolist() == pytest.approx([0.5] * 4, abs=0.05)


def test_paste():
    mask = torch.tensor([[[True, False]]])
    assert paste(mask, torch.ones(1, 1, 2), torch.zeros(1, 1, 2)).tolist() == [[[1, 0]]]
    assert paste(mask, torch.ones(1, 3, 1, 2), torch.zeros(1, 3, 1, 2))[0, :, 0].tolist() == [[1, 0]] * 3


@pytest.mark.parametrize("scope", ["image", "batch"])
def test_ranks_choose_what_the_whole_batch_would(scope, monkeypatch):
    label = torch.randint(9, (4, 3, 5), generator=torch.Generator().manual_seed(2))
    label[:2] += 9  # no value is on both ranks
    whole = class_mask(label, torch.Generator().manual_seed(0), scope)
    monkeypatch.setattr(classmix, "world_size", lambda: 2)
    for rows, others in ((slice(0, 2), label[2:]), (slice(2, 4), label[:2])):
        there = sum(one.flatten().bincount(minlength=256) > 0 for one in others.unbind()).int()
        monkeypatch.setattr(classmix, "own", lambda keys, rows=rows: keys[rows])
        monkeypatch.setattr(classmix, "total", lambda counts, there=there: counts + there)
        assert torch.equal(class_mask(label[rows], torch.Generator().manual_seed(0), scope), whole[rows])
