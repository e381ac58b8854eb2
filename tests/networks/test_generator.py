"""Generators against float64 arithmetic; sizes, ranges and initial values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from arithmetic import convolve, instance_norm, reflect, relu, transpose_convolve, values

from udabench.networks.generator import (
    SIGNED,
    Generator,
    GlobalGenerator,
    ResidualBlock,
    TransformerNetwork,
    one_hot,
    unsigned,
)
from udabench.networks.unit import Autoencoder
from udabench.size import Size


def test_the_global_generator_by_hand() -> None:
    module, x = GlobalGenerator(4, width=2, downs=2, blocks=2), torch.rand(2, 4, 8, 12)
    made = module(x)[1].detach()
    given = values(module)
    y = relu(instance_norm(convolve(reflect(x[1].double().numpy(), 3), next(given), next(given))))
    for _ in range(2):
        y = relu(instance_norm(convolve(y, next(given), next(given), 2, 1)))
    for _ in range(2):
        inner = relu(instance_norm(convolve(reflect(y, 1), next(given), next(given))))
        y = y + instance_norm(convolve(reflect(inner, 1), next(given), next(given)))
    for _ in range(2):
        y = relu(instance_norm(transpose_convolve(y, next(given), next(given))))
    y = np.tanh(convolve(reflect(y, 3), next(given), next(given)))
    assert next(given, None) is None
    assert made.shape == (3, 8, 12)
    np.testing.assert_allclose(made, y, atol=1e-4)


def test_johnsons_network_by_hand() -> None:
    module, x = TransformerNetwork(3, width=2, blocks=1), torch.rand(1, 3, 12, 16)
    for parameter in module.parameters():
        if parameter.dim() == 1:
            torch.nn.init.normal_(parameter)
    made = module(x)[0].detach()
    given = values(module)

    def normed(y: np.ndarray) -> np.ndarray:
        return instance_norm(y, next(given), next(given))

    y = relu(normed(convolve(reflect(x[0].double().numpy(), 8), next(given), next(given), 1, 4)))
    for _ in range(2):
        y = relu(normed(convolve(y, next(given), next(given), 2, 1)))
    inner = relu(normed(convolve(y, next(given), next(given))))
    y = y[:, 2:-2, 2:-2] + normed(convolve(inner, next(given), next(given)))
    for _ in range(2):
        y = relu(normed(transpose_convolve(y, next(given), next(given))))
    y = np.tanh(convolve(y, next(given), next(given), 1, 4))
    assert next(given, None) is None
    assert made.shape == (3, 12, 16)
    np.testing.assert_allclose(made, y, atol=1e-4)


def test_sizes_of_the_published_architectures() -> None:
    """Values counted from the papers' tables; pix2pixHD's at an eighth of its width, 64."""

    def convolution(inputs: int, outputs: int, kernel: int) -> int:
        return inputs * outputs * kernel**2 + outputs

    downs = convolution(8, 16, 3) + convolution(16, 32, 3) + convolution(32, 64, 3)
    ups = convolution(64, 32, 3) + convolution(32, 16, 3) + convolution(16, 8, 3)
    wide = convolution(19, 8, 7) + downs + 18 * convolution(64, 64, 3) + ups + convolution(8, 3, 7)
    # Johnson's has two affine values for each normed channel.
    norms = 2 * (32 + 64 + 128 + 10 * 128 + 64 + 32)
    slim = convolution(3, 32, 9) + convolution(32, 64, 3) + convolution(64, 128, 3) + 10 * convolution(128, 128, 3)
    slim += convolution(128, 64, 3) + convolution(64, 32, 3) + convolution(32, 3, 9) + norms
    modules = GlobalGenerator(19, width=8), TransformerNetwork(3)
    assert [sum(p.numel() for p in module.parameters()) for module in modules] == [wide, slim]


def test_johnsons_margin_is_the_papers() -> None:
    """Supplement, Table 1: 256 pixels are padded by 40 to 336; blocks shave 84 down to 64, which is 256 / 4."""
    module = TransformerNetwork(3, width=1)
    assert module[0](torch.empty(1, 1, 256, 256)).shape[-2:] == (336, 336)
    assert module(torch.rand(1, 3, 256, 256)).shape == (1, 3, 256, 256)


def test_weights_start_as_pix2pixhd_has_them() -> None:
    module = GlobalGenerator(4, width=32, downs=1, blocks=1)
    down, up = module[4], module[8]
    for layer in (down, up):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.03)
    # PyTorch's own biases: U(-k, k), k^2 = 1 / fan-in.
    assert 0 < down.bias.abs().max().item() <= (32 * 9) ** -0.5


def test_a_residual_block_starts_from_what_it_is_given() -> None:
    """Weights of 0: what is added is 0 everywhere, so the input comes back, shaved where nothing is padded."""
    x = torch.rand(1, 2, 6, 7)
    for padding, expected in (("reflect", x), ("none", x[..., 2:-2, 2:-2])):
        block = ResidualBlock(2, padding)
        for parameter in block.parameters():
            torch.nn.init.zeros_(parameter)
        assert torch.equal(block(x), expected)


@pytest.mark.parametrize(
    ("module", "size"),
    [
        (GlobalGenerator(2, width=1, blocks=1), Size(16, 24)),
        (GlobalGenerator(2, width=1, downs=1, blocks=1), Size(4, 6)),
        (GlobalGenerator(2, width=1, downs=0, blocks=1), Size(4, 5)),
        (TransformerNetwork(2, width=1, blocks=1), Size(12, 20)),
        (Autoencoder(2, width=1, blocks=1), Size(8, 12)),
        (Autoencoder(2, width=1, downs=1, blocks=1), Size(4, 6)),
        (Autoencoder(2, width=1, downs=0, blocks=1), Size(4, 5)),
    ],
)
def test_the_smallest_map_is_taken_and_lesser_ones_are_refused(module: Generator, size: Size) -> None:
    assert module.why_not(size) is None
    assert module(torch.rand(1, 2, *size)).shape[-2:] == size
    smaller = Size(size.height - module.cell, size.width)
    assert "at least" in str(module.why_not(smaller))
    with pytest.raises((RuntimeError, ValueError)):
        module(torch.rand(1, 2, *smaller))


def test_sides_that_are_no_multiples_are_refused() -> None:
    module = GlobalGenerator(2, width=1, blocks=1)
    assert "multiples of 8, but the map is 36x32" in str(module.why_not(Size(32, 36)))
    assert module(torch.rand(1, 2, 32, 36)).shape[-1] != 36


def test_the_ranges_meet() -> None:
    image = torch.tensor([0.0, 0.25, 1.0]).view(1, 3, 1, 1)
    assert SIGNED(image).flatten().tolist() == [-1.0, -0.5, 1.0]
    assert torch.equal(unsigned(SIGNED(image)), image)


def test_one_hot_claims_nothing_where_nothing_is_known() -> None:
    label = torch.tensor([[[0, 2], [255, 1]]])
    assert one_hot(label, 3)[0].tolist() == [[[1, 0], [0, 0]], [[0, 0], [0, 1]], [[0, 1], [0, 0]]]
