"""Self-training with ClassMix: pseudo-labels of a teacher, their weight, and the mixed image (DACS, DAFormer)."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from torch import Generator as Rng
from torch import Tensor

from udabench.augment.classmix import class_mask, paste
from udabench.augment.photometry import StrongAugment
from udabench.config import MethodConfig, setting
from udabench.errors import UsageError
from udabench.method import Samples
from udabench.parts.losses import upsample
from udabench.size import Size

Scope = Literal["image", "batch"]


class SelfTrainingConfig(MethodConfig):
    """Keys of DAFormer's self-training, with its values; a method overrides what differs."""

    ema: float = setting(0.999, "momentum of the teacher", origin="DAFormer code", ge=0, lt=1)
    copy_buffers: bool = setting(False, "the teacher takes over running statistics", origin="DAFormer code")
    teacher_norms: Literal["running", "batch"] = setting(
        "batch", "statistics in the teacher's batch norms", origin="DAFormer code"
    )
    threshold: float = setting(0.968, "confidence that counts as sure", origin="DACS code", ge=0, le=1)
    weight_scope: Scope = setting("batch", "share of sure pixels is taken per image or batch", origin="DAFormer code")
    ignored_top: int = setting(
        15, "top rows without pseudo-labels, where the crop is as high as the image", origin="DAFormer code",
        unit="rows", ge=0,
    )  # fmt: skip
    ignored_bottom: int = setting(
        120, "bottom rows without pseudo-labels, likewise (the car's bonnet)", origin="DAFormer code", unit="rows", ge=0
    )
    mix_scope: Scope = setting("batch", "ClassMix draws from the classes of the image or batch", origin="DAFormer code")
    jitter_strength: float = setting(0.2, "colour jitter of mixed images", origin="DAFormer code", ge=0, le=0.5)
    jitter_chance: float = setting(0.8, "chance of colour jitter", origin="DACS code", ge=0, le=1)
    blur_chance: float = setting(0.5, "chance of blur", origin="DACS code", ge=0, le=1)
    ce_avg: Literal["all", "valid"] = setting(
        "all", "cross entropy divided by all pixels or by the labelled ones", origin="DAFormer code (mmseg 0.16)"
    )

    student_batch: Literal["separate", "mixed", "all"] = setting(
        "separate",
        "forward passes of the student: one each; source and mixed images joint; all joint",
        origin="DAFormer code",
    )
    feature_distance: float = setting(
        0.005,
        "weight of the distance to the features of the student's initial encoder, on thing classes; 0: off",
        origin="DAFormer code",
        ge=0,
    )
    feature_majority: float = setting(
        0.75, "share of a feature cell that one thing class must cover", origin="DAFormer code", ge=0, le=1
    )

    def check_rows(self, crop: Size, size: Size) -> None:
        """Raises UsageError where the ignored rows would leave no pseudo-label of a crop of images of ``size``."""
        rows = self.ignored_top + self.ignored_bottom
        if crop.height == size.height and rows >= crop.height:
            raise UsageError(
                f"ignored_top + ignored_bottom = {rows} rows leave nothing of a crop of {crop.height} rows. "
                "They are meant for images 512 high: make them smaller, or 0."
            )

    def augment(self) -> StrongAugment:
        """The photometric augmentation of mixed images."""
        return StrongAugment(self.jitter_strength, self.jitter_chance, self.blur_chance)


class PseudoLabels(NamedTuple):
    """What a teacher claims of target images, at their full size.

    Attributes:
        label: N H W int64, the most probable class everywhere (no pixel is filtered).
        confidence: N H W, its probability.
        weight: N H W, factor of each pixel's loss.
        share: N, share of pixels whose confidence reaches the threshold.
    """

    label: Tensor
    confidence: Tensor
    weight: Tensor
    share: Tensor


@torch.no_grad()
def claim_labels(
    logits: Tensor, size: tuple[int, int], threshold: float = 0.968, scope: Scope = "batch", valid: Tensor | None = None
) -> PseudoLabels:
    """Pseudo-labels of a teacher's logits N C h w, upsampled bilinearly to ``size``.

    The weight is the share of pixels with confidence >= threshold: of the image (T2S-DA, Eq S2) or of the batch (code
    of DACS and DAFormer); 0 where ``valid`` (N H W bool) is False.
    """
    confidence, label = upsample(logits.float(), size).softmax(1).max(1)
    share = (confidence >= threshold).float().mean((1, 2))
    scale = share if scope == "image" else share.mean().expand_as(share)
    weight = scale.view(-1, 1, 1) * (torch.ones_like(confidence) if valid is None else valid)
    return PseudoLabels(label, confidence, weight, share)


def ignore_rows(weight: Tensor, size: Size, top: int, bottom: int) -> Tensor:
    """Zero the weight of the top and bottom rows, if the crop spans the image's full height.

    Args:
        weight: N H W, of the crop.
        size: of the resized image that the crop was cut from.
        top, bottom: rows.
    """
    height = weight.shape[1]
    if height != size.height or top + bottom == 0:
        return weight
    rows = torch.arange(height, device=weight.device).view(1, -1, 1)
    return weight * ((rows >= top) & (rows < height - bottom))


class Mixed(NamedTuple):
    """Source classes pasted onto target images.

    Attributes:
        image: N 3 H W, augmented.
        label: N H W int64.
        weight: N H W, 1 on pasted pixels.
        mask: N H W bool, where the source was pasted.
    """

    image: Tensor
    label: Tensor
    weight: Tensor
    mask: Tensor


@torch.no_grad()
def mix_domains(
    source: Samples, target: Samples, pseudo: PseudoLabels, augment: StrongAugment, rng: Rng, scope: Scope = "batch"
) -> Mixed:
    """Paste half of the classes of source image i onto target image i, then jitter and blur.

    Where the batch holds more target than source images, the source images are used in turn.
    """
    if source.label is None:
        raise ValueError("mixing needs source labels")
    pick = torch.arange(len(target.image), device=target.image.device) % len(source.image)
    image, label = source.image[pick], source.label[pick]
    mask = class_mask(label, rng, scope)
    weight = paste(mask, torch.ones_like(pseudo.weight), pseudo.weight)
    mixed = augment(paste(mask, image, target.image), rng)
    return Mixed(mixed, paste(mask, label, pseudo.label), weight, mask)
