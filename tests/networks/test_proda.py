"""ProDA's head, the names of its checkpoints, and the encoder that it stands on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from published import BLOCKS, norm, torchvision_resnet, values
from torch import Tensor
from torch.nn import functional as F

from udabench.errors import CheckpointError, UsageError
from udabench.network import UNIT
from udabench.networks import weights
from udabench.networks.keymaps import KEYMAPS
from udabench.networks.light import LightHead
from udabench.networks.proda import ProDAHead
from udabench.networks.resnet import ResNet, ResNet101
from udabench.networks.segmentation import SegmentationNetwork
from udabench.networks.weights import load_network
from udabench.parts.losses import take


class Tiny(ResNet):
    blocks = BLOCKS
    published = ResNet101.published


def head(**options: object) -> ProDAHead:
    return ProDAHead((8, 2048), (4, 8), 19, **options)  # type: ignore[arg-type]


def test_number_of_parameters_counted_by_hand() -> None:
    """1x1: 2048*256 + 256; four 3x3: 9*2048*256 + 256; five group norms of 2*256; excitation: 1280*80 + 80 and
    80*1280 + 1280; fusion: 9*1280*256 + 256, and its norm; classifier: 256*19."""
    assert sum(p.numel() for p in head().parameters()) == 22_563_408
    assert sum(p.numel() for p in head(input_norm=True).parameters()) == 22_563_408 + 2 * 2048


def test_against_arithmetic_in_float64() -> None:
    mine = ProDAHead((5, 6), (4, 8), 3, width=32, dilations=(2, 3), dropout=0.0).double()
    for parameter in mine.parameters():
        torch.nn.init.normal_(parameter, 0.1, 0.3)
    state = mine.state_dict()
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64)

    def normalised(x: Tensor, name: str) -> Tensor:
        """One channel a group: (x - mean) / sqrt(var + 1e-5)."""
        centred = x - x.mean((2, 3), keepdim=True)
        x = centred / (centred.square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
        return x * state[f"{name}.weight"].view(1, -1, 1, 1) + state[f"{name}.bias"].view(1, -1, 1, 1)

    def convolved(x: Tensor, name: str, dilation: int = 0) -> Tensor:
        weight, bias = state[f"{name}.weight"], state[f"{name}.bias"]
        return F.conv2d(x, weight, bias, padding=dilation, dilation=max(1, dilation))

    branches = [
        normalised(convolved(x, f"branches.{i}.0", dilation), f"branches.{i}.1").clamp(min=0)
        for i, dilation in enumerate((0, 2, 3))
    ]
    joint = torch.cat(branches, 1)
    squeezed = convolved(convolved(joint.mean((2, 3), keepdim=True), "excite.fc1").clamp(min=0), "excite.fc2")
    embedding = normalised(convolved(joint * squeezed.sigmoid(), "fuse.0", 1), "fuse.1")
    logits = torch.einsum("nchw,oc->nohw", embedding, state["classifier.weight"][:, :, 0, 0])
    torch.testing.assert_close(mine.embed([x]), embedding, rtol=0, atol=1e-12)
    torch.testing.assert_close(mine([x]), logits, rtol=0, atol=1e-12)


def test_a_network_shows_the_map_that_its_classifier_reads() -> None:
    backbone = Tiny(lineage="proda")
    network = SegmentationNetwork(backbone, lambda c, s: ProDAHead(c, s, 4, width=32, dropout=0.5), 4)
    output = network(torch.rand(2, 3, 32, 48))
    assert output.embedding is not None
    assert output.embedding.shape == (2, 32, 5, 7)  # pooled with ceil_mode
    assert network.embedding_channels == 32
    # Dropped channels are dropped in the embedding: the logits are the classifier's of what is shown.
    assert torch.equal(network.head.classifier(output.embedding), output.logits)
    second = take(output, 1, 2).embedding
    assert second is not None
    assert torch.equal(second, output.embedding[1:])


def test_light_head_shows_its_own() -> None:
    light = LightHead((4, 8), (4, 8), 3, width=8).eval()
    features = [torch.randn(1, 4, 8, 8), torch.randn(1, 8, 4, 4)]
    assert light.embed(features).shape == (1, 8, 8, 8)
    assert light.embedding_channels == 8
    assert torch.equal(light(features), light.classifier(light.embed(features)))


def test_options_that_cannot_be() -> None:
    for options in ({"width": 40}, {"dropout": 1.0}):
        with pytest.raises(UsageError, match="multiple of 32"):
            head(**options)


# The encoder


def test_lineage_is_caffes_layout_with_images_as_they_are() -> None:
    backbone = Tiny(lineage="proda")
    assert (backbone.normalization, backbone.default_norm) == (UNIT, "train")
    image = torch.rand(1, 3, 2, 2)
    assert torch.equal(backbone.normalization(image), image)
    first = backbone.layer2[0]
    assert (first.conv1.stride[0], first.conv2.stride[0]) == (2, 1)
    with torch.device("meta"):
        maps = ResNet101(lineage="proda").eval()(torch.zeros(1, 3, 512, 896))
    assert tuple(maps[-1].shape) == (1, 2048, 65, 113)


def test_simclr_weights_are_fetched_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(weights.FOLDER, str(tmp_path))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(CheckpointError, match=r"r101_1x_sk0.pth .*github.com/microsoft/ProDA.*UDABENCH_WEIGHTS"):
        Tiny(lineage="proda").load_weights("simclr")
    state = values(torchvision_resnet())
    torch.save({"state_dict": state}, tmp_path / "r101_1x_sk0.pth")
    backbone = Tiny(lineage="proda")
    assert backbone.load_weights("simclr").coverage == 1
    assert torch.equal(backbone.layer3[0].conv2.weight, state["layer3.0.conv2.weight"])


def test_weights_of_another_network_are_named(tmp_path: Path) -> None:
    torch.save({"state_dict": {"encoder.conv1.weight": torch.zeros(64, 3, 7, 7)}}, tmp_path / "simclr.pth")
    with pytest.raises(CheckpointError, match=r"simclr.pth.*conv1.weight"):
        Tiny(lineage="proda").load_weights(str(tmp_path / "simclr.pth"))


# Published checkpoints


def published() -> dict[str, Tensor]:
    shapes = {name: shape for name, shape in torchvision_resnet().items() if not name.startswith("fc.")}
    for i, kernel in enumerate((1, 3, 3, 3, 3)):
        shapes[f"layer5.conv2d_list.{i}.0.weight"] = (256, 2048, kernel, kernel)
        shapes |= {f"layer5.conv2d_list.{i}.0.bias": (256,)} | norm(f"layer5.conv2d_list.{i}.1", 256)
    shapes |= {"layer5.bottleneck.0.se.0.weight": (80, 1280), "layer5.bottleneck.0.se.0.bias": (80,)}
    shapes |= {"layer5.bottleneck.0.se.2.weight": (1280, 80), "layer5.bottleneck.0.se.2.bias": (1280,)}
    shapes |= {"layer5.bottleneck.1.weight": (256, 1280, 3, 3), "layer5.bottleneck.1.bias": (256,)}
    shapes |= norm("layer5.bottleneck.2", 256) | {"layer5.head.1.weight": (19, 256, 1, 1)}
    return values(shapes | norm("bn_pretrain", 2048, batch=True))


def test_every_value_of_a_published_checkpoint_arrives(tmp_path: Path) -> None:
    state = published()
    torch.save({"ResNet101": {"model_state": state}, "iter": 5}, tmp_path / "file.pkl.pth")
    network = SegmentationNetwork(Tiny(lineage="proda"), lambda c, s: ProDAHead(c, s, 19, input_norm=True), 19)
    report = load_network(network, tmp_path / "file.pkl.pth", KEYMAPS["proda"])
    assert (report.missing, report.unexpected) == ((), ())
    mine = network.state_dict()
    assert torch.equal(mine["head.excite.fc2.weight"][:, :, 0, 0], state["layer5.bottleneck.0.se.2.weight"])
    assert torch.equal(mine["head.input_bn.running_var"], state["bn_pretrain.running_var"])
    assert torch.equal(mine["head.branches.3.0.weight"], state["layer5.conv2d_list.3.0.weight"])
    assert torch.equal(mine["backbone.layer4.0.bn2.bias"], state["layer4.0.bn2.bias"])
