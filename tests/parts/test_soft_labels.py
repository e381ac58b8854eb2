"""Soft labels as they are stored."""

import torch

from udabench.parts.soft_labels import pack, unpack


def test_what_is_stored_comes_back_up_to_what_was_left_out():
    soft = torch.rand(6, 8, 9).pow(4)
    soft /= soft.sum(0)
    for kept in (1, 3, 6, 9):
        packed = pack(soft, kept)
        assert packed.dtype == torch.uint8
        assert packed.shape == (2 * min(kept, 6), 8, 9)
        back = unpack(packed[None], 6)[0]
        assert (back.sum(0) - 1).abs().max() < 1e-6
        left_out = 1 - soft.topk(min(kept, 6), 0).values.sum(0)
        # Shares in 1/255, then divided by a sum that lacks what was left out.
        assert ((back - soft).abs() <= left_out + (kept + 1) * 0.5 / 255 + 1e-6).all()


def test_by_hand():
    """0.6, 0.3, 0.1 in 1/255: 153, 76 (76.5 rounds half to even), 26 (25.5); two are kept: 153 and 76 of 229."""
    packed = pack(torch.tensor([0.1, 0.6, 0.3]).view(3, 1, 1), 2)
    assert packed.flatten().tolist() == [1, 2, 153, 76]
    assert torch.allclose(unpack(packed[None], 3).flatten(), torch.tensor([0, 153 / 229, 76 / 229]))


def test_nothing_stored_is_no_claim():
    assert unpack(torch.zeros(1, 4, 2, 2, dtype=torch.uint8), 3).sum() == 0
