"""Networks told by the names and shapes of their checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from published import (
    MIT_B5,
    RESNET101,
    Shapes,
    convolution,
    daformer,
    daformer_head,
    deeplab_head,
    hrda,
    hrda_attention,
    mmseg_resnet,
    official_mit,
    under,
    values,
)  # fmt: skip

from udabench.errors import CheckpointError
from udabench.networks.build import build_network
from udabench.networks.keymaps import mmseg_network
from udabench.networks.recognise import recognise
from udabench.networks.weights import load_state
from udabench.registry import Registry

RESNET = under("backbone.", {k: v for k, v in mmseg_resnet(RESNET101).items() if not k.startswith("fc.")})
REDUCED = {"lineage": "mmseg", "dilations": "adaptsegnet-legacy"}
FULL = {"lineage": "mmseg", "dilations": "deeplab"}
ATTENTION = {"attention": "deeplabv2", "attention_dilations": "adaptsegnet-legacy"}


def shapes_only(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Tensors without values: a full network costs nothing."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def hrda_on_resnet() -> Shapes:
    heads = deeplab_head("decode_head.head", 2) | deeplab_head("decode_head.scale_attention", 2)
    return RESNET | heads


@pytest.mark.parametrize(
    ("model", "name", "options"),
    [
        (daformer(MIT_B5), "mit_b5-daformer", {}),
        (daformer(), "mit_b0-daformer", {}),
        (hrda(MIT_B5), "hrda:mit_b5-daformer", {}),
        (RESNET | deeplab_head("decode_head", 2), "resnet101-deeplabv2", REDUCED),
        (RESNET | deeplab_head("decode_head", 4), "resnet101-deeplabv2", FULL),
        (hrda_on_resnet(), "hrda:resnet101-deeplabv2", REDUCED | ATTENTION),
        (under("backbone.", official_mit()) | hrda_attention("decode_head"), "mit_b0-segformer", {}),
    ],
)
def test_networks_of_the_papers(registry: Registry, model: Shapes, name: str, options: Mapping[str, Any]) -> None:
    state = mmseg_network(shapes_only(under("model.", model)))
    found = recognise(state)
    assert (found.name, found.options, found.classes) == (name, options, 19)
    with torch.device("meta"):
        built = build_network(registry, found.name, found.classes, "none", found.options).state_dict()
    built = {name: value for name, value in built.items() if not name.endswith("num_batches_tracked")}
    assert {k: v.shape for k, v in built.items()} == {k: v.shape for k, v in state.items()}


def test_widths_and_outputs_are_read_from_the_shapes(registry: Registry) -> None:
    narrow = {name: tuple(64 if n == 256 else 256 if n == 1024 else n for n in shape)
              for name, shape in daformer_head("decode_head", 16, (32, 64, 160, 250)).items()}  # fmt: skip
    model = under("backbone.", official_mit()) | narrow
    found = recognise(mmseg_network(shapes_only(model)))
    assert (found.name, found.options, found.classes) == ("mit_b0-daformer", {"head.width": 64}, 16)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (convolution("backbone.features.0", 8, 3, 3), "encoder is not recognised"),
        (under("backbone.", mmseg_resnet((1, 1, 1, 1))), "encoder is not recognised"),
        (RESNET, "head is not recognised"),
        (RESNET | deeplab_head("decode_head", 3), "2 or 4 branches"),
        ({"features.0.weight": (1,)}, "It has: none"),
    ],
)
def test_what_is_not_known_is_refused(model: Shapes, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        recognise(mmseg_network(shapes_only(model)))


def test_values_arrive_in_an_hrda_of_resnet(registry: Registry) -> None:
    blocks = {k: v for k, v in mmseg_resnet((3, 4, 6, 3)).items() if not k.startswith("fc.")}
    heads = deeplab_head("decode_head.head", 2, 3) | deeplab_head("decode_head.scale_attention", 2, 3)
    published = values(under("model.", under("backbone.", blocks) | heads))
    state = mmseg_network(published)
    found = recognise(state)
    network = build_network(registry, found.name, 3, "none", found.options)
    assert load_state(network, state, "file").unexpected == ()
    expected = published["model.decode_head.scale_attention.aspp_modules.1.conv.bias"]
    assert torch.equal(network.state_dict()["scale_attention.branches.1.bias"], expected)
