"""Batches as a pure function of (seed, stage, iteration): any process, any order, any restart gives the same tensors.

On the wire (from a loader's process to the engine) images are uint8 0..255 and labels uint8; :func:`to_device` turns
them into what a method sees: float images in [0, 1] and int64 labels. Layers keep their reader's type throughout.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from udabench.data.crop import Place, Window, cut_pixels, draw_place, draw_until, place_around, varied
from udabench.data.cutter import Cutter
from udabench.data.mining import Mined
from udabench.data.randomness import rng_at
from udabench.data.resize import Resized
from udabench.data.sampler import Draw, Sampler
from udabench.data.whole import whole_images
from udabench.dataset import Pixels
from udabench.errors import DataError
from udabench.method import Batch, Context, Domain, Samples
from udabench.scales import Scales
from udabench.size import Size


class LayerReader(Protocol):
    """Reads an artefact of one sample: ... H W, at the size of the resized image. Must be picklable."""

    def read(self, name: str) -> Tensor: ...


@dataclass(frozen=True)
class DomainBatches:
    """One domain's half of every batch.

    Attributes:
        domain: ``source`` or ``target``; part of the random numbers' place.
        images: the data at its resized size; an unlabelled view where labels are not permitted.
        lookup: data set's label ids -> task classes; None: no label is read.
        sampler: which sample stands where.
        batch: samples a batch, of all processes together.
        crop: size of ``Samples.image``.
        context: size of ``Samples.context``.
        scale: factors by which images are scaled before the crop; None: they are not.
        flip: chance of mirroring.
        max_ratio: a labelled crop (the source's, and the target's where its labels are permitted) is drawn again while
            one class covers more; 1: off.
        min_wanted: a crop is drawn again while it holds no more pixels of the class that it was drawn for; 0: off.
        layers: layer name -> its reader.
        uncut: those that are neither cut nor mirrored.
        mined: classes that crops are drawn around.
    """

    domain: Domain
    images: Resized
    lookup: Pixels | None
    sampler: Sampler
    batch: int
    crop: Size
    context: Size | None = None
    scale: Scales | None = None
    flip: float = 0.5
    max_ratio: float = 1.0
    min_wanted: float = 0.0
    layers: Mapping[str, LayerReader] = field(default_factory=dict)
    uncut: tuple[str, ...] = ()
    mined: Mined | None = None

    def samples(self, seed: int, stage: str, positions: range) -> Samples:
        """The samples at these positions of the stream."""
        return stack([self._sample(seed, stage, position) for position in positions])

    def _sample(self, seed: int, stage: str, position: int) -> Samples:
        rng = rng_at(seed, stage, self.domain, position)
        draw = self.sampler.draw(position, rng)
        name = self.images.names[draw.item]
        image, label = self._read(name)
        layers = {layer: self._layer(layer, name) for layer in self.layers}
        cutter = Cutter(self.images.size, self._scaled(rng))
        place = self._place(cutter, label, layers, draw, rng)
        mirror = bool(rng.random() < self.flip)
        crop = place.crop
        context = None if self.context is None else _context(cutter, image, place, mirror)
        return Samples(
            image=cutter.image(image, crop, mirror)[None] if context is None else _shared(context, self.crop),
            label=None if label is None else cutter.label(label, crop, mirror)[None],
            names=(name,),
            valid=cutter.valid(crop, mirror)[None] if self._pads else None,
            box=torch.tensor([crop]),
            size=self.images.size,
            flipped=torch.tensor([mirror]),
            layers={
                layer: (value if layer in self.uncut else cutter.layer(value, crop, mirror))[None]
                for layer, value in layers.items()
            },
            context=context,
            scaled=None if self.scale is None else torch.tensor([cutter.scaled]),
        )

    def _scaled(self, rng: np.random.Generator) -> Size:
        return self.images.size if self.scale is None else self.images.size.scaled(self.scale.draw(rng))

    @property
    def _pads(self) -> bool:
        """Whether a crop may show padding, be there some in this batch or not: the same on every process."""
        if self.scale is None:
            return False
        least, needed = self.images.size.scaled(self.scale.least), self.context or self.crop
        return least.height < needed.height or least.width < needed.width

    def _read(self, name: str) -> tuple[Pixels, Pixels | None]:
        if self.lookup is None:
            return self.images.image(name), None
        image, label = self.images.pair(name)
        return image, self.lookup[label]

    def _place(
        self, cutter: Cutter, label: Pixels | None, layers: Mapping[str, Tensor], draw: Draw, rng: np.random.Generator
    ) -> Place:
        pixel = None if self.mined is None else self.mined.find(layers[self.mined.layer], rng)
        if pixel is not None:
            return place_around(cutter.scale(*pixel), cutter.scaled, self.crop, self.context, rng)

        def anywhere() -> Place:
            return draw_place(cutter.scaled, self.crop, self.context, rng)

        if label is None:
            return anywhere()

        def is_varied(window: Window) -> bool:
            return self.max_ratio >= 1 or varied(cutter.seen(label, window), self.max_ratio)

        def shows_wanted(window: Window) -> bool:
            if draw.wanted is None or self.min_wanted <= 0:
                return True
            return int((cutter.seen(label, window) == draw.wanted).sum()) > self.min_wanted

        # Nested, as in DAFormer: every crop drawn for its class has ten further tries of its own to be varied.
        return draw_until(lambda: draw_until(anywhere, is_varied), shows_wanted)

    def _layer(self, layer: str, name: str) -> Tensor:
        value = self.layers[layer].read(name)
        if layer not in self.uncut and tuple(value.shape[-2:]) != tuple(self.images.size):
            raise DataError(
                f"Layer '{layer}' of '{name}' is {value.shape[-1]}x{value.shape[-2]} but its image is resized to "
                f"{self.images.size}. It was written for another size."
            )
        return value


def _context(cutter: Cutter, image: Pixels, place: Place, mirror: bool) -> Context:
    outer, crop = place.context, place.crop
    inner = crop._replace(top=crop.top - outer.top, left=crop.left - outer.left)
    inner = inner.mirrored(outer.width) if mirror else inner
    return Context(cutter.image(image, outer, mirror)[None], torch.tensor([inner.top]), torch.tensor([inner.left]))


def _shared(context: Context, crop: Size) -> Tensor:
    """The shared crop of a context of one image: the very pixels, however they were scaled; a copy of its own."""
    inner = Window(int(context.top), int(context.left), *crop)
    return context.image[(..., *inner.slices)].clone()


@dataclass(frozen=True)
class BatchFunction:
    """Iteration -> batch, on the wire's types. Picklable; holds no label of a domain without permission.

    ``iteration`` counts batches: with gradient accumulation, micro-batches. Each of ``world`` processes gets its share
    of every batch, in order of their ``rank``: joined they are the batch of one process.
    """

    seed: int
    stage: str
    source: DomainBatches | None
    target: DomainBatches | None
    rank: int = 0
    world: int = 1

    def __call__(self, iteration: int) -> Batch:
        """Raises DataError that names the file."""
        return Batch(self._half(self.source, iteration), self._half(self.target, iteration))

    def _half(self, half: DomainBatches | None, iteration: int) -> Samples | None:
        if half is None:
            return None
        share = half.batch // self.world
        first = iteration * half.batch + self.rank * share
        return half.samples(self.seed, self.stage, range(first, first + share))

    @property
    def images(self) -> int:
        """Images in this process's share of a batch, both domains."""
        return sum(half.batch // self.world for half in (self.source, self.target) if half is not None)


def whole_sample(images: Resized, name: str) -> Samples:
    """A whole resized image without its label, as a batch of one, on the wire's types."""
    window = Window(0, 0, *images.size)
    return whole_images(cut_pixels(images.image(name), window, mirror=False)[None], (name,))


def stack(parts: Sequence[Samples]) -> Samples:
    """Samples of one domain, joined along N."""
    first = parts[0]
    contexts = [part.context for part in parts if part.context is not None]
    labels = [part.label for part in parts if part.label is not None]
    valid = [part.valid for part in parts if part.valid is not None]
    scaled = [part.scaled for part in parts if part.scaled is not None]
    return first._replace(
        image=torch.cat([part.image for part in parts]),
        label=torch.cat(labels) if labels else None,
        names=tuple(name for part in parts for name in part.names),
        valid=torch.cat(valid) if valid else None,
        box=torch.cat([part.box for part in parts]),
        flipped=torch.cat([part.flipped for part in parts]),
        layers={layer: torch.cat([part.layers[layer] for part in parts]) for layer in first.layers},
        context=Context(*(torch.cat(field) for field in zip(*contexts, strict=True))) if contexts else None,
        scaled=torch.cat(scaled) if scaled else None,
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The wire's types -> a method's: images uint8 -> float32 in [0, 1], labels -> int64, everything on ``device``."""
    return Batch(*(None if half is None else samples_to_device(half, device) for half in batch))


def samples_to_device(samples: Samples, device: torch.device) -> Samples:
    """:func:`to_device` for one domain."""

    def move(tensor: Tensor) -> Tensor:
        return tensor.to(device, non_blocking=True)

    context = samples.context
    return samples._replace(
        image=_unit(move(samples.image)),
        label=None if samples.label is None else move(samples.label).long(),
        valid=None if samples.valid is None else move(samples.valid),
        box=move(samples.box),
        flipped=move(samples.flipped),
        layers={layer: move(value) for layer, value in samples.layers.items()},
        context=None if context is None else Context(_unit(move(context.image)), move(context.top), move(context.left)),
        scaled=None if samples.scaled is None else move(samples.scaled),
    )


def _unit(image: Tensor) -> Tensor:
    return image.float().div_(255) if image.dtype == torch.uint8 else image
