"""From a batch to its translated source images."""

from __future__ import annotations

import torch
from torch import Generator as Rng
from torch import Tensor

from udabench.method import Batch, Context, Samples, Setup
from udabench.size import Size
from udabench.translate.base import Translator


@torch.no_grad()
def translate_source(translator: Translator, batch: Batch, rng: Rng) -> Tensor:
    """The batch's source crops in the target's look: N 3 H W in [0, 1].

    Raises ValueError when there is no source, or no target for a translator that needs one.
    """
    if batch.source is None:
        raise ValueError("the batch holds no source images to translate")
    if translator.paired and batch.target is None:
        raise ValueError(f"{type(translator).__name__} needs target images; this stage has none")
    return translator.translate(batch.source, batch.target if translator.paired else None, rng)


def whole_target(setup: Setup) -> Size | None:
    """The context of a stage whose paired engine sees whole target images; None where the crop is one already."""
    whole, crop = setup.target_size, setup.crop
    return whole if whole.height > crop.height or whole.width > crop.width else None


def translate_crops(translator: Translator, source: Samples, target: Samples | None, rng: Rng) -> Tensor:
    """Translate the contexts where the source has one (T2S-DA: FDA before the shared crop), else the crops."""
    if source.context is None:
        return translator(source.image, None if target is None else target.image, rng)  # type: ignore[no-any-return]
    style = None
    if target is not None:
        style = target.image if target.context is None else target.context.image
    whole = translator(source.context.image, style, rng)
    height, width = source.image.shape[-2:]
    return cut(source.context._replace(image=whole), Size(height, width))


def cut(context: Context, size: Size) -> Tensor:
    """The crop of each image at its place: N 3 H W. Positions stay on their device."""
    image = context.image
    device = image.device
    rows = context.top.to(device).view(-1, 1, 1) + torch.arange(size.height, device=device).view(1, -1, 1)
    columns = context.left.to(device).view(-1, 1, 1) + torch.arange(size.width, device=device).view(1, 1, -1)
    images = torch.arange(len(image), device=device).view(-1, 1, 1)
    return image.permute(0, 2, 3, 1)[images, rows, columns].permute(0, 3, 1, 2).contiguous()
