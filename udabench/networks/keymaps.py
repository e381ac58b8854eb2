"""Published names of values -> ours. Each map takes a state dict and returns one; names it does not know pass through.

Sources of the names: torchvision; mmsegmentation 0.16 (ResNetV1c, MiT, DAFormer, HRDA, MIC); the DeepLab files of
AdaptSegNet and ADVENT; ProDA's; VGG16 of timm and of the Caffe conversion, FCN-8s of BDL; the official MiT files;
Hugging Face's SegFormer, before and since transformers 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from udabench.errors import CheckpointError
from udabench.networks.weights import State, strip_prefix

KeyMap = Callable[[Mapping[str, Tensor]], State]
_Rules = Sequence[tuple[str, str]]

_MMSEG_HEAD: _Rules = (
    (r"^decode_head\.", "head."),
    (r"^auxiliary_head\.", "auxiliary_head."),
    (r"(head|scale_attention)\.embed_layers\.(\d+)\.proj\.", r"\1.embeds.\2."),
    (r"head\.fuse_layer\.aspp_modules\.(\d+)\.depthwise_conv\.", r"head.aspp.\1.depthwise."),
    (r"head\.fuse_layer\.aspp_modules\.(\d+)\.pointwise_conv\.", r"head.aspp.\1.pointwise."),
    (r"head\.fuse_layer\.aspp_modules\.(\d+)\.", r"head.aspp.\1."),
    (r"head\.fuse_layer\.bottleneck\.", "head.fuse."),
    (r"(head|scale_attention)\.fuse_layer\.(conv|bn)\.", r"\1.fuse.\2."),
    (r"head\.aspp_modules\.(\d+)\.conv\.", r"head.branches.\1."),
    (r"scale_attention\.aspp_modules\.(\d+)\.conv\.", r"scale_attention.branches.\1."),
    (r"\.conv_seg\.", ".classifier."),
)
_PRODA: _Rules = (
    (r"^bn_pretrain\.", "head.input_bn."),
    (r"^layer5\.conv2d_list\.", "head.branches."),
    (r"^layer5\.bottleneck\.0\.se\.0\.", "head.excite.fc1."),
    (r"^layer5\.bottleneck\.0\.se\.2\.", "head.excite.fc2."),
    (r"^layer5\.bottleneck\.1\.", "head.fuse.0."),
    (r"^layer5\.bottleneck\.2\.", "head.fuse.1."),
    (r"^layer5\.head\.1\.", "head.classifier."),
)
_EXCITATION = re.compile(r"\.excite\.fc[12]\.weight$")
_ATTENTION = "scale_attention."
_VGG: _Rules = (
    # the Caffe conversion counts the dropout before a linear layer
    (r"^(classifier\.[01]|pre_logits\.fc1)\.", "fc6."),
    (r"^(classifier\.[34]|pre_logits\.fc2)\.", "fc7."),
)
_VGG_BLOCKS = (2, 2, 3, 3, 3)
"""Convolutions of each block."""
_EMBEDDING = re.compile(r"\.embeds\.\d+\.weight$")
_HUGGING_FACE: _Rules = (
    # up to transformers 4, and every file on the hub
    (r"^encoder\.patch_embeddings\.(\d)\.layer_norm\.", r"patch_embed{\1}.norm."),
    (r"^encoder\.patch_embeddings\.(\d)\.", r"patch_embed{\1}."),
    (r"^encoder\.block\.(\d)\.(\d+)\.", r"block{\1}.\2."),
    (r"^encoder\.layer_norm\.(\d)\.", r"norm{\1}."),
    (r"\.layer_norm_([12])\.", r".norm\1."),
    (r"\.attention\.self\.query\.", ".attn.q."),
    (r"\.attention\.self\.(key|value)\.", r".attn.\1."),
    (r"\.attention\.self\.sr\.", ".attn.sr."),
    (r"\.attention\.self\.layer_norm\.", ".attn.norm."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.mlp\.dense([12])\.", r".mlp.fc\1."),
    # since transformers 5
    (r"^stages\.(\d)\.patch_embeddings\.layer_norm\.", r"patch_embed{\1}.norm."),
    (r"^stages\.(\d)\.patch_embeddings\.", r"patch_embed{\1}."),
    (r"^stages\.(\d)\.blocks\.(\d+)\.", r"block{\1}.\2."),
    (r"^stages\.(\d)\.layer_norm\.", r"norm{\1}."),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.q_proj\.", ".attn.q."),
    (r"\.attention\.k_proj\.", ".attn.key."),
    (r"\.attention\.v_proj\.", ".attn.value."),
    (r"\.attention\.o_proj\.", ".attn.proj."),
    (r"\.attention\.sequence_reduction\.sequence_reduction\.", ".attn.sr."),
    (r"\.attention\.sequence_reduction\.layer_norm\.", ".attn.norm."),
)


def resnet_names(state: Mapping[str, Tensor]) -> State:
    """A ResNet encoder out of torchvision's, mmsegmentation's or DeepLab's names."""
    state = _encoder_of(state)
    for key in state:
        prefix, _, rest = key.partition(".")
        if rest == "conv1.weight":  # AdaptSegNet, ADVENT: "Scale."
            return strip_prefix(state, f"{prefix}.")
    return dict(state)


def mit_names(state: Mapping[str, Tensor]) -> State:
    """A MiT encoder out of the official, mmsegmentation's or Hugging Face's names."""
    state = _encoder_of(state)
    for prefix in ("segformer.", "model.segformer."):
        if any(key.startswith(prefix) for key in state):
            state = strip_prefix(state, prefix)
    if not any(key.startswith(("encoder.block.", "stages.")) for key in state):
        return dict(state)
    return _join_key_value({_one_based(_apply(_HUGGING_FACE, key)): value for key, value in state.items()})


def mmseg_network(state: Mapping[str, Tensor], model: str = "student") -> State:
    """A whole network out of a DAFormer, HRDA, MIC or mmsegmentation checkpoint.

    ``backbone.*`` is kept and ``decode_head.*`` becomes ``head.*``. Of HRDA the network inside (``backbone.*``,
    ``decode_head.head.*``) becomes ``inner.*``, and ``decode_head.scale_attention.*`` ``scale_attention.*``.

    Args:
        state: the checkpoint's values.
        model: ``student`` (``model.*``, the one these papers report) or ``teacher`` (``ema_model.*``). A checkpoint of
            one bare network has neither prefix and is taken as it is.
    """
    prefix = {"student": "model.", "teacher": "ema_model."}[model]
    if any(key.startswith(("model.", "ema_model.")) for key in state):
        state = strip_prefix(state, prefix)
        if not state:
            raise CheckpointError(f"The checkpoint holds no {model} (no '{prefix}*').")
    renamed = _around_inner({_apply(_MMSEG_HEAD, _out_of_hrda(key)): value for key, value in state.items()})
    # a linear layer over channels there is a 1x1 convolution here
    return {k: v[:, :, None, None] if _EMBEDDING.search(k) and v.ndim == 2 else v for k, v in renamed.items()}


def mmseg_teacher(state: Mapping[str, Tensor]) -> State:
    """:func:`mmseg_network` of the EMA teacher."""
    return mmseg_network(state, "teacher")


def deeplab_network(state: Mapping[str, Tensor]) -> State:
    """A whole DeepLabV2 out of AdaptSegNet's names: ``layer6`` is the head; ``layer5`` is the auxiliary one beside it,
    and the head where it stands alone."""
    state = resnet_names(state)
    two = any(key.startswith("layer6.") for key in state)
    heads = {"layer6.": "head.", "layer5.": "auxiliary_head." if two else "head."}
    renamed: State = {}
    for key, value in state.items():
        old = next((prefix for prefix in heads if key.startswith(prefix)), None)
        name = heads[old] + key.removeprefix(old) if old else f"backbone.{key}"
        renamed[name.replace(".conv2d_list.", ".branches.")] = value
    return renamed


def proda_network(state: Mapping[str, Tensor]) -> State:
    """A whole network out of the names of ProDA's code; ``bn_pretrain`` is the head's norm of its input."""
    renamed = {_apply(_PRODA, key): value for key, value in state.items()}
    linear = {key: value[:, :, None, None] for key, value in renamed.items() if _EXCITATION.search(key)}
    named = renamed | linear
    return {key if key.startswith("head.") else f"backbone.{key}": value for key, value in named.items()}


def has_teacher(state: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint for :func:`mmseg_network` holds the EMA teacher too."""
    return any(key.startswith("ema_model.") for key in state)


def vgg_names(state: Mapping[str, Tensor]) -> State:
    """A fully convolutional VGG16 out of torchvision's, timm's or the Caffe conversion's names."""
    return {key: _as_convolution(key, value) for key, value in ((_apply(_VGG, k), v) for k, v in state.items())}


def _as_convolution(key: str, value: Tensor) -> Tensor:
    """A linear layer's weights as the kernel that sees the same cells."""
    side = {"fc6.weight": 7, "fc7.weight": 1}.get(key)
    return value.reshape(len(value), -1, side, side) if side else value


def fcn8s_network(state: Mapping[str, Tensor]) -> State:
    """An FCN-8s out of the names of BDL's and FDA's code; its fixed upsampling is left out."""
    kept = {key: value for key, value in state.items() if not key.startswith("upscore")}
    return {re.sub(r"^(features|fc[67])\.", r"backbone.\1.", _vgg_layer(key)): value for key, value in kept.items()}


def _vgg_layer(key: str) -> str:
    """``conv3_1.`` -> ``features.10.``: two layers a convolution (ReLU), one more a block (pooling)."""
    found = re.match(r"conv(\d)_(\d)\.", key)
    if not found:
        return key
    block, number = int(found[1]) - 1, int(found[2]) - 1
    return key.replace(found[0], f"features.{2 * (sum(_VGG_BLOCKS[:block]) + number) + block}.")


KEYMAPS: Mapping[str, KeyMap] = {
    "udabench": dict,
    "mmseg": mmseg_network,
    "mmseg-teacher": mmseg_teacher,
    "deeplab": deeplab_network,
    "proda": proda_network,
    "fcn8s": fcn8s_network,
}
"""Maps for whole networks, by name."""


def _encoder_of(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The encoder's part of a whole network's values, else all of them."""
    for prefix in ("model.backbone.", "backbone."):
        if any(key.startswith(prefix) for key in state):
            return strip_prefix(state, prefix)
    return state


def _out_of_hrda(key: str) -> str:
    key = re.sub(r"^decode_head\.head\.", "decode_head.", key)
    return re.sub(r"^decode_head\.scale_attention\.", "scale_attention.", key)


def _around_inner(state: State) -> State:
    """With a scale attention beside it, the network is HRDA's inner one."""
    if not any(key.startswith(_ATTENTION) for key in state):
        return state
    return {key if key.startswith(_ATTENTION) else f"inner.{key}": value for key, value in state.items()}


def _apply(rules: _Rules, key: str) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _one_based(key: str) -> str:
    """``block{0}.`` -> ``block1.``: Hugging Face counts stages from 0, the official files from 1."""
    return re.sub(r"\{(\d)\}", lambda match: str(int(match[1]) + 1), key)


def _join_key_value(state: State) -> State:
    """``attn.key`` and ``attn.value`` as one ``attn.kv``: the keys' rows first."""
    joined = {key: value for key, value in state.items() if ".attn.key." not in key and ".attn.value." not in key}
    for key, value in state.items():
        partner = key.replace(".attn.key.", ".attn.value.")
        if ".attn.key." in key and partner in state:
            joined[key.replace(".attn.key.", ".attn.kv.")] = torch.cat([value, state[partner]])
    return joined
