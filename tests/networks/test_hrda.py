"""HRDA on networks whose every logit is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from udabench.errors import UsageError
from udabench.network import Network, Output
from udabench.networks import hrda
from udabench.networks.build import build_network
from udabench.networks.hrda import HRDA, draw_window, fuse, inside, on_grid, paste
from udabench.parts.ema import Ema
from udabench.parts.losses import segmentation_loss
from udabench.registry import Registry
from udabench.size import Size

CLASSES = 3


class Pooled(Network):
    """Logits are the image's channels, averaged over cells: a window's are those of the image there."""

    def __init__(self, stride: int = 4) -> None:
        super().__init__()
        self.classes, self.output_stride, self.feature_channels = CLASSES, stride, (CLASSES, 2 * CLASSES)
        self.scale = nn.Parameter(torch.ones(()))
        self.sizes: list[tuple[int, ...]] = []

    def forward(self, image: Tensor, domain: str | None = None) -> Output:
        self.sizes.append(tuple(image.shape))
        features = self.encode(image, domain)
        return Output(self.scale * features[0], features)

    def encode(self, image: Tensor, domain: str | None = None) -> tuple[Tensor, ...]:
        fine = nn.functional.avg_pool2d(image, self.output_stride)
        return fine, nn.functional.avg_pool2d(torch.cat([fine, fine], 1), 2)

    def parameter_groups(self) -> Mapping[str, Sequence[nn.Parameter]]:
        return {"encoder": [self.scale]}

    @property
    def mean_color(self) -> tuple[float, float, float]:
        return (0.1, 0.2, 0.3)

    def why_not(self, crop: Size) -> str | None:
        return "too small" if min(crop) < 16 else None


def pooled(stride: int = 4, share: float | None = None, **options: Any) -> HRDA:
    """HRDA around :class:`Pooled`; ``share``: what the attention gives to the detail everywhere."""
    network = HRDA(lambda: Pooled(stride), CLASSES, **options)
    if share is not None:
        classifier = network.scale_attention.classifier
        assert isinstance(classifier, nn.Conv2d)
        assert classifier.bias is not None
        nn.init.zeros_(classifier.weight)
        nn.init.constant_(classifier.bias, torch.logit(torch.tensor(share)).item())
    return network


def inner_sizes(network: HRDA) -> list[tuple[int, ...]]:
    assert isinstance(network.inner, Pooled)
    return network.inner.sizes


def box_of(output: Output) -> tuple[int, int, int, int]:
    box = output.heads[0].box
    assert box is not None
    return box


@pytest.mark.parametrize(("whole", "window", "last"), [(1024, 512, 504), (512, 256, 248), (64, 32, 24)])
def test_the_last_possible_corner_is_never_reached(whole: int, window: int, last: int) -> None:
    corners = set()
    for seed in range(400):
        torch.manual_seed(seed)
        top, left, *size = draw_window(Size(whole, whole), Size(window, window), 8)
        assert size == [window, window]
        corners |= {top, left}
    assert corners == set(range(0, last + 1, 8))


def test_the_window_is_drawn_from_the_global_generator() -> None:
    def draw() -> tuple[int, ...]:
        return draw_window(Size(1024, 1024), Size(512, 512), 8)

    torch.manual_seed(3)
    first, second = draw(), draw()
    torch.manual_seed(3)
    assert (draw(), draw()) == (first, second)
    assert first != second


def test_all_ranks_look_through_the_window_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hrda, "gather", lambda corner: torch.cat([torch.tensor([[5, 3]]), corner]))
    assert draw_window(Size(1024, 1024), Size(512, 512), 8) == (40, 24, 512, 512)


def test_a_window_as_large_as_the_image_lies_on_it() -> None:
    assert draw_window(Size(64, 48), Size(64, 48), 8) == (0, 0, 64, 48)


def test_attention_is_exactly_zero_outside_of_the_box() -> None:
    attention = torch.rand(2, CLASSES, 8, 8) + 0.1
    masked = inside(attention, on_grid((16, 24, 32, 32), 8))
    assert torch.equal(masked[:, :, 2:6, 3:7], attention[:, :, 2:6, 3:7])
    outside = masked.clone()
    outside[:, :, 2:6, 3:7] = 0
    assert (outside == 0).all()


def test_boxes_off_the_grid_are_rounded_down_as_in_the_reference() -> None:
    """A stride of 8 has cells of 16 pixels in the context, while corners are multiples of 8."""
    assert on_grid((8, 24, 512, 512), 16) == (0, 1, 32, 32)
    assert on_grid((16, 32, 512, 512), 16) == (1, 2, 32, 32)


def test_fusion_by_hand() -> None:
    """One cell of context over 2x2 cells of detail: no neighbour leaks in."""
    context, detail = torch.full((1, 1, 1, 1), 2.0), torch.tensor([[[[1.0, 5.0], [9.0, 13.0]]]])
    fused, scaled = fuse(context, detail, torch.full((1, 1, 1, 1), 0.25))
    assert scaled.item() == 1.5
    assert fused.flatten().tolist() == [0.25 + 1.5, 1.25 + 1.5, 2.25 + 1.5, 3.25 + 1.5]


def test_the_context_is_weighted_before_it_is_upsampled() -> None:
    context, attention = torch.tensor([[[[2.0, 10.0]]]]), torch.tensor([[[[0.0, 1.0]]]])
    fused, _ = fuse(context, torch.full((1, 1, 2, 4), 4.0), attention)
    # up(0, 1) = 0, 1/4, 3/4, 1 times 4, and up(2, 0) = 2, 1.5, 0.5, 0
    assert fused[0, 0].tolist() == [[2.0, 2.5, 3.5, 4.0]] * 2


def test_the_sum_leaks_one_cell_around_the_box_and_no_further() -> None:
    torch.manual_seed(0)
    context, attention = torch.randn(1, CLASSES, 16, 16), torch.rand(1, CLASSES, 16, 16)
    detail = paste([torch.randn(1, CLASSES, 16, 16)], [(8, 8, 16, 16)], Size(32, 32))
    fused, _ = fuse(context, detail, inside(attention, (4, 4, 8, 8)))
    alone = interpolate(context, scale_factor=2, mode="bilinear", align_corners=False)
    differs = (fused - alone).abs().amax(1)[0] > 1e-6
    assert differs[7:25, 7:25].all()  # the box, and a ring that is one cell wide
    differs[7:25, 7:25] = False
    assert not differs.any()


def test_training_sees_half_the_image_and_one_window() -> None:
    torch.manual_seed(0)
    network, image = pooled(share=0.75), torch.rand(2, 3, 64, 128)
    output = network(image)
    top, left, height, width = box_of(output)
    assert inner_sizes(network) == [(2, 3, 32, 64), (2, 3, 32, 64)]
    assert (height, width) == (32, 64)
    half = interpolate(image, scale_factor=0.5, mode="bilinear", align_corners=False)
    assert torch.equal(output.features[0], nn.functional.avg_pool2d(half, 4))
    full = nn.functional.avg_pool2d(image, 4)
    cells = slice(top // 4, top // 4 + 8), slice(left // 4, left // 4 + 16)
    torch.testing.assert_close(output.heads[0].logits, full[..., cells[0], cells[1]])
    # well inside the box no border leaks in: 0.75 of the detail and 0.25 of the context
    inner = slice(cells[0].start + 2, cells[0].stop - 2), slice(cells[1].start + 2, cells[1].stop - 2)
    coarse = interpolate(output.features[0], scale_factor=2, mode="bilinear", align_corners=False)
    expected = 0.75 * full + 0.25 * coarse
    torch.testing.assert_close(output.logits[..., inner[0], inner[1]], expected[..., inner[0], inner[1]])
    # beyond a ring of one cell the context is alone
    outside = torch.ones(16, 32, dtype=torch.bool)
    outside[max(cells[0].start - 1, 0) : cells[0].stop + 1, max(cells[1].start - 1, 0) : cells[1].stop + 1] = False
    assert outside.any()
    torch.testing.assert_close(output.logits[..., outside], coarse[..., outside])


def test_weights_of_the_losses() -> None:
    network = pooled()
    output = network(torch.rand(1, 3, 64, 64))
    assert output.weight == pytest.approx(0.9)
    assert [head.weight for head in output.heads] == [0.1]
    whole = pooled(window="64x64", detail_weight=0.2)(torch.rand(1, 3, 64, 64))
    assert whole.weight == pytest.approx(0.6)
    assert [(head.box, head.weight) for head in whole.heads] == [((0, 0, 64, 64), 0.2), (None, 0.2)]


def test_the_loss_of_the_detail_is_on_its_part_of_the_label() -> None:
    torch.manual_seed(1)
    network, label = pooled(share=0.5), torch.randint(CLASSES, (2, 64, 64))
    output = network(torch.rand(2, 3, 64, 64))
    top, left, height, width = box_of(output)
    assert (top, left) != (0, 0)

    def loss(logits: Tensor, truth: Tensor) -> Tensor:
        full = interpolate(logits.double(), tuple(truth.shape[-2:]), mode="bilinear", align_corners=False)
        return cross_entropy(full, truth)

    inside_box = label[:, top : top + height, left : left + width]
    expected = 0.9 * loss(output.logits, label) + 0.1 * loss(output.heads[0].logits, inside_box)
    torch.testing.assert_close(segmentation_loss(output, label).double(), expected, rtol=1e-6, atol=1e-6)


def test_gradient_reaches_attention_context_and_detail() -> None:
    network = pooled()
    image = torch.rand(1, 3, 64, 64, requires_grad=True)
    output = network(image)
    top, left, height, width = box_of(output)
    segmentation_loss(output, torch.randint(CLASSES, (1, 64, 64))).backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None and (p.grad != 0).any() for p in network.parameters() if p.dim() > 1)
    assert network.inner.scale.grad is not None
    assert image.grad is not None
    assert (image.grad[..., top : top + height, left : left + width] != 0).all()


@pytest.mark.parametrize("windows_a_pass", [0, 1, 4])
def test_nine_windows_slide_in_eval_mode(windows_a_pass: int) -> None:
    network = pooled(share=1 - 1e-7, windows_a_pass=windows_a_pass).eval()
    image = torch.rand(2, 3, 64, 64)
    output = network(image)
    context, *details = inner_sizes(network)
    assert context == (2, 3, 32, 32)
    expected = {0: [18], 1: [2] * 9, 4: [8, 8, 2]}[windows_a_pass]
    assert details == [(count, 3, 32, 32) for count in expected]
    assert output.heads == ()
    assert output.weight == 1
    torch.testing.assert_close(output.logits, nn.functional.avg_pool2d(image, 4))


def test_overlapping_windows_are_averaged() -> None:
    parts = [torch.full((1, 1, 2, 2), value) for value in (1.0, 3.0)]
    assert paste(parts, [(0, 0, 2, 2), (0, 1, 2, 2)], Size(2, 4))[0, 0].tolist() == [[1, 2, 3, 0], [1, 2, 3, 0]]


@pytest.mark.parametrize("size", [(75, 90), (20, 30), (66, 40)])
def test_whole_images_of_any_size_can_be_segmented(size: tuple[int, int]) -> None:
    logits = pooled(window="32x32").eval()(torch.rand(1, 3, *size)).logits
    assert logits.shape[-2:] == (-(-size[0] // 4), -(-size[1] // 4))
    assert torch.isfinite(logits).all()


def test_a_replica_slides_even_in_training_mode() -> None:
    network = pooled()
    teacher = Ema(network, norms="batch").train()
    teacher.module.train()
    assert teacher(torch.rand(1, 3, 64, 64)).heads == ()
    assert network(torch.rand(1, 3, 64, 64)).heads != ()


@pytest.mark.parametrize("mode", [True, False])
def test_half_precision(mode: bool) -> None:
    network, image = pooled().train(mode), torch.rand(2, 3, 64, 64)
    network.scale_attention.eval()  # no dropout
    torch.manual_seed(0)
    exact = network(image)
    with torch.autocast("cpu", torch.bfloat16):
        torch.manual_seed(0)
        output = network(image)
        loss = segmentation_loss(output, torch.zeros(2, 64, 64, dtype=torch.int64))
    torch.testing.assert_close(output.logits, exact.logits, rtol=0.01, atol=0.01)
    expected = segmentation_loss(exact, torch.zeros(2, 64, 64, dtype=torch.int64))
    torch.testing.assert_close(loss, expected, rtol=0.01, atol=0.01)


def test_encode_is_the_context_alone() -> None:
    network, image = pooled(), torch.rand(1, 3, 64, 64)
    features = network.encode(image)
    assert [f.shape[-2:] for f in features] == [(8, 8), (4, 4)]
    assert all(torch.equal(a, b) for a, b in zip(features, network(image).features, strict=True))


def test_names_groups_and_colour(registry: Registry) -> None:
    network = build_network(registry, "hrda:lite0", 5, "none", {"head.width": 16, "attention_width": 8})
    inner = build_network(registry, "lite0", 5, "none", {"width": 16})
    names = set(network.state_dict())
    attention = {f"embeds.{i}.{kind}" for i in range(4) for kind in ("weight", "bias")}
    attention |= {"fuse.conv.weight", "classifier.weight", "classifier.bias"}
    attention |= {f"fuse.bn.{kind}" for kind in ("weight", "bias", "running_mean", "running_var")}
    expected = {f"inner.{name}" for name in inner.state_dict()} | {f"scale_attention.{name}" for name in attention}
    assert names == expected | {"scale_attention.fuse.bn.num_batches_tracked"}
    groups = network.parameter_groups()
    grouped = [id(p) for parameters in groups.values() for p in parameters]
    assert sorted(grouped) == sorted(id(p) for p in network.parameters())
    head = {id(p) for p in groups["head"]}
    assert isinstance(network, HRDA)
    assert all(id(p) in head for p in network.scale_attention.parameters())
    assert network.mean_color == inner.mean_color
    assert network.feature_channels == inner.feature_channels
    assert network.reports == inner.reports


@pytest.mark.parametrize(
    ("name", "options", "stride"),
    [
        ("hrda:resnet50-deeplabv2", {"lineage": "caffe", "attention": "deeplabv2"}, 8),
        ("hrda:mit_b0-segformer", {}, 4),
        ("hrda:mit_b0-deeplabv2", {}, 32),
    ],
)
def test_any_stride_and_head(registry: Registry, name: str, options: Mapping[str, object], stride: int) -> None:
    network = build_network(registry, name, 5, "none", options)
    for mode in (True, False):
        output = network.train(mode)(torch.rand(2, 3, 128, 128))
        assert output.logits.shape == (2, 5, 128 // stride, 128 // stride)
    assert network.output_stride == stride


@pytest.mark.parametrize(
    ("crop", "options", "reason"),
    [
        (Size(64, 68), {}, "that 8 divides"),
        (Size(64, 64), {"window": "30x32"}, "no multiple of 4"),
        (Size(64, 64), {"window": "128x64"}, "does not fit; set window to 32x32"),
        (Size(64, 64), {"window": "64x60"}, "cannot move by 8 pixels"),
        (Size(24, 64), {}, "too small"),
    ],
)
def test_crops_that_do_not_fit(crop: Size, options: Mapping[str, Any], reason: str) -> None:
    assert reason in str(pooled(**options).why_not(crop))


def test_crops_that_fit() -> None:
    assert pooled().why_not(Size(1024, 1024)) is None
    assert pooled(window="64x64").why_not(Size(64, 64)) is None
    assert pooled(stride=8, window="512x512").why_not(Size(1024, 1024)) is None


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("hrda", {}, "write hrda:<network>"),
        ("hrda:hrda:lite0", {}, "once"),
        ("hrda:lite0", {"window": "big"}, "WIDTHxHEIGHT"),
        ("hrda:lite0", {"detail_weight": 0.5}, "0.5"),
        ("hrda:lite0", {"attention": "none"}, "segformer or deeplabv2"),
        ("hrda:lite0", {"windows_a_pass": -1}, "-1"),
        ("hrda:lite0", {"windwo": 3}, "Did you mean 'window'"),
    ],
)
def test_what_cannot_be_built(registry: Registry, name: str, options: Mapping[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_network(registry, name, 5, "none", options)
