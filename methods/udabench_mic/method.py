"""MIC (Hoyer et al., "MIC: Masked Image Consistency for Context-Enhanced Domain Adaptation", 2023).

L = L_inner + lambda_M CE(f(x_masked), pseudo-label): the inner method's pseudo-labels and their weights, a network
that sees three tenths of the image.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Generator as Rng
from torch import Tensor

from udabench.augment.masks import block_mask, hide
from udabench.augment.photometry import StrongAugment
from udabench.method import Batch, Event, Loss, Panel, Setup, Shared, Step
from udabench.parts.losses import segmentation_loss
from udabench.parts.norms import statistics_kept
from udabench.parts.wrapper import Wrapper
from udabench.world import own, world_size
from udabench_mic.config import MICConfig


class MIC(Wrapper):
    """Consistency of masked target images with the pseudo-labels of the method inside."""

    Config = MICConfig
    config: MICConfig
    needs_shared = True

    def __init__(self, config: MICConfig, setup: Setup) -> None:
        super().__init__(config, setup)
        self.block = config.block or max(1, setup.crop.height // 16)
        self.augment = StrongAugment(
            config.masked_jitter_strength, config.masked_jitter_chance, config.masked_blur_chance
        )

    def wrap(self, step: Step) -> Step:
        return partial(self.step, step)

    def step(self, inner: Step, batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, Any]:
        """The inner step, then the masked images. Returns what the inner step returns."""
        shared = yield from inner(batch, iteration, rng)
        # A stage of the inner method that trains on the source alone has nothing to share.
        if isinstance(shared, Shared) and self.config.masked_weight > 0:
            yield from self._masked(shared, rng)
        return shared

    def _masked(self, shared: Shared, rng: Rng) -> Generator[Event, None, None]:
        image = self.hide_blocks(shared, rng)
        apart = self.config.masked_norms == "apart"
        with statistics_kept(shared.network) if apart else nullcontext():
            output = shared.network(image)
        loss = segmentation_loss(output, shared.label, shared.weight, self.config.masked_ce_avg)
        yield Loss("masked", self.config.masked_weight * loss, outputs={"masked": output})
        yield Panel("masked", lambda: image)

    @torch.no_grad()
    def hide_blocks(self, shared: Shared, rng: Rng) -> Tensor:
        """The target images, augmented anew, with most blocks in the colour that normalises to 0: N 3 H W."""
        image = self.augment(shared.samples.image, rng)
        count, _, height, width = image.shape
        keep = own(block_mask(count * world_size(), height, width, self.block, self.config.mask_ratio, rng))
        return hide(image, keep, shared.network.mean_color)
