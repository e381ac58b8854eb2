"""FDA, against the definition with a full FFT in float64."""

import numpy as np
import pytest
import torch

from udabench.errors import UsageError
from udabench.translate.fda import FDA, fda

RNG = torch.Generator().manual_seed(0)
SOURCE = torch.rand(2, 3, 24, 40, generator=RNG)
TARGET = torch.rand(2, 3, 24, 40, generator=RNG)


def _literal(source, target, beta):
    """The NumPy form of the definition: shifted spectra, one centred window of (2b + 1)^2."""
    result = np.empty(source.shape)
    height, width = source.shape[-2:]
    b = int(np.floor(min(height, width) * beta))
    cy, cx = height // 2, width // 2
    for i in np.ndindex(source.shape[:2]):
        s, t = (np.fft.fftshift(np.fft.fft2(x[i].double().numpy())) for x in (source, target))
        amplitude = np.abs(s)
        window = np.s_[cy - b : cy + b + 1, cx - b : cx + b + 1]
        amplitude[window] = np.abs(t)[window]
        mixed = np.fft.ifft2(np.fft.ifftshift(amplitude * np.exp(1j * np.angle(s))))
        assert np.abs(mixed.imag).max() < 1e-9
        result[i] = mixed.real
    return torch.from_numpy(result).float()


@pytest.mark.parametrize("beta", [0.0, 0.05, 0.1, 0.4])
def test_symmetric_window_equals_the_definition(beta):
    torch.testing.assert_close(fda(SOURCE, TARGET, beta), _literal(SOURCE, TARGET, beta), atol=1e-5, rtol=0)


def test_odd_sizes():
    source, target = SOURCE[..., :23, :37], TARGET[..., :23, :37]
    torch.testing.assert_close(fda(source, target, 0.1), _literal(source, target, 0.1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("window", ["symmetric", "corner"])
def test_identical_images_return_the_input(window):
    assert torch.equal(fda(SOURCE, SOURCE.clone(), 0.1, window), SOURCE)


def test_amplitude_outside_the_window_is_unchanged():
    beta, b = 0.1, 2
    before, after = torch.fft.fft2(SOURCE).abs(), torch.fft.fft2(fda(SOURCE, TARGET, beta)).abs()
    inside = torch.zeros(24, 40, dtype=torch.bool)
    rows, columns = torch.arange(-b, b + 1) % 24, torch.arange(-b, b + 1) % 40
    inside[rows.unsqueeze(1), columns] = True
    torch.testing.assert_close(after[..., ~inside], before[..., ~inside], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(after[..., inside], torch.fft.fft2(TARGET).abs()[..., inside], atol=1e-3, rtol=1e-4)


def test_b_zero_swaps_the_mean_colour_or_nothing():
    swapped = fda(SOURCE, TARGET, 0.0)
    torch.testing.assert_close(swapped.mean((2, 3)), TARGET.mean((2, 3)), atol=1e-5, rtol=0)
    assert torch.equal(fda(SOURCE, TARGET, 0.0, "corner"), SOURCE)


def test_corner_window_covers_minus_b_to_b_minus_one():
    b = 2
    s, t = torch.fft.fft2(SOURCE.double()), torch.fft.fft2(TARGET.double())
    amplitude = s.abs()
    for rows in (slice(0, b), slice(-b, None)):
        for columns in (slice(0, b), slice(-b, None)):
            amplitude[..., rows, columns] = t.abs()[..., rows, columns]
    expected = torch.fft.ifft2(torch.polar(amplitude, s.angle())).real.float()
    result = fda(SOURCE, TARGET, 0.1, "corner")
    torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)
    assert not torch.allclose(result, fda(SOURCE, TARGET, 0.1), atol=1e-3)


def test_a_target_serves_several_images_and_is_resized():
    translated = FDA(0.1)(SOURCE, TARGET[:1], RNG)
    torch.testing.assert_close(translated, fda(SOURCE, TARGET[[0, 0]], 0.1).clamp(0, 1))
    assert FDA(0.1)(SOURCE, torch.rand(2, 3, 48, 80), RNG).shape == SOURCE.shape


def test_clamp_is_a_choice():
    bright, dark = torch.ones(1, 3, 8, 8), SOURCE[:1, :, :8, :8]
    loose = FDA(0.0, clamp=False)(dark, bright, RNG)
    assert loose.max() > 1
    assert FDA(0.0)(dark, bright, RNG).max() == 1


def test_half_precision_is_left_aside_under_autocast():
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = fda(SOURCE, TARGET, 0.1)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, fda(SOURCE, TARGET, 0.1))


@pytest.mark.parametrize("options", [{"beta": 0.6}, {"window": "round"}])
def test_options_out_of_bounds(options):
    with pytest.raises(UsageError, match="FDA's"):
        FDA(**options)
