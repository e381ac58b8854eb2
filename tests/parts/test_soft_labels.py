"""Soft labels: what is kept of them, to which tolerance, and where a crop finds its own."""

import pytest
import torch
from torch.nn import functional as F

from udabench.data.crop import Window, cut_layer
from udabench.data.whole import whole_images
from udabench.errors import DataError
from udabench.parts.soft_labels import BYTES, cut, pack, unpack
from udabench.size import Size


def probabilities(classes=19, scale=3.0, seed=0, grid=(6, 9)):
    rng = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(classes, *grid, generator=rng, dtype=torch.float64)).softmax(0)


@pytest.mark.parametrize("scale", [0.1, 3.0, 12.0])
@pytest.mark.parametrize("kept", [1, 4, 19])
def test_tolerance(kept, scale):
    p = probabilities(scale=scale)
    packed = pack(p, kept)
    assert (packed.dtype, packed.shape) == (torch.uint8, (BYTES * kept, 6, 9))
    restored = unpack(packed[None], 19)[0].double()
    rank = p.argsort(0, descending=True).argsort(0)
    off = (restored - p).abs()
    top = rank < kept
    assert (off <= torch.where(top, p * 2**-11 + 3.1e-8, torch.inf)).all()
    left = 1 - p.masked_fill(~top, 0).sum(0)
    assert (off.masked_fill(top, 0) <= left + 2e-3).all()
    assert (left < 1 - kept / 19 + 1e-12).all()
    assert torch.allclose(restored.sum(0), torch.ones(6, 9).double(), atol=1e-3)


def test_by_hand():
    """(0.5, 0.25, 0.125, 0.125), two kept: exact in half precision, the others share 0.25."""
    p = torch.tensor([0.125, 0.5, 0.25, 0.125]).view(4, 1, 1)
    packed = pack(p, 2)
    # 0.5 and 0.25 as half-precision numbers: 0x3800, 0x3400; first the low bytes.
    assert packed.flatten().tolist() == [1, 2, 0x00, 0x00, 0x38, 0x34]
    assert unpack(packed[None], 4).flatten().tolist() == [0.125, 0.5, 0.25, 0.125]


def test_a_batch_without_images():
    assert unpack(torch.zeros(0, 6, 4, 4, dtype=torch.uint8), 5).shape == (0, 5, 4, 4)


def test_labels_of_other_classes_are_named():
    packed = pack(probabilities(19), 4)[None]
    with pytest.raises(DataError, match="do not belong to 11 classes"):
        unpack(packed, 11)
    with pytest.raises(DataError, match="float32"):
        unpack(packed.float(), 19)


# Crops


def crop_of(whole, window, flipped, scaled=None):
    """Samples of one crop of an image of 24 x 36."""
    size = (window.height, window.width)
    samples = whole_images(torch.zeros(1, 3, *size))
    return samples._replace(
        box=torch.tensor([window]),
        size=Size(*whole),
        flipped=torch.tensor([flipped]),
        scaled=None if scaled is None else torch.tensor([scaled]),
    )


@pytest.mark.parametrize("flipped", [False, True])
def test_a_crop_of_a_map_is_the_crop_of_its_upsampling(flipped):
    """Torch's bilinear upsampling of the whole map, then the crop: the same values."""
    coarse = torch.rand(1, 3, 4, 6)
    fine = F.interpolate(coarse, (24, 36), mode="bilinear", align_corners=False)
    window = Window(5, 7, 12, 16)
    mine = cut(coarse, crop_of((24, 36), window, flipped), Size(12, 16))
    torch.testing.assert_close(mine, cut_layer(fine, window, flipped), rtol=0, atol=1e-5)


def test_a_coarser_grid_of_the_crop():
    """On half the crop's grid: a cell's centre lies between four pixels, in the middle of a linear map."""
    ramp = torch.arange(36.0).expand(1, 1, 24, 36)
    window = Window(4, 10, 12, 16)
    mine = cut(ramp, crop_of((24, 36), window, False), Size(6, 8))
    assert torch.allclose(mine[0, 0, 0], torch.arange(10.5, 26, 2), atol=1e-4)


def test_a_scaled_image_has_the_same_map():
    """The image scaled to twice its size, the crop twice as far and as large: the same part."""
    coarse = torch.rand(1, 2, 4, 6)
    mine = cut(coarse, crop_of((24, 36), Window(5, 7, 12, 16), False), Size(6, 8))
    scaled = cut(coarse, crop_of((24, 36), Window(10, 14, 24, 32), False, scaled=(48, 72)), Size(6, 8))
    torch.testing.assert_close(mine, scaled, rtol=0, atol=1e-6)
