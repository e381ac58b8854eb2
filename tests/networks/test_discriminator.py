"""Discriminators against float64 arithmetic; their patches, grids and initial values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from arithmetic import convolve, halve, instance_norm, relu, values

from udabench.networks.discriminator import (
    Discriminator,
    FullyConvolutionalDiscriminator,
    MultiScaleDiscriminator,
    PatchDiscriminator,
)
from udabench.size import Size


def small_patches() -> PatchDiscriminator:
    return PatchDiscriminator(3, width=2, layers=2)


def patch_by_hand(module: PatchDiscriminator, x: np.ndarray) -> list[np.ndarray]:
    """4x4 convolutions of strides 2, 2, 1, 1 and padding 2; norms on the middle two."""
    given = values(module)
    maps = [relu(convolve(x, next(given), next(given), 2, 2), 0.2)]
    for stride in (2, 1):
        maps.append(relu(instance_norm(convolve(maps[-1], next(given), next(given), stride, 2)), 0.2))
    return [*maps, convolve(maps[-1], next(given), next(given), 1, 2)]


def test_the_fully_convolutional_one_by_hand() -> None:
    module = FullyConvolutionalDiscriminator(2, width=2)
    x = torch.rand(2, 2, 64, 32)
    verdict = module(x)
    maps, given = [x[1].double().numpy()], values(module)
    for layer in range(5):
        out = convolve(maps[-1], next(given), next(given), 2, 1)
        maps.append(out if layer == 4 else relu(out, 0.2))
    (scores,), (features,) = verdict
    assert scores.shape == (2, 1, 2, 1)
    np.testing.assert_allclose(scores[1].detach(), maps[-1], atol=1e-6)
    for feature, expected in zip(features, maps[1:-1], strict=True):
        np.testing.assert_allclose(feature[1].detach(), expected, atol=1e-6)


def test_its_layers_are_those_of_the_paper() -> None:
    """AdaptSegNet section 5: channels 64, 128, 256, 512, 1, kernels 4x4, stride 2; weights U(-k, k), k^2 = 1/fan-in."""
    convolutions = FullyConvolutionalDiscriminator(19).convolutions()
    assert [c.out_channels for c in convolutions] == [64, 128, 256, 512, 1]
    assert {(c.kernel_size, c.stride, c.padding) for c in convolutions} == {((4, 4), (2, 2), (1, 1))}
    weight, bound = convolutions[3].weight, (256 * 16) ** -0.5
    assert weight.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.01)


def test_patches_by_hand() -> None:
    module, x = small_patches(), torch.rand(1, 3, 9, 12)
    (scores,), (features,) = module(x)
    expected = patch_by_hand(module, x[0].double().numpy())
    assert len(features) == 3
    for made, wanted in zip([*features, scores], expected, strict=True):
        np.testing.assert_allclose(made[0].detach(), wanted, atol=2e-5)


def test_patch_layers_are_those_of_the_paper() -> None:
    """pix2pixHD: 64-128-256 of stride 2, 512 and 1 of stride 1, padding 2; weights N(0, 0.02)."""
    convolutions = PatchDiscriminator(22).convolutions()
    assert [(c.out_channels, c.stride[0], c.padding[0]) for c in convolutions] == [
        (64, 2, 2), (128, 2, 2), (256, 2, 2), (512, 1, 2), (1, 1, 2),
    ]  # fmt: skip
    assert convolutions[3].weight.std().item() == pytest.approx(0.02, rel=0.01)
    assert convolutions[3].weight.mean().item() == pytest.approx(0, abs=1e-4)
    assert max(c.out_channels for c in PatchDiscriminator(3, width=8, layers=5).convolutions()) == 64


@pytest.mark.parametrize(("layers", "side"), [(1, 16), (2, 34), (3, 70)])
def test_a_score_sees_a_patch_of_the_known_side(layers: int, side: int) -> None:
    """Of the linear part: norms look at the whole map."""
    module = PatchDiscriminator(1, width=1, layers=layers)
    for part in module.modules():
        if isinstance(part, torch.nn.InstanceNorm2d):
            part.forward = lambda x: x
        elif isinstance(part, torch.nn.Conv2d):
            torch.nn.init.ones_(part.weight)
    x = torch.rand(1, 1, 160, 160, requires_grad=True)
    scores = module(x).scores[0]
    scores[0, 0, scores.shape[2] // 2, scores.shape[3] // 2].backward()
    seen = x.grad[0, 0].ne(0)
    assert seen.any(0).sum() == seen.any(1).sum() == side


def test_scales_by_hand() -> None:
    """Each scale has its own weights and sees the one before it, halved; the finest comes first."""
    module, x = MultiScaleDiscriminator(small_patches, scales=3), torch.rand(1, 3, 20, 23)
    verdict = module(x)
    image = x[0].double().numpy()
    for scale, discriminator in enumerate(module.scales):
        image = halve(image) if scale else image
        expected = patch_by_hand(discriminator, image)
        for made, wanted in zip([*verdict.features[scale], verdict.scores[scale]], expected, strict=True):
            np.testing.assert_allclose(made[0].detach(), wanted, atol=5e-5)
    first, second, _ = (next(values(discriminator)) for discriminator in module.scales)
    assert not np.allclose(first, second)


@pytest.mark.parametrize("size", [Size(32, 64), Size(45, 70), Size(33, 41)])
@pytest.mark.parametrize(
    "module",
    [
        FullyConvolutionalDiscriminator(3, 1),
        PatchDiscriminator(3, 1),
        PatchDiscriminator(3, 1, padding=1),
        MultiScaleDiscriminator(lambda: PatchDiscriminator(3, 1), 3),
    ],
)
def test_grids_are_foretold(module: Discriminator, size: Size) -> None:
    verdict = module(torch.rand(2, 3, *size))
    made = [
        tuple(Size(*layer.shape[-2:]) for layer in (*features, scores))
        for features, scores in zip(verdict.features, verdict.scores, strict=True)
    ]
    assert module.grids(size) == tuple(made)
    assert module.why_not(size) is None


def test_known_grids() -> None:
    """64x32 cells of 1024x512 less nothing: 1024 / 32; three strided layers of padding 2: n // 2 + 1 each, then + 1."""
    assert FullyConvolutionalDiscriminator(19).grids(Size(512, 1024))[0][-1] == Size(16, 32)
    assert PatchDiscriminator(22).grids(Size(512, 1024))[0][-1] == Size(67, 131)
    assert [g[-1] for g in MultiScaleDiscriminator(lambda: PatchDiscriminator(1, 1)).grids(Size(512, 1024))] == [
        Size(67, 131), Size(35, 67), Size(19, 35),
    ]  # fmt: skip
    assert PatchDiscriminator(3, padding=1).grids(Size(256, 256))[0][-1] == Size(30, 30)


def test_maps_that_are_too_small_are_refused() -> None:
    assert "32x31" in str(FullyConvolutionalDiscriminator(3, 1).why_not(Size(31, 32)))
    assert "scale 3" in str(MultiScaleDiscriminator(lambda: PatchDiscriminator(3, 1, padding=1)).why_not(Size(80, 80)))
