"""A network that is used but neither trained nor stored."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Frozen:
    """Holds a module in eval mode outside of its owner's submodules, so that no checkpoint stores it.

    It follows the device of the tensors that it is called with.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module.requires_grad_(False).eval()

    @torch.no_grad()
    def __call__(self, image: Tensor, method: str = "forward", **kwargs: Any) -> Any:
        """``module.<method>(image, **kwargs)`` without a gradient."""
        return self.through(image, method, **kwargs)

    def through(self, image: Tensor, method: str = "forward", **kwargs: Any) -> Any:
        """The same with a gradient to the image."""
        first = next(self.module.parameters(), None)
        if first is not None and first.device != image.device:
            self.module.to(image.device)
        return getattr(self.module, method)(image, **kwargs)
