"""Convolutional layers in float64 NumPy, written from their definitions: an oracle for what torch builds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch import nn

Array = np.ndarray


def values(module: nn.Module) -> Iterator[Array]:
    """The parameters in order, weight before bias."""
    return (parameter.detach().double().numpy() for parameter in module.parameters())


def convolve(x: Array, weight: Array, bias: Array, stride: int = 1, padding: int = 0) -> Array:
    """C H W -> O h w, zeros around."""
    x = np.pad(x, ((0, 0), (padding, padding), (padding, padding)))
    windows = np.lib.stride_tricks.sliding_window_view(x, weight.shape[2:], axis=(1, 2))
    return np.einsum("chwij,ocij->ohw", windows[:, ::stride, ::stride], weight) + bias[:, None, None]


def transpose_convolve(x: Array, weight: Array, bias: Array) -> Array:
    """3x3, stride 2, padding 1, output padding 1: each pixel adds its copy of the kernel at twice its place."""
    height, width = x.shape[1:]
    wide = np.zeros((weight.shape[1], 2 * height + 2, 2 * width + 2))
    for row in range(height):
        for column in range(width):
            stamp = np.einsum("c,coij->oij", x[:, row, column], weight)
            wide[:, 2 * row : 2 * row + 3, 2 * column : 2 * column + 3] += stamp
    return wide[:, 1 : 2 * height + 1, 1 : 2 * width + 1] + bias[:, None, None]


def reflect(x: Array, margin: int) -> Array:
    return np.pad(x, ((0, 0), (margin, margin), (margin, margin)), mode="reflect")


def instance_norm(x: Array, weight: Array | float = 1.0, bias: Array | float = 0.0) -> Array:
    mean, variance = x.mean(axis=(1, 2), keepdims=True), x.var(axis=(1, 2), keepdims=True)
    scale, shift = np.reshape(weight, (-1, 1, 1)), np.reshape(bias, (-1, 1, 1))
    return (x - mean) / np.sqrt(variance + 1e-5) * scale + shift


def relu(x: Array, slope: float = 0.0) -> Array:
    return np.where(x > 0, x, slope * x)


def halve(x: Array) -> Array:
    """3x3 means of stride 2 over what lies inside of the picture."""
    _, height, width = x.shape
    rows = [slice(max(0, i - 1), i + 2) for i in range(0, height, 2)]
    columns = [slice(max(0, j - 1), j + 2) for j in range(0, width, 2)]
    return np.stack([np.stack([x[:, r, c].mean(axis=(1, 2)) for c in columns], 1) for r in rows], 1)
