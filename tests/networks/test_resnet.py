"""The lineages of the dilated ResNet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter

from udabench.errors import CheckpointError, UsageError
from udabench.network import CAFFE, TORCH
from udabench.networks.resnet import Lineage, ResNet, ResNet50, ResNet101


class Tiny(ResNet):
    """The same layout with two blocks a stage."""

    blocks = (1, 2, 2, 2)
    published = ResNet50.published


def blocks(backbone: ResNet, stage: int) -> Iterator[nn.Module]:
    yield from backbone.get_submodule(f"layer{stage}").children()


@pytest.mark.parametrize(("lineage", "size"), [("torchvision", (64, 128)), ("mmseg", (64, 128)), ("caffe", (65, 129))])
def test_size_of_the_last_map(lineage: Lineage, size: tuple[int, int]) -> None:
    """1024x512: the Caffe lineage pools with ceil_mode."""
    with torch.device("meta"):
        maps = ResNet101(lineage=lineage).eval()(torch.zeros(1, 3, 512, 1024))
    assert tuple(maps[-1].shape) == (1, 2048, *size)
    assert [m.shape[1] for m in maps] == [256, 512, 1024, 2048]


def test_torchvision_lineage_equals_torchvision() -> None:
    reference = resnet50(replace_stride_with_dilation=[False, True, True]).eval()
    ours = ResNet50().eval()
    ours.load_state_dict(reference.state_dict(), strict=False)
    taps = IntermediateLayerGetter(reference, {f"layer{i}": str(i) for i in (1, 2, 3, 4)})
    image = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        for mine, theirs in zip(ours(image), taps(image).values(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("lineage", "dilations"), [("torchvision", [1, 2, 2, 4]), ("mmseg", [1, 2, 2, 4]), ("caffe", [2, 2, 4, 4])]
)
def test_dilation_of_each_block(lineage: Lineage, dilations: list[int]) -> None:
    backbone = Tiny(lineage=lineage)
    convolutions = [block.conv2 for stage in (3, 4) for block in blocks(backbone, stage)]
    assert [c.dilation[0] for c in convolutions] == dilations
    assert all(c.padding == c.dilation and c.stride == (1, 1) for c in convolutions)


@pytest.mark.parametrize(("lineage", "strides"), [("torchvision", (1, 2)), ("mmseg", (1, 2)), ("caffe", (2, 1))])
def test_where_a_bottleneck_strides(lineage: Lineage, strides: tuple[int, int]) -> None:
    first = next(blocks(Tiny(lineage=lineage), 2))
    assert (first.conv1.stride[0], first.conv2.stride[0]) == strides
    assert first.downsample[0].stride == (2, 2)


def test_deep_stem_has_the_published_names() -> None:
    names = {k for k in Tiny(lineage="mmseg").state_dict() if k.startswith("stem.") and k.endswith("weight")}
    assert names == {f"stem.{i}.weight" for i in (0, 1, 3, 4, 6, 7)}
    assert not any(k.startswith("conv1") for k in Tiny(lineage="mmseg").state_dict())


def test_a_lineage_brings_its_normalisation_and_norms() -> None:
    assert (Tiny().normalization, Tiny().default_norm) == (TORCH, "train")
    assert (Tiny(lineage="caffe").normalization, Tiny(lineage="caffe").default_norm) == (CAFFE, "affine_frozen")


def test_imagenet_means_version_1() -> None:
    """Version 2 is another baseline and needs its own name."""
    published = ResNet101.published["torchvision"]
    assert published["imagenet"].file == "resnet101-63fe2227.pth"
    assert published["imagenet"].sha256 == "63fe2227"
    assert published["imagenet-v2"].file == "resnet101-cd907fc2.pth"


def test_unknown_lineage_weights_and_argument() -> None:
    with pytest.raises(UsageError, match="lineage is 'tf'"):
        ResNet50(lineage="tf")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="takes no argument"):
        ResNet50("wide")
    with pytest.raises(UsageError, match="Did you mean 'imagenet'"):
        Tiny().load_weights("imagnet")
    with pytest.raises(UsageError, match="Unknown weights 'imagenet-v2'"):
        Tiny(lineage="mmseg").load_weights("imagenet-v2")


@pytest.mark.parametrize(("saved", "built"), [("mmseg", "torchvision"), ("torchvision", "mmseg")])
def test_weights_with_another_stem_are_refused(tmp_path: Path, saved: Lineage, built: Lineage) -> None:
    """They share all names but the stem's."""
    torch.save(Tiny(lineage=saved).state_dict(), tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match=r"Missing: .*lineage"):
        Tiny(lineage=built).load_weights(str(tmp_path / "file.pth"))


def test_deeplab_weights_ask_for_the_caffe_lineage(tmp_path: Path) -> None:
    state = {f"Scale.{k}": v for k, v in Tiny().state_dict().items()}
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(CheckpointError, match="lineage to caffe"):
        Tiny().load_weights(str(tmp_path / "file.pth"))
    assert Tiny(lineage="caffe").load_weights(str(tmp_path / "file.pth")).coverage == 1
