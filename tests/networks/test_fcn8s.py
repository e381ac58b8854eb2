"""FCN-8s: its geometry by hand, all of it against a second implementation, its weights' names, what it trains."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torchvision
from published import Shapes, linear, values
from torch import Tensor, nn
from torch.nn import functional as F

from udabench.errors import CheckpointError, UsageError
from udabench.network import CAFFE, TORCH
from udabench.networks.build import build_network
from udabench.networks.fcn8s import FCN8s, bilinear_kernel
from udabench.networks.hrda import HRDA
from udabench.networks.keymaps import KEYMAPS, vgg_names
from udabench.networks.vgg import VGG16
from udabench.networks.weights import load_network
from udabench.parts.losses import take
from udabench.registry import Registry
from udabench.testing import fake_setup

CONVOLUTIONS = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""Of torchvision's ``vgg16().features``."""
BLOCKS = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
NAMES = [f"conv{block}_{i}" for block, (_, count) in enumerate(BLOCKS, 1) for i in range(1, count + 1)]
"""Of BDL's code."""


def small(classes: int = 3, width: int = 4) -> FCN8s:
    return FCN8s(classes, "none", width=width).eval()


def features(names: list[str], width: int = 1) -> Shapes:
    shapes: Shapes = {}
    inputs = 3
    for name, outputs in zip(names, [f * width for f, count in BLOCKS for _ in range(count)], strict=True):
        shapes |= {f"{name}.weight": (outputs, inputs, 3, 3), f"{name}.bias": (outputs,)}
        inputs = outputs
    return shapes


def torchvision_vgg(first: int = 0, second: int = 3) -> Shapes:
    """Of width 1; the Caffe conversion has the linear layers at 1 and 4."""
    return {
        **features([f"features.{i}" for i in CONVOLUTIONS]),
        **linear(f"classifier.{first}", 64, 8 * 49),
        **linear(f"classifier.{second}", 64, 64),
        **linear("classifier.6", 1000, 64),
    }


def timm_vgg() -> Shapes:
    return {
        **features([f"features.{i}" for i in CONVOLUTIONS]),
        "pre_logits.fc1.weight": (64, 8, 7, 7),
        "pre_logits.fc1.bias": (64,),
        "pre_logits.fc2.weight": (64, 64, 1, 1),
        "pre_logits.fc2.bias": (64,),
        **linear("head.fc", 1000, 64),
    }


def bdl_fcn8s(classes: int = 3) -> Shapes:
    scores = {"score_fr": 64, "score_pool4": 8, "score_pool3": 4}
    shapes = {**features(NAMES), "fc6.weight": (64, 8, 7, 7), "fc6.bias": (64,)}
    shapes |= {"fc7.weight": (64, 64, 1, 1), "fc7.bias": (64,)}
    for name, inputs in scores.items():
        shapes |= {f"{name}.weight": (classes, inputs, 1, 1), f"{name}.bias": (classes,)}
    return shapes | {f"upscore{k}.weight": (classes, classes, s, s) for k, s in (("2", 4), ("_pool4", 4), ("8", 16))}


def test_kernels_by_hand() -> None:
    line = torch.tensor([0.25, 0.75, 0.75, 0.25])
    assert torch.equal(bilinear_kernel(4), line[:, None] * line)
    sixteenths = torch.tensor([1, 3, 5, 7, 9, 11, 13, 15, 15, 13, 11, 9, 7, 5, 3, 1]) / 16
    assert torch.equal(bilinear_kernel(16), sixteenths[:, None] * sixteenths)


def test_the_papers_size() -> None:
    """SAM: Z of a 1024x512 image is 138x74."""
    network = small(19, width=1)
    with torch.no_grad():
        output = network(torch.rand(1, 3, 512, 1024))
    assert output.logits.shape == (1, 19, 512, 1024)
    assert output.score_map.shape == (1, 19, 74, 138)
    assert [tuple(f.shape) for f in output.features] == [(1, 4, 64, 128), (1, 8, 32, 64), (1, 64, 16, 32)]


@pytest.mark.slow
def test_the_papers_network() -> None:
    network = FCN8s(19, "none").eval()
    assert sum(p.numel() for p in network.backbone.parameters()) == 138_357_544 - (4096 + 1) * 1000
    with torch.no_grad():
        output = network(torch.rand(1, 3, 512, 1024))
    assert output.score_map.shape == (1, 19, 74, 138)
    assert output.logits.isfinite().all()
    assert [f.shape[1] for f in output.features] == [256, 512, 4096]


@pytest.mark.parametrize("size", [(1, 1), (8, 40), (33, 50), (96, 64), (225, 31)])
def test_any_size(size: tuple[int, int]) -> None:
    network = small(2, width=1)
    with torch.no_grad():
        output = network(torch.rand(1, 3, *size))
    assert output.logits.shape[-2:] == size
    for feature, stride in zip(output.features, (8, 16, 32), strict=True):
        assert tuple(feature.shape[-2:]) == tuple(-(-side // stride) for side in size)


def test_the_last_crop_on_a_ramp() -> None:
    """Cell i of Z lies at pixel 8 i + 7.5 - 31: a map of these places comes out as the pixels' numbers."""
    place = 8 * torch.arange(14, dtype=torch.float32) + 7.5 - 31
    ramp = torch.stack([place[:, None].expand(14, 14), place[None].expand(14, 14)])[None]
    out = small().upscore(ramp, (40, 56))
    assert torch.equal(out[0, 0], torch.arange(40.0)[:, None].expand(40, 56))
    assert torch.equal(out[0, 1], torch.arange(56.0)[None].expand(40, 56))


def test_scales_and_crops_by_hand() -> None:
    """One cell of pool4 and one of pool3, with scores of 1: where in Z they arrive, and how large."""
    network = small(1, width=1)
    for score in (network.score_fr, network.score_pool4, network.score_pool3):
        nn.init.ones_(score.weight)
    pool3, pool4, fc7 = torch.zeros(1, 4, 30, 32), torch.zeros(1, 8, 15, 16), torch.zeros(1, 64, 2, 3)
    pool4[0, 3, 7, 6] = 100  # 0.01 x 100, cell 2, 1 after the crop at 5, rows 4 to 7 and columns 2 to 5 of Z
    expected = torch.zeros(14, 18)
    expected[4:8, 2:6] = bilinear_kernel(4)
    torch.testing.assert_close(network.score(pool3, pool4, fc7)[0, 0], expected)
    pool3[0, 1, 12, 10] = 50_000  # 0.0001 x 50 000, crop at 9
    expected[3, 1] += 5
    torch.testing.assert_close(network.score(pool3, pool4, fc7)[0, 0], expected)


def reference(state: dict[str, Tensor], image: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Z and logits in float64 by BDL's formulas, upsampled as a sum of scaled kernels."""
    x = (image - torch.tensor(TORCH.mean, dtype=torch.float64).view(1, 3, 1, 1)) / torch.tensor(
        TORCH.std, dtype=torch.float64
    ).view(1, 3, 1, 1)
    pools, layers = [], iter(CONVOLUTIONS)
    for _, count in BLOCKS:
        for _ in range(count):
            i = next(layers)
            weight, bias = (state[f"backbone.features.{i}.{kind}"] for kind in ("weight", "bias"))
            x = F.conv2d(x, weight, bias, padding=100 if i == 0 else 1).clamp(min=0)
        x = F.max_pool2d(x, 2, 2, ceil_mode=True)
        pools.append(x)
    x = F.conv2d(x, state["backbone.fc6.weight"], state["backbone.fc6.bias"]).clamp(min=0)
    x = F.conv2d(x, state["backbone.fc7.weight"], state["backbone.fc7.bias"]).clamp(min=0)

    def score(name: str, of: Tensor) -> np.ndarray:
        weight = state[f"{name}.weight"][:, :, 0, 0].numpy()
        bias: np.ndarray = state[f"{name}.bias"].numpy()[:, None, None]
        scores: np.ndarray = np.einsum("oc,chw->ohw", weight, of[0].numpy()) + bias
        return scores

    half = scattered(score("score_fr", x), 2)
    half += score("score_pool4", 0.01 * pools[3])[:, 5 : 5 + half.shape[1], 5 : 5 + half.shape[2]]
    z = scattered(half, 2)
    z += score("score_pool3", 0.0001 * pools[2])[:, 9 : 9 + z.shape[1], 9 : 9 + z.shape[2]]
    height, width = image.shape[-2:]
    return z, scattered(z, 8)[:, 31 : 31 + height, 31 : 31 + width]


def scattered(x: np.ndarray, factor: int) -> np.ndarray:
    line = np.array([1 - abs(i - (factor - 0.5)) / factor for i in range(2 * factor)])
    out = np.zeros((x.shape[0], factor * (x.shape[1] + 1), factor * (x.shape[2] + 1)))
    for row, column in np.ndindex(x.shape[1:]):
        place = slice(factor * row, factor * (row + 2)), slice(factor * column, factor * (column + 2))
        out[:, place[0], place[1]] += x[:, row, column, None, None] * np.outer(line, line)
    return out


@pytest.mark.parametrize("size", [(40, 56), (33, 90)])
def test_all_of_it_against_a_second_implementation(size: tuple[int, int]) -> None:
    network = small()
    for name, parameter in network.named_parameters():
        if "bias" in name:
            nn.init.normal_(parameter)
        if name in ("score_pool4.weight", "score_pool3.weight"):  # so that no summand drowns in another
            nn.init.normal_(parameter, std=100.0 if "4" in name else 10_000.0)
    network.double()
    image = torch.rand(1, 3, *size, dtype=torch.float64)
    with torch.no_grad():
        output = network(image)
    z, logits = reference({k: v.detach() for k, v in network.state_dict().items()}, image)
    np.testing.assert_allclose(output.score_map[0], z, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(output.logits[0], logits, rtol=1e-6, atol=1e-5)


def test_features_lie_on_the_image() -> None:
    """What a patch of the image changes most in each map is where the patch is, and so with what is encoded alone."""
    network, image = small(), torch.zeros(1, 3, 128, 192)
    patched = image.clone()
    patched[:, :, 64:96, 128:160] = 1
    with torch.no_grad():
        plain, changed = network.encode(image), network.encode(patched)
        assert all(torch.equal(a, b) for a, b in zip(changed, network(patched).features, strict=True))
    for before, after, stride in zip(plain[:2], changed[:2], (8, 16), strict=True):
        change = (after - before).abs().sum((0, 1))
        rows, columns = (change.sum(1 - axis) for axis in (0, 1))
        centre = [float((c * torch.arange(len(c))).sum() / c.sum() + 0.5) * stride for c in (rows, columns)]
        assert centre == pytest.approx([80, 144], abs=stride)


def test_the_networks_own_upsampling() -> None:
    network = small()
    output = network(torch.rand(2, 3, 40, 56))
    assert torch.equal(network.upscore(output.score_map, (40, 56)), output.logits)
    part = take(output, 1, 2)
    assert torch.equal(part.score_map, output.score_map[1:])
    assert network.upscore(torch.rand(1, 7, 14, 14), (40, 56)).shape == (1, 7, 40, 56)


def test_upsampling_keeps_float32_under_autocast() -> None:
    network = small()
    with torch.autocast("cpu", torch.bfloat16):
        output = network(torch.rand(1, 3, 40, 56))
    assert output.logits.dtype == output.score_map.dtype == torch.float32


def test_everything_but_the_upsampling_is_trained() -> None:
    network = small().train()
    network.backbone.drop6.p = network.drop7.p = 0.0
    fixed = [network.twofold.kernel.clone(), network.eightfold.kernel.clone()]
    before = {name: p.detach().clone() for name, p in network.named_parameters()}
    assert len(before) == 2 * (13 + 2 + 3)
    image, label = torch.rand(2, 3, 40, 56), torch.randint(3, (2, 40, 56))
    loss: Tensor = F.cross_entropy(network(image).logits, label)
    loss.backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
    torch.optim.Adam(network.parameters(), 1e-3).step()
    assert [name for name, p in network.named_parameters() if torch.equal(p, before[name])] == []
    assert torch.equal(network.twofold.kernel, fixed[0])
    assert torch.equal(network.eightfold.kernel, fixed[1])
    assert not network.twofold.kernel.requires_grad


def test_dropout_takes_whole_channels_after_fc6_and_fc7() -> None:
    network = small(64, width=1).train()
    nn.init.dirac_(network.backbone.fc7.weight)
    for name, value in (("fc7.bias", 0.0), ("fc6.bias", 1.0), ("fc6.weight", 0.0)):
        nn.init.constant_(network.backbone.get_parameter(name), value)
    last = network.encode(torch.rand(1, 3, 96, 96))[-1][0].flatten(1)
    assert set(last.flatten().tolist()) == {0.0, 2.0}
    assert torch.equal(last, last[:, :1].expand_as(last))
    seen: list[Tensor] = []
    network.score_fr.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0][0].flatten(1)))
    network(torch.rand(1, 3, 96, 96))
    assert set(seen[0].flatten().tolist()) == {0.0, 4.0}
    assert torch.equal(seen[0], seen[0][:, :1].expand_as(seen[0]))


def test_biases_learn_at_twice_the_rate() -> None:
    setup = fake_setup(overrides={"network.name": "fake", "optim.lr": 1e-5, "optim.head_lr_factor": 10})
    network = small()
    roles = list(network.parameter_groups())
    rates = dict(zip(roles, (group.lr for group in setup.segmenter(network).groups), strict=True))
    assert rates == pytest.approx({"encoder": 1e-5, "encoder_bias": 2e-5, "head": 1e-4, "head_bias": 2e-4})
    around = HRDA(small, 3)
    assert around.rate_factors() == network.rate_factors()
    assert setup.segmenter(build_fake()).groups[0].lr == 1e-5


def build_fake() -> HRDA:
    from udabench.testing.network import FakeNetwork

    return HRDA(lambda: FakeNetwork(3), 3)


def test_groups_hold_every_parameter_once() -> None:
    network = small()
    groups = network.parameter_groups()
    ids = [id(p) for group in groups.values() for p in group]
    assert sorted(ids) == sorted(id(p) for p in network.parameters())
    assert all(p.dim() == 1 for role in ("encoder_bias", "head_bias") for p in groups[role])
    assert all(p.dim() == 4 for role in ("encoder", "head") for p in groups[role])
    assert {id(p) for p in network.backbone.parameters()} == {
        id(p) for role, group in groups.items() if role.startswith("encoder") for p in group
    }


@pytest.mark.parametrize(
    ("shapes", "first", "left"),
    [
        (torchvision_vgg(), "classifier.0.weight", {"classifier.6.weight", "classifier.6.bias"}),
        (torchvision_vgg(1, 4), "classifier.1.weight", {"classifier.6.weight", "classifier.6.bias"}),
        (timm_vgg(), "pre_logits.fc1.weight", {"head.fc.weight", "head.fc.bias"}),
    ],
)
def test_imagenet_files_cover_the_encoder(tmp_path: Path, shapes: Shapes, first: str, left: set[str]) -> None:
    state = values(shapes)
    state[first] = torch.rand(shapes[first])
    torch.save(state, tmp_path / "vgg.pth")
    network = FCN8s(3, str(tmp_path / "vgg.pth"), width=1)
    (report,) = network.reports
    assert (report.coverage, set(report.unexpected)) == (1.0, left)
    own = network.backbone.state_dict()
    assert torch.equal(own["features.28.weight"], state["features.28.weight"])
    patch = torch.rand(2, 8, 7, 7)
    dense = F.linear(patch.flatten(1), state[first].flatten(1))
    torch.testing.assert_close(F.conv2d(patch, own["fc6.weight"])[:, :, 0, 0], dense)


def test_names_and_shapes_are_those_of_the_libraries() -> None:
    with torch.device("meta"):
        own = {name: value.shape for name, value in VGG16().state_dict().items()}
        for published in (torchvision.models.vgg16(), timm.create_model("vgg16")):
            renamed = {name: value.shape for name, value in vgg_names(published.state_dict()).items()}
            assert {name: shape for name, shape in renamed.items() if name in own} == own


def test_a_whole_network_of_bdl(tmp_path: Path) -> None:
    state = values(bdl_fcn8s())
    torch.save(state, tmp_path / "gta5.pth")
    network = small(width=1)
    report = load_network(network, tmp_path / "gta5.pth", KEYMAPS["fcn8s"])
    assert report.unexpected == ()
    assert report.coverage == 1.0
    own = network.state_dict()
    for name, layer in zip(NAMES, CONVOLUTIONS, strict=True):
        assert torch.equal(own[f"backbone.features.{layer}.weight"], state[f"{name}.weight"])
    assert torch.equal(own["score_pool3.bias"], state["score_pool3.bias"])


def test_lineages_normalise_as_their_weights_expect() -> None:
    assert small().backbone.normalization is TORCH
    caffe = FCN8s(2, "none", width=1, lineage="caffe")
    assert caffe.backbone.normalization is CAFFE
    assert caffe.mean_color == pytest.approx(CAFFE.mean_color)
    red = torch.zeros(1, 3, 1, 1)
    red[:, 0] = 1
    means = [104.00698793, 116.66876762, 122.67891434]
    assert caffe.normalize(red).flatten().tolist() == pytest.approx([-means[0], -means[1], 255 - means[2]])


def test_built_by_name(registry: Registry) -> None:
    network = build_network(registry, "vgg16-fcn8s", 5, "none", {"width": 2, "lineage": "caffe", "bias_rate": 1})
    assert isinstance(network, FCN8s)
    assert (network.classes, network.feature_channels) == (5, (8, 16, 128))
    assert network.rate_factors() == {"encoder_bias": 1, "head_bias": 1}
    assert (network.reports[0].source, network.reports[0].coverage) == ("none (random)", 0.0)
    around = build_network(registry, "hrda:vgg16-fcn8s", 5, "none", {"width": 1}).eval()
    output = around(torch.rand(1, 3, 32, 64))
    assert output.logits.shape == (1, 5, 32, 64)
    assert output.score_map is output.logits


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lineage": "mmseg"}, "use one of torchvision, caffe"),
        ({"width": 0}, "use a whole number >= 1"),
        ({"bias_rate": 0}, "use a number > 0"),
        ({"bias_rate": "twice"}, "use a number > 0"),
        ({"widht": 2}, "Did you mean 'width'?"),
    ],
)
def test_wrong_options(registry: Registry, options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError) as caught:
        build_network(registry, "vgg16-fcn8s", 2, "none", options)
    assert words in str(caught.value)


def test_weights_of_another_width_are_refused(tmp_path: Path) -> None:
    torch.save(values(torchvision_vgg()), tmp_path / "vgg.pth")
    with pytest.raises(CheckpointError, match=r"Other shapes: features\.0\.weight \(1, 3, 3, 3\)"):
        FCN8s(2, str(tmp_path / "vgg.pth"), width=2)
