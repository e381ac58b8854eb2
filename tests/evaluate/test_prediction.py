"""Labels at full size, in blocks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from udabench.evaluate.prediction import predict_entropy, predict_labels, score_blocks
from udabench.size import Size

SHAPES = [((8, 16), (64, 128)), ((9, 17), (64, 128)), ((7, 5), (23, 31)), ((40, 60), (16, 24)), ((6, 6), (6, 6))]
SHAPES += [((1, 1), (5, 4)), ((3, 4), (1, 1)), ((6, 8), (6, 21)), ((6, 8), (13, 8))]


def logits(size: tuple[int, int], count: int = 2, classes: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    rng = torch.Generator().manual_seed(size[0])
    return torch.randn(count, classes, *size, generator=rng, dtype=torch.float64).to(dtype)


def whole(scores: Tensor, size: Size, align_corners: bool, block_bytes: int | None = None) -> Tensor:
    return torch.cat([block for _, block in score_blocks(scores, size, align_corners, block_bytes)], 2)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(("small", "full"), SHAPES)
def test_equal_to_torch(small: tuple[int, int], full: tuple[int, int], align_corners: bool) -> None:
    z, size = logits(small, dtype=torch.float64), Size(*full)
    expected = interpolate(z, full, mode="bilinear", align_corners=align_corners)
    torch.testing.assert_close(whole(z, size, align_corners, 1000), expected, rtol=0, atol=1e-12)
    assert torch.equal(predict_labels(z, size, align_corners, block_bytes=1000).long(), expected.argmax(1))


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("block_bytes", [1, 3000, 50_000])
def test_blocks_equal_no_blocks_to_the_bit(block_bytes: int, align_corners: bool) -> None:
    z, size = logits((9, 17)), Size(64, 128)
    assert torch.equal(whole(z, size, align_corners, block_bytes), whole(z, size, align_corners, 2**40))
    one = predict_labels(z, size, align_corners, block_bytes=2**40)
    assert torch.equal(predict_labels(z, size, align_corners, block_bytes=block_bytes), one)
    assert one.dtype == torch.uint8


def test_blocks_cover_every_row_once() -> None:
    z = logits((4, 4), count=1, classes=2)
    rows = [here for here, _ in score_blocks(z, Size(10, 8), False, block_bytes=3 * 2 * 8 * 4)]
    assert rows == [slice(0, 3), slice(3, 6), slice(6, 9), slice(9, 10)]


def test_resized_before_argmax_not_after() -> None:
    """Two cells, three classes: the second-best of both wins halfway between them."""
    z = torch.tensor([[[[3.0, 0.0]], [[0.0, 3.0]], [[2.0, 2.0]]]])
    assert predict_labels(z, Size(1, 3), True).tolist() == [[[0, 2, 1]]]


def test_align_corners_matters() -> None:
    z = torch.tensor([[[[1.0, -1.0]], [[0.0, 0.4]]]])
    assert predict_labels(z, Size(1, 4), False).tolist() == [[[0, 0, 1, 1]]]
    # positions 0, 1/3, 2/3, 1: scores of class 0 are 1, 1/3, -1/3, -1, of class 1 0, .13, .27, .4
    assert predict_labels(z, Size(1, 4), True).tolist() == [[[0, 0, 1, 1]]]
    z[0, 1] = torch.tensor([0.4, 0.4])
    # cell centres at 0, 1/4, 3/4, 1 of the way: 1, 1/2, -1/2, -1
    assert predict_labels(z, Size(1, 4), False).tolist() == [[[0, 0, 1, 1]]]
    assert predict_labels(z, Size(1, 4), True).tolist() == [[[0, 1, 1, 1]]]


def test_restricted_classes() -> None:
    z, size = logits((8, 16)), Size(32, 64)
    full = interpolate(z, tuple(size), mode="bilinear", align_corners=False)
    full[:, [0, 3]] = -torch.inf
    got = predict_labels(z, size, allowed=(1, 2, 4))
    assert torch.equal(got.long(), full.argmax(1))
    assert set(got.unique().tolist()) == {1, 2, 4}


def test_of_equal_scores_the_first() -> None:
    assert predict_labels(torch.zeros(1, 4, 2, 2), Size(4, 4)).unique().tolist() == [0]


def test_views_are_averaged_as_probabilities_at_full_size() -> None:
    z, size = torch.stack([logits((4, 6)), 5 * logits((4, 6)).flip(0)]), Size(16, 24)
    full = [interpolate(view, tuple(size), mode="bilinear", align_corners=False) for view in z]
    expected = (full[0].softmax(1) + full[1].softmax(1)) / 2
    torch.testing.assert_close(whole(z, size, False), expected)
    assert torch.equal(predict_labels(z, size).long(), expected.argmax(1))
    assert not torch.equal(expected.argmax(1), (full[0] + full[1]).argmax(1))


def test_one_view_is_no_view() -> None:
    z, size = logits((4, 6)), Size(16, 24)
    assert torch.equal(predict_labels(z[None], size), predict_labels(z, size))
    assert torch.equal(predict_entropy(z[None], size), predict_entropy(z, size))


@pytest.mark.parametrize("views", [1, 2])
def test_entropy(views: int) -> None:
    z, size = torch.stack([logits((4, 6)), logits((4, 6)).flip(1)])[:views], Size(8, 12)
    full = torch.stack([interpolate(v, tuple(size), mode="bilinear", align_corners=False) for v in z])
    expected = torch.distributions.Categorical(probs=full.softmax(2).mean(0).movedim(1, -1)).entropy()
    torch.testing.assert_close(predict_entropy(z, size, block_bytes=500), expected)


def test_entropy_is_in_nats_and_finite() -> None:
    z = torch.tensor([[[[0.0, 1e4]], [[0.0, -1e4]]]])
    torch.testing.assert_close(predict_entropy(z, Size(1, 2)), torch.tensor([[[0.6931472, 0.0]]]))


MEMORY = """
import torch
from torch.nn.functional import interpolate
from udabench.config import EvaluateConfig
from udabench.evaluate.confusion import confusion_matrix
from udabench.evaluate.inference import infer
from udabench.evaluate.prediction import predict_labels
from udabench.method import Samples
from udabench.size import Size

def status(key):
    line = next(line for line in open("/proc/self/status") if line.startswith(key))
    return int(line.split()[1]) / 1024

def peak(work, *arguments):
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    work(*arguments)
    print(status("VmHWM") - before)

def blocked(logits):
    labels = predict_labels(logits, Size(1024, 2048))[0]
    confusion_matrix(labels, labels, 19)

def plain(logits):
    interpolate(logits, (1024, 2048), mode="bilinear").argmax(1)

def slide_and_flip(window):
    config = EvaluateConfig(mode="slide", flip=True)
    image = torch.zeros(1, 3, 1024, 2048)
    box, size = torch.tensor([[0, 0, 1024, 2048]]), Size(1024, 2048)
    samples = Samples(image, None, ("a",), None, box, size, torch.zeros(1, dtype=torch.bool), {})
    blocked(infer(lambda given: window, samples, config))

torch.set_num_threads(1)
peak(blocked, torch.zeros(1, 1, 19, 256, 512).normal_())
peak(blocked, torch.zeros(2, 1, 19, 256, 512).normal_())
peak(blocked, torch.zeros(1, 1, 19, 1024, 2048).normal_())
peak(plain, torch.zeros(1, 19, 256, 512).normal_())
peak(slide_and_flip, torch.zeros(1, 19, 256, 256).normal_())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of a process from /proc")
def test_full_size_stays_below_one_gibibyte() -> None:
    """2048x1024, 19 classes: peak of a process, in MiB beyond what it held before."""
    # Large tensors go straight back to the system, so that none hides in what an earlier one left.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    command = [sys.executable, "-c", MEMORY]
    done = subprocess.run(command, capture_output=True, check=True, text=True, env=environment)
    whole, flip, slide, plain, slide_and_flip = map(float, done.stdout.split())
    assert 30 < whole < 100
    assert 60 < flip < 150
    assert 0 < slide < 100
    assert plain > 160
    assert 300 < slide_and_flip < 1024


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("align_corners", [False, True])
def test_device_agrees_with_cpu(align_corners: bool) -> None:
    """Equal but for pixels whose two best scores are equal to rounding."""
    z, size = logits((33, 65), classes=19), Size(256, 512)
    full = whole(z, size, align_corners).double()
    best = full.topk(2, dim=1).values
    clear = best[:, 0] - best[:, 1] > 1e-4
    found = predict_labels(z.cuda(), size, align_corners).cpu()
    assert clear.float().mean() > 0.99
    assert torch.equal(found[clear], predict_labels(z, size, align_corners)[clear])
    entropy = predict_entropy(z.cuda(), size, align_corners).cpu()
    torch.testing.assert_close(entropy, predict_entropy(z, size, align_corners), rtol=0, atol=1e-4)
