"""Any feature extractor of timm: ``timm:<model>``, for instance ``timm:convnext_tiny.in12k_ft_in1k``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from udabench.errors import CheckpointError, UsageError, unknown
from udabench.network import TORCH, Backbone, Normalization, WeightsReport
from udabench.networks.weights import Published, State, file_digest, find, load_state, load_weights, obtain

_FINEST = 4
"""Maps finer than this stride are left out: the heads expect a pyramid that starts at 1/4."""


class TimmBackbone(Backbone):
    """A timm model as a pyramid of its maps of stride 4 and more, normalised as timm's configuration says.

    Options: ``output_stride`` (8, 16 or 32), for models that can dilate.
    Weights: ``imagenet`` (what timm calls pretrained), a file with timm's names, or ``none``.
    """

    def __init__(self, argument: str, *, output_stride: int | None = None) -> None:
        super().__init__()
        self.model_name = argument
        self.body, info = _create(argument, output_stride)
        strides, channels = info.reduction(), info.channels()
        self._keep = tuple(i for i, stride in enumerate(strides) if stride >= _FINEST)
        self.strides = tuple(strides[i] for i in self._keep)
        self.channels = tuple(channels[i] for i in self._keep)
        self._channels_last = str(getattr(self.body, "output_fmt", "NCHW")).endswith("NHWC")
        config = _config(argument)
        self.normalization = _normalization(config) if config else TORCH

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        maps = self.body(image)
        kept = [maps[i] for i in self._keep]
        return tuple(m.permute(0, 3, 1, 2).contiguous() if self._channels_last else m for m in kept)

    def load_weights(self, weights: str) -> WeightsReport:
        published = self._published()
        if weights not in published:
            return load_weights(self.body, weights, published, self._own_names)
        path = obtain(weights, published)
        state = self._own_names(self._through_timm(path))
        return load_state(self.body, state, source=self.model_name, digest=file_digest(path))

    def weights_path(self, weights: str) -> Path | None:
        return find(weights, self._published())

    def _published(self) -> Mapping[str, Published]:
        config = _config(self.model_name)
        suffix = f"timm_{self.model_name.replace('/', '_')}"
        if config and config.hf_hub_id:
            file = config.hf_hub_filename or "model.safetensors"
            url = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/{file}"
            return {"imagenet": Published(url, suffix + Path(file).suffix)}
        if config and config.url:
            return {"imagenet": Published(config.url, suffix + Path(config.url).suffix)}
        return {}

    def _through_timm(self, path: Path) -> State:
        """A published file's values as timm's own reader names them; it refuses a file that does not fit."""
        config = _config(self.model_name)
        overlay = {"file": str(path), "source": ""}
        try:
            whole = timm.create_model(
                self.model_name, pretrained=True, num_classes=config.num_classes, pretrained_cfg_overlay=overlay
            )
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            raise CheckpointError(f"{path} does not hold timm's weights of {self.model_name}: {error}") from error
        return dict(whole.state_dict())

    def _own_names(self, state: State) -> State:
        """timm flattens names when it extracts features (``stages.0`` -> ``stages_0``): compare without the marks."""
        own = {_plain(name): name for name in self.body.state_dict()}
        return {own.get(_plain(name), name): value for name, value in state.items()}


def _plain(name: str) -> str:
    return name.removeprefix("model.").replace("_", ".")


def _config(name: str) -> Any:
    """timm's record of the published weights; None where there are none."""
    return timm.get_pretrained_cfg(name)


def _create(name: str, output_stride: int | None) -> tuple[nn.Module, Any]:
    if not name or not timm.is_model(name.partition(".")[0]):
        raise unknown("timm model", name, timm.list_models(f"{name[:4]}*")[:20] if name else ())
    options: dict[str, Any] = {} if output_stride is None else {"output_stride": output_stride}
    try:
        body = timm.create_model(name, features_only=True, **options)
    except (TypeError, RuntimeError, AssertionError, NotImplementedError, KeyError) as error:
        stride = f" with output_stride {output_stride}" if options else ""
        raise UsageError(f"timm's {name} cannot be built as a feature extractor{stride}: {error}") from error
    return body, body.feature_info


def _normalization(config: Any) -> Normalization:
    mean, std = tuple(config.mean), tuple(config.std)
    return TORCH if (mean, std) == (TORCH.mean, TORCH.std) else Normalization("timm", mean, std)
