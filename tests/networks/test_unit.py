"""UNIT's autoencoder and discriminator against float64 arithmetic; paddings, sizes, counts and initial values."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from arithmetic import Array, convolve, instance_norm, reflect, relu, values

from udabench.networks.discriminator import MultiScaleDiscriminator, StridedDiscriminator
from udabench.networks.generator import GlobalGenerator
from udabench.networks.layers import kaiming_weights, zero_biases
from udabench.networks.unit import Autoencoder, ImageLayerNorm
from udabench.size import Size


def parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """In float64, with biases, gammas and betas that no two channels share."""
    for parameter in module.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter)
    return module.double()


def residual(x: Array, given: Iterator[Array]) -> Array:
    inner = relu(instance_norm(convolve(reflect(x, 1), next(given), next(given))))
    return x + instance_norm(convolve(reflect(inner, 1), next(given), next(given)))


def layer_norm(x: Array, gamma: Array, beta: Array) -> Array:
    whole = (x - x.sum() / x.size) / (np.sqrt(((x - x.mean()) ** 2).sum() / (x.size - 1)) + 1e-5)
    return whole * gamma[:, None, None] + beta[:, None, None]


def test_the_autoencoder_by_hand() -> None:
    module, x = shaken(Autoencoder(3, width=2, downs=2, blocks=2)), torch.rand(2, 3, 12, 16).double()
    code, made = module.encode(x), module(x)
    given = values(module)
    y = relu(instance_norm(convolve(reflect(x[1].numpy(), 3), next(given), next(given))))
    for _ in range(2):
        y = relu(instance_norm(convolve(reflect(y, 1), next(given), next(given), 2)))
    for _ in range(2):
        y = residual(y, given)
    assert code.shape == (2, 8, 3, 4)
    np.testing.assert_allclose(code[1].detach(), y, atol=1e-9)
    for _ in range(2):
        y = residual(y, given)
    for _ in range(2):
        y = convolve(reflect(y.repeat(2, axis=1).repeat(2, axis=2), 2), next(given), next(given))
        y = relu(layer_norm(y, next(given), next(given)))
    y = np.tanh(convolve(reflect(y, 3), next(given), next(given)))
    assert next(given, None) is None
    assert made.shape == x.shape
    np.testing.assert_allclose(made[1].detach(), y, atol=1e-9)
    assert torch.equal(module.decode(code), made)


def test_the_layer_norm_divides_as_the_code_does() -> None:
    """Of 1, 2, 3, 4: mean 2.5, unbiased variance 5/3; images of a batch do not meet."""
    norm, x = ImageLayerNorm(2, eps=0.5), torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 0.0, 0.0]]).view(2, 2, 1, 2)
    norm.gamma.data, norm.beta.data = torch.tensor([1.0, 2.0]), torch.tensor([0.0, 10.0])
    unit = (5 / 3) ** 0.5 + 0.5
    found = norm(x).flatten(1).tolist()
    assert found[0] == pytest.approx([-1.5 / unit, -0.5 / unit, 10 + 1 / unit, 10 + 3 / unit])
    assert found[1] == [0, 0, 10, 10]


def test_a_constant_image_gives_the_layer_norm_a_finite_gradient() -> None:
    x = torch.ones(1, 2, 2, 2, requires_grad=True)
    ImageLayerNorm(2)(x).sum().backward()
    assert x.grad is not None
    assert bool(x.grad.isfinite().all())


def test_the_layer_norm_keeps_large_half_precision_values() -> None:
    x = torch.full((1, 1, 2, 2), 6e4, dtype=torch.float16)
    x[0, 0, 0, 0] = -6e4
    found = ImageLayerNorm(1)(x)
    assert found.dtype == torch.float32
    assert bool(found.isfinite().all())


def test_sizes_of_the_published_networks() -> None:
    """MUNIT code: an encoder of 64, 128, 256 channels and four residual blocks, a decoder the other way round; a
    discriminator of 64, 128, 256, 512 channels; counted by hand."""

    def convolution(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + outputs

    blocks = 4 * 2 * convolution(256, 256, 3)
    encoder = convolution(3, 64, 7) + convolution(64, 128, 4) + convolution(128, 256, 4) + blocks
    ups = convolution(256, 128, 5) + 2 * 128 + convolution(128, 64, 5) + 2 * 64
    decoder = blocks + ups + convolution(64, 3, 7)
    module = Autoencoder()
    assert (parameters(module[0]), parameters(module[1])) == (encoder, decoder)
    strided = convolution(3, 64, 4) + convolution(64, 128, 4) + convolution(128, 256, 4) + convolution(256, 512, 4)
    assert parameters(MultiScaleDiscriminator(lambda: StridedDiscriminator(3))) == 3 * (strided + 513)


def test_sides_that_are_no_multiples_are_refused() -> None:
    module = Autoencoder(width=1, blocks=1)
    assert "multiples of 4, but the map is 18x16" in str(module.why_not(Size(16, 18)))
    assert module(torch.rand(1, 3, 16, 18)).shape[-1] != 18


def test_a_discriminator_by_hand() -> None:
    module, x = shaken(StridedDiscriminator(3, width=2, layers=3)), torch.rand(2, 3, 17, 22).double()
    (scores,), (features,) = module(x)
    maps, given = [x[1].numpy()], values(module)
    for _ in range(3):
        maps.append(relu(convolve(reflect(maps[-1], 1), next(given), next(given), 2), 0.2))
    for made, wanted in zip(features, maps[1:], strict=True):
        np.testing.assert_allclose(made[1].detach(), wanted, atol=1e-9)
    np.testing.assert_allclose(scores[1].detach(), convolve(maps[-1], next(given), next(given)), atol=1e-9)
    assert next(given, None) is None


def test_its_layers_are_those_of_the_code() -> None:
    layers = StridedDiscriminator(3).convolutions()
    assert [(c.out_channels, c.kernel_size[0], c.stride[0], c.padding[0]) for c in layers] == [
        (64, 4, 2, 1), (128, 4, 2, 1), (256, 4, 2, 1), (512, 4, 2, 1), (1, 1, 1, 0),
    ]  # fmt: skip
    assert layers[2].weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert not any(c.bias.any() for c in layers)


def test_its_grids_are_foretold_and_small_maps_refused() -> None:
    module = MultiScaleDiscriminator(lambda: StridedDiscriminator(3, width=1))
    assert [grid[-1] for grid in module.grids(Size(512, 512))] == [Size(32, 32), Size(16, 16), Size(8, 8)]
    verdict = module(torch.rand(1, 3, 130, 97))
    assert [tuple(grid[-1]) for grid in module.grids(Size(130, 97))] == [s.shape[-2:] for s in verdict.scores]
    assert module.why_not(Size(128, 64)) is None
    assert "scale 3" in str(module.why_not(Size(64, 64)))


def test_weights_start_as_the_code_has_them() -> None:
    """He's normal values, biases 0, gamma uniform in [0, 1]."""
    module = Autoencoder(width=32, blocks=1)
    encoder, decoder = module[0], module[1]
    down, block, up = encoder[3], decoder[0].body[1], decoder[2]
    for layer, fan_in in ((down, 32 * 16), (block, 128 * 9), (up, 128 * 25)):
        assert layer.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.03)
    assert not any(c.bias.any() for c in module.modules() if isinstance(c, torch.nn.Conv2d))
    gamma = torch.cat([ImageLayerNorm(500).gamma.detach(), decoder[3].gamma.detach()])
    assert (gamma.min().item(), gamma.max().item()) == pytest.approx((0, 1), abs=0.02)
    assert gamma.mean().item() == pytest.approx(0.5, abs=0.05)
    assert not decoder[3].beta.any()


def test_initial_values_reach_transposed_convolutions_too() -> None:
    module = GlobalGenerator(3, width=16, downs=1, blocks=1)
    zero_biases(module)
    assert not any(p.any() for p in module.parameters() if p.dim() == 1)
    kaiming_weights(module)
    up = next(c for c in module.modules() if isinstance(c, torch.nn.ConvTranspose2d))
    # torch takes the fan-in of the second axis, which here holds the 16 channels out.
    assert up.weight.std().item() == pytest.approx((2 / (16 * 9)) ** 0.5, rel=0.05)
