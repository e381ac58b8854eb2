"""Which network a checkpoint holds, told by names and shapes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from udabench.errors import CheckpointError
from udabench.networks.mit import MitB0, MitB1, MitB2, MitB3, MitB4, MitB5
from udabench.networks.resnet import ResNet50, ResNet101
from udabench.networks.weights import strip_prefix

State = Mapping[str, Tensor]
_WIDTH = 256
"""Of DAFormer's head and of HRDA's attention, unless said otherwise."""
_DILATIONS = {2: "adaptsegnet-legacy", 4: "deeplab"}
"""Names of the head's dilations by the number of its branches."""


@dataclass(frozen=True)
class Recognised:
    """A network's name and options for :func:`udabench.networks.build.build_network`, and its number of outputs."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    classes: int = 0


def recognise(state: State) -> Recognised:
    """The network of a state dict that :func:`udabench.networks.keymaps.mmseg_network` has renamed.

    DAFormer, HRDA and DeepLabV2 on a Mix Transformer or a ResNet. Raises CheckpointError for anything else.
    """
    attention = strip_prefix(state, "scale_attention.")
    inner = strip_prefix(state, "inner.") if attention else state
    backbone, lineage = _backbone(strip_prefix(inner, "backbone."))
    head = _head(strip_prefix(inner, "head."))
    found = Recognised(f"{backbone}-{head.name}", {**lineage, **head.options}, head.classes)
    if not attention:
        return found
    return Recognised(f"hrda:{found.name}", {**found.options, **_attention(attention)}, found.classes)


def _backbone(state: State) -> tuple[str, Mapping[str, Any]]:
    if "patch_embed1.proj.weight" in state:
        shape = tuple(_count(state, rf"block{stage}\.(\d+)\.") for stage in range(1, 5))
        width = state["patch_embed1.proj.weight"].shape[0]
        for mit in (MitB0, MitB1, MitB2, MitB3, MitB4, MitB5):
            if (mit.depths, mit.channels[0]) == (shape, width):
                return f"mit_{mit.variant}", {}
    elif "layer4.0.conv1.weight" in state:
        shape = tuple(_count(state, rf"layer{stage}\.(\d+)\.") for stage in range(1, 5))
        lineage = {"lineage": "mmseg"} if "stem.0.weight" in state else {}
        for resnet in (ResNet50, ResNet101):
            if resnet.blocks == shape:
                return resnet.__name__.lower(), lineage
    raise CheckpointError(_unknown("encoder", "Mix Transformers and ResNets of 50 and 101 layers", state))


def _head(state: State) -> Recognised:
    classifier = state.get("classifier.weight", state.get("branches.0.weight"))
    if classifier is not None and "aspp.0.conv.weight" in state:
        return Recognised("daformer", _width(state, "head.width"), len(classifier))
    if classifier is not None and "fuse.conv.weight" in state:
        return Recognised("segformer", _width(state, "head.width"), len(classifier))
    branches = _count(state, r"branches\.(\d+)\.")
    if classifier is not None and branches in _DILATIONS:
        return Recognised("deeplabv2", {"dilations": _DILATIONS[branches]}, len(classifier))
    raise CheckpointError(_unknown("head", "DAFormer's and DeepLabV2's (of 2 or 4 branches)", state))


def _attention(state: State) -> Mapping[str, Any]:
    branches = _count(state, r"branches\.(\d+)\.")
    if not branches:
        return _width(state, "attention_width")
    return {"attention": "deeplabv2", "attention_dilations": _DILATIONS.get(branches, "deeplab")}


def _width(state: State, option: str) -> Mapping[str, Any]:
    width = len(state["embeds.0.weight"])
    return {} if width == _WIDTH else {option: width}


def _count(state: State, pattern: str) -> int:
    return len({found[1] for name in state if (found := re.match(pattern, name))})


def _unknown(part: str, known: str, state: State) -> str:
    names = ", ".join(sorted(state)[:5]) or "none"
    return (
        f"The checkpoint's {part} is not recognised; known are {known}, with the names of DAFormer's, HRDA's and MIC's "
        f"code. It has: {names}."
    )
