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
from udabench.parts.ema import Norms
from udabench.parts.losses import Reduction
from udabench.parts.upsampled import most_probable
from udabench.size import Size
from udabench.translate.draws import partners
from udabench.world import gather

Scope = Literal["image", "batch"]
MarginRule = Literal["crop", "image"]


class Margins(NamedTuple):
    """Pixels at the borders of a resized image."""

    top: int = 0
    bottom: int = 0
    left: int = 0
    right: int = 0


class SelfTrainingConfig(MethodConfig):
    """Keys of DAFormer's self-training, with its values; a method overrides what differs."""

    ema: float = setting(0.999, "momentum of the teacher", origin="DAFormer code", ge=0, lt=1)
    ema_update: Literal["before", "after"] = setting(
        "before", "when the teacher follows: before a step, or after its optimiser (DACS)", origin="DAFormer code"
    )
    copy_buffers: bool = setting(False, "the teacher takes over running statistics", origin="DAFormer code")
    teacher_norms: Norms = setting(
        "batch",
        "statistics in the teacher's norms: running; of the batch; train: of the batch, and dropout on (DACS)",
        origin="DAFormer code",
    )
    threshold: float = setting(0.968, "confidence that counts as sure", origin="DACS code", ge=0, le=1)
    weight_scope: Scope = setting("batch", "share of sure pixels is taken per image or batch", origin="DAFormer code")
    ignored_top: int = setting(
        15, "rows at the target's upper border without pseudo-labels", origin="DAFormer code", unit="rows", ge=0
    )
    ignored_bottom: int = setting(
        120, "rows at its lower border, likewise (the car's bonnet)", origin="DAFormer code", unit="rows", ge=0
    )
    ignored_left: int = setting(0, "columns at its left border, likewise", origin="DAFormer code", unit="columns", ge=0)
    ignored_right: int = setting(
        0, "columns at its right border, likewise", origin="DAFormer code", unit="columns", ge=0
    )
    ignored_rule: MarginRule = setting(
        "crop",
        "where borders count: crop: in crops as high (wide) as the resized image; image: wherever a crop meets them "
        "(HRDA)",
        origin="DAFormer code",
    )
    mix_scope: Scope = setting("batch", "ClassMix draws from the classes of the image or batch", origin="DAFormer code")
    jitter_strength: float = setting(0.2, "colour jitter of mixed images", origin="DAFormer code", ge=0, le=0.5)
    jitter_chance: float = setting(0.8, "chance of colour jitter", origin="DACS code", ge=0, le=1)
    blur_chance: float = setting(0.5, "chance of blur", origin="DACS code", ge=0, le=1)
    ce_avg: Reduction = setting(
        "all",
        "supervised cross entropy divided by all pixels or by the labelled ones",
        origin="DAFormer code (mmseg 0.16)",
    )
    mixed_ce_avg: Reduction | None = setting(
        None, "the same of mixed images; none: as ce_avg", origin="DAFormer code (mmseg 0.16)"
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

    def check_margins(self, crop: Size, size: Size) -> None:
        """Raises UsageError where the ignored borders would leave no pseudo-label of a crop of images of ``size``."""
        for side, far, part, whole in (
            ("top", "bottom", crop.height, size.height),
            ("left", "right", crop.width, size.width),
        ):
            ignored = getattr(self, f"ignored_{side}") + getattr(self, f"ignored_{far}")
            if ignored >= whole and (self.ignored_rule == "image" or part == whole):
                raise UsageError(
                    f"ignored_{side} + ignored_{far} = {ignored} leaves nothing of images of {whole} "
                    f"{'rows' if side == 'top' else 'columns'}. Make them smaller, or 0."
                )

    @property
    def margins(self) -> Margins:
        """The ignored borders."""
        return Margins(self.ignored_top, self.ignored_bottom, self.ignored_left, self.ignored_right)

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
    confidence, label = most_probable(logits, size)
    share = (confidence >= threshold).float().mean((1, 2))
    scale = share if scope == "image" else gather(share).mean().expand_as(share)
    weight = scale.view(-1, 1, 1) * (torch.ones_like(confidence) if valid is None else valid)
    return PseudoLabels(label, confidence, weight, share)


def within_margins(samples: Samples, margins: Margins, rule: MarginRule) -> Tensor:
    """Where pixels of crops count: N H W bool, False at the borders of the images that they were cut from.

    Args:
        rule: ``crop``: only crops as high as the image lose rows, only those as wide columns (DAFormer, which crops
            the full height); ``image``: the image is masked before it is cropped (HRDA). Mirrored crops are masked
            where the border has gone.
    """
    top, left = samples.box[:, 0], samples.box[:, 1]
    height, width = samples.image.shape[-2:]
    upright = torch.zeros_like(samples.flipped)
    whole = samples.whole.unsqueeze(2)
    rows = _counting(top, upright, height, whole[:, 0], margins.top, margins.bottom, rule)
    columns = _counting(left, samples.flipped, width, whole[:, 1], margins.left, margins.right, rule)
    return rows.unsqueeze(2) & columns.unsqueeze(1)


def _counting(
    start: Tensor, mirrored: Tensor, length: int, whole: Tensor, before: int, after: int, rule: MarginRule
) -> Tensor:
    """N L bool along one axis, from where each crop starts and how long each image is (N 1)."""
    ahead = torch.arange(length, device=start.device).expand(len(start), -1)
    position = start.unsqueeze(1) + torch.where(mirrored.unsqueeze(1), length - 1 - ahead, ahead)
    inside = (position >= before) & (position < whole - after)
    return inside | (whole != length) if rule == "crop" else inside


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

    Where the batch holds more images of one domain, those of the other are spread over them.
    """
    if source.label is None:
        raise ValueError("mixing needs source labels")
    pick = partners(len(target.image), len(source.image), target.image.device)
    image, label = source.image[pick], source.label[pick]
    mask = class_mask(label, rng, scope)
    weight = paste(mask, torch.ones_like(pseudo.weight), pseudo.weight)
    mixed = augment(paste(mask, image, target.image), rng)
    return Mixed(mixed, paste(mask, label, pseudo.label), weight, mask)
