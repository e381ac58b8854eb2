"""Dilated ResNets of output stride 8, in the three lineages that published weights come from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from torch import Tensor, nn
from torchvision.models import ResNet50_Weights, ResNet101_Weights, WeightsEnum
from torchvision.models.resnet import Bottleneck
from torchvision.models.resnet import ResNet as Body

from udabench.errors import CheckpointError, UsageError
from udabench.network import CAFFE, TORCH, UNIT, Backbone, WeightsReport
from udabench.networks.keymaps import resnet_names
from udabench.networks.weights import Published, State, find, load_weights

Lineage = Literal["torchvision", "caffe", "mmseg", "proda"]
_ADVENT = Published("https://github.com/valeoai/ADVENT/releases/download/v0.1/DeepLab_resnet_pretrained_imagenet.pth")
_ADAPTSEGNET = Published(
    "http://vllab.ucmerced.edu/ytsai/CVPR18/DeepLab_resnet_pretrained_init-f81d91e8.pth",
    note="(The authors' server has answered 404 since 2023; later projects mirror the file under the same name.)",
)
_DACS = Published("http://vllab1.ucmerced.edu/~whung/adv-semi-seg/resnet101COCO-41f33a49.pth")
_SIMCLR = Published(
    "https://github.com/microsoft/ProDA",
    name="r101_1x_sk0.pth",
    by_hand=True,
    note="(The README links to it under 'simclr model': SimCLRv2's ResNet-101 1x, converted to PyTorch.)",
)
_OPENMMLAB = "https://download.openmmlab.com/pretrain/third_party/"


def torchvision_file(weights: WeightsEnum) -> Published:
    """torchvision names its files after the first digits of their SHA-256."""
    url: str = weights.url
    return Published(url, sha256=url.rpartition("-")[2].removesuffix(".pth"))


class ResNet(Backbone):
    """A ResNet whose third and fourth stage keep the grid of the second and dilate by 2 and 4 instead.

    Lineages, which differ in more than the file they are read from:

    - ``torchvision``: 7x7 stem, stride in the 3x3; the first block of a dilated stage keeps the dilation before it.
    - ``mmseg``: ResNetV1c, a stem of three 3x3 convolutions, else as above (``contract_dilation``). DAFormer's R101.
    - ``proda``: built as ``caffe``, but RGB in [0, 1] as it is, and batch norms that are learnt. ProDA.
    - ``caffe``: stride in the first 1x1, every block of a stage fully dilated, max pooling with ``ceil_mode`` (a
      1024x512 image gives a 129x65 map), BGR input less the mean, and batch norms whose affine values are fixed.
      AdaptSegNet, ADVENT, DACS.

    Weights: ``imagenet`` (torchvision's V1), ``imagenet-v2`` (torchvision only), ``imagenet-coco`` (caffe, 101),
    ``coco`` (caffe, 101: the file that DACS starts from), ``simclr`` (proda, 101: SimCLRv2's, which its stages of
    distillation start from), a file, or ``none``.

    ``domain_stem``: a stem and a first stage of the target's own, which begin with the same weights (the code of BiCL).
    """

    blocks: ClassVar[tuple[int, int, int, int]]
    published: ClassVar[Mapping[Lineage, Mapping[str, Published]]]
    channels = (256, 512, 1024, 2048)
    strides = (4, 8, 8, 8)

    def __init__(self, argument: str = "", *, lineage: Lineage = "torchvision", domain_stem: bool = False) -> None:
        super().__init__()
        if argument:
            raise UsageError(f"Backbone {type(self).__name__.lower()} takes no argument, but got '{argument}'.")
        if lineage not in get_args(Lineage):
            raise UsageError(f"Option lineage is '{lineage}'; use one of {', '.join(get_args(Lineage))}.")
        self.lineage = lineage
        self.normalization = {"caffe": CAFFE, "proda": UNIT}.get(lineage, TORCH)
        self.default_norm = "affine_frozen" if lineage == "caffe" else "train"
        body = Body(Bottleneck, list(self.blocks), replace_stride_with_dilation=[False, True, True])
        self.stem = _deep_stem() if lineage == "mmseg" else None
        if self.stem is None:
            self.conv1, self.bn1, self.relu = body.conv1, body.bn1, body.relu
        as_caffe = lineage in ("caffe", "proda")
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1, ceil_mode=as_caffe)
        self.layer1, self.layer2, self.layer3, self.layer4 = body.layer1, body.layer2, body.layer3, body.layer4
        if as_caffe:
            self._as_caffe()
        self.by_domain = domain_stem
        own = ("conv1", "bn1", "layer1") if self.stem is None else ("stem", "layer1")
        self.target = nn.ModuleDict({name: copy.deepcopy(getattr(self, name)) for name in own if domain_stem})

    def _as_caffe(self) -> None:
        for stage, dilation in ((self.layer2, 1), (self.layer3, 2), (self.layer4, 4)):
            first = stage[0]
            first.conv1.stride, first.conv2.stride = first.conv2.stride, (1, 1)
            first.conv2.dilation = first.conv2.padding = (dilation, dilation)

    def forward(self, image: Tensor, domain: str | None = None) -> tuple[Tensor, ...]:
        own: Any = self.target if domain == "target" and self.by_domain else self
        x = self.relu(own.bn1(own.conv1(image))) if self.stem is None else own.stem(image)
        first = own.layer1(self.maxpool(x))
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)

    def copy_source_layers(self) -> None:
        for name, module in self.target.items():
            module.load_state_dict(getattr(self, name).state_dict())

    def load_weights(self, weights: str) -> WeightsReport:
        return load_weights(self, weights, self.published[self.lineage], self._names)

    def _names(self, state: State) -> State:
        if self.lineage != "caffe" and any(key.startswith("Scale.") for key in state):
            raise CheckpointError(
                f"These weights are of the Caffe lineage, but the network is built in the lineage {self.lineage}: "
                "names would fit, strides and input would not. Set the network's option lineage to caffe."
            )
        named = resnet_names(state)
        shared = {f"target.{key}": value for key, value in named.items() if key.partition(".")[0] in self.target}
        return {**shared, **named}

    def weights_path(self, weights: str) -> Path | None:
        return find(weights, self.published[self.lineage])


class ResNet50(ResNet):
    """ResNet-50 (He et al. 2016), output stride 8."""

    blocks = (3, 4, 6, 3)
    published: ClassVar[Mapping[Lineage, Mapping[str, Published]]] = {
        "torchvision": {
            "imagenet": torchvision_file(ResNet50_Weights.IMAGENET1K_V1),
            "imagenet-v2": torchvision_file(ResNet50_Weights.IMAGENET1K_V2),
        },
        "mmseg": {"imagenet": Published(_OPENMMLAB + "resnet50_v1c-2cccc1ad.pth")},
        "caffe": {},
        "proda": {"imagenet": torchvision_file(ResNet50_Weights.IMAGENET1K_V1)},
    }


class ResNet101(ResNet):
    """ResNet-101 (He et al. 2016), output stride 8: the DeepLabV2 of the papers."""

    blocks = (3, 4, 23, 3)
    published: ClassVar[Mapping[Lineage, Mapping[str, Published]]] = {
        "torchvision": {
            "imagenet": torchvision_file(ResNet101_Weights.IMAGENET1K_V1),
            "imagenet-v2": torchvision_file(ResNet101_Weights.IMAGENET1K_V2),
        },
        "mmseg": {"imagenet": Published(_OPENMMLAB + "resnet101_v1c-e67eebb6.pth")},
        "caffe": {"imagenet": _ADVENT, "imagenet-coco": _ADAPTSEGNET, "coco": _DACS},
        "proda": {"imagenet": torchvision_file(ResNet101_Weights.IMAGENET1K_V1), "simclr": _SIMCLR},
    }


def _deep_stem() -> nn.Sequential:
    """ResNetV1c's stem (He et al. 2019, "Bag of Tricks", ResNet-C): layers 0, 1, 3, 4, 6, 7 hold values."""
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((3, 32, 2), (32, 32, 1), (32, 64, 1)):
        convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")
        layers += [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
