"""The configuration of a run: pydantic models whose every value has a default, bounds, a unit and an origin."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, SerializeAsAny, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from udabench.scales import Scales
from udabench.size import Size

ADDON_SUFFIX = "_addon"
"""Of a method around another whose plain name a whole method has: ``addons=sam`` is ``sam_addon``."""
ASSUMED = "assumed"
"""The origin of a value that no source states. The record lists these."""


def setting(
    default: Any,
    about: str,
    *,
    origin: str = "udabench",
    unit: str = "",
    hashed: bool = True,
    stages: str | None = None,
    **bounds: Any,
) -> Any:
    """A pydantic field with what the dry run prints.

    Args:
        default: the value when nothing else states one.
        about: one line for people.
        origin: ``paper Eq 13``, ``paper Tab S8``, ``DAFormer code``, ``assumed``, or ``udabench`` for our own choices.
        unit: ``iterations``, ``pixels``, ...
        hashed: False for what does not change the experiment (paths, device, logging).
        stages: a pattern of the names of the stages that the value acts on (``adapt*``): a run may take over the
            stages before them from one with another value. None: not said, then it may act on all, or where it alone
            makes the list of stages longer or shorter, on those.
        bounds: pydantic's ``ge``, ``le``, ``gt``, ``lt``, ``min_length``, ...
    """
    extra: dict[str, Any] = {"origin": origin, "unit": unit, "hashed": hashed}
    if stages is not None:
        extra["stages"] = stages
    if callable(default):
        return Field(default_factory=default, description=about, json_schema_extra=extra, **bounds)
    return Field(default, description=about, json_schema_extra=extra, **bounds)


def extra_of(field: FieldInfo, key: str, fallback: Any = "") -> Any:
    """``origin``, ``unit`` or ``hashed`` of a field made by :func:`setting`."""
    extra = field.json_schema_extra
    return extra.get(key, fallback) if isinstance(extra, dict) else fallback


class Section(BaseModel):
    """A part of the configuration: immutable, and no key is accepted that it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _truth_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name is not None:
            annotation = cls.model_fields[info.field_name].annotation
            kinds = {annotation, *get_args(annotation)}
            if kinds & {int, float} and bool not in kinds:
                raise ValueError("input should be a number, not true or false")
        return value


class MethodConfig(Section):
    """A method's own values. Subclass it and declare each with :func:`setting`."""

    @property
    def begins_trained(self) -> bool:
        """Whether the first stage uses what the network says: that of an untrained one is noise."""
        return False


class WrapperConfig(MethodConfig):
    """Values of a method around another one. A subclass may give ``inner`` a default.

    When a run is planned, the inner method's own Config takes the place of ``inner_settings``' type: its values are
    leaves of the configuration as all others are.
    """

    inner: str = setting("", "method that is wrapped")
    inner_preset: str | None = setting(
        None, "preset of the inner method; none: the one that is called as this method's, where there is one",
        hashed=False,
    )  # fmt: skip
    inner_settings: SerializeAsAny[MethodConfig] = setting(MethodConfig, "values of the inner method")

    @property
    def begins_trained(self) -> bool:
        return self.inner_settings.begins_trained


class NetworkConfig(Section):
    name: str = setting("resnet101-deeplabv2", "<backbone>-<head>, or a whole network")
    weights: str = setting("imagenet", "imagenet, a published name, a file, or none")
    options: dict[str, Any] = setting(dict, "options of backbone, head and network")


class DataConfig(Section):
    source_size: Size | None = setting(None, "source images are resized to this; none: the data set's usual size")
    target_size: Size | None = setting(None, "target images are resized to this; none: the data set's usual size")
    crop: Size = setting("512x512", "shared training crop", origin="DAFormer code", unit="pixels")
    source_batch: int = setting(2, "source images a step", origin="DAFormer code", unit="images", ge=1, le=256)
    target_batch: int = setting(2, "target images a step", origin="DAFormer code", unit="images", ge=1, le=256)
    flip: float = setting(0.5, "chance of mirroring, both domains", origin="DAFormer code", ge=0, le=1)
    crop_max_ratio: float = setting(
        0.75,
        "a labelled crop is drawn again (10 times) while one class covers more of it; 1: off",
        origin="DAFormer code",
        gt=0,
        le=1,
    )
    scale: Scales | None = setting(
        None,
        "factor by which a training image is scaled before the crop, both domains: [0.8, 1, 1.2] (one of these) or "
        "0.5-1.5 (a range); none: 1. Where it is then smaller than the crop it is padded",
    )
    sampler: Literal["uniform", "rcs", "paired", "weighted"] = setting("uniform", "how source images are drawn")
    rcs_temperature: float = setting(0.01, "T of rare class sampling", origin="DAFormer code", gt=0)
    rcs_min_pixels: int = setting(
        3000, "an image counts for a class from so many native pixels on", origin="DAFormer code", unit="pixels", ge=0
    )
    rcs_min_crop_ratio: float = setting(
        0.5, "share of rcs_min_pixels that a crop must hold", origin="DAFormer code", ge=0
    )
    source_split: str = setting("train", "source split that is trained on")
    target_split: str = setting("train", "target split that is adapted to")
    source_options: dict[str, Any] = setting(dict, "options of the source data set")
    target_options: dict[str, Any] = setting(dict, "options of the target data set")
    classes: str | None = setting(None, "class list of the outputs; none: the target's usual one")
    roots: dict[str, Path] = setting(dict, "data set name -> folder", hashed=False)
    store: Path | None = setting(None, "folder of prepared data sets", hashed=False)
    workers: int = setting(-1, "loader processes; -1: as many as needed", hashed=False, ge=-1, le=64)


class OptimConfig(Section):
    kind: Literal["adamw", "adam", "sgd"] = setting("adamw", "optimiser", origin="DAFormer code")
    lr: float = setting(6e-5, "learning rate of the encoder", origin="DAFormer code", gt=0, le=1)
    head_lr_factor: float = setting(
        10.0, "learning rate of heads and projectors over the encoder's", origin="DAFormer code", gt=0
    )
    weight_decay: float = setting(0.01, "weight decay", origin="DAFormer code", ge=0, le=1)
    decay_norms: bool = setting(False, "whether parameters named norm decay too", origin="DAFormer code")
    momentum: float = setting(0.9, "momentum (SGD), beta 1 (Adam)", origin="DAFormer code", ge=0, lt=1)
    beta2: float = setting(0.999, "beta 2 (Adam)", origin="DAFormer code", ge=0, lt=1)
    schedule: Literal["poly", "step"] = setting(
        "poly", "how the rate falls after the warm-up: polynomially, or by a factor each so many iterations"
    )
    warmup: int = setting(1500, "linear warm-up", origin="DAFormer code", unit="iterations", ge=0)
    warmup_ratio: float = setting(1e-6, "first factor of the warm-up", origin="DAFormer code", ge=0, le=1)
    power: float = setting(1.0, "power of the polynomial decay", origin="DAFormer code", ge=0)
    horizon: int | None = setting(
        None, "iterations until the rate is 0; none: the length of the stage", unit="iterations", ge=1
    )
    step_every: int | None = setting(
        None, "schedule = step: iterations after each of which the rate falls", unit="iterations", ge=1
    )
    step_gamma: float = setting(0.1, "schedule = step: factor by which it falls", origin="BDL code", gt=0, le=1)

    @model_validator(mode="after")
    def _keys_belong_to_the_schedule(self) -> OptimConfig:
        if self.schedule == "step" and self.step_every is None:
            raise ValueError("optim.schedule = step needs optim.step_every, the iterations after which the rate falls")
        foreign = ("power", "horizon") if self.schedule == "step" else ("step_every", "step_gamma")
        fields = type(self).model_fields
        stated = [f"optim.{key}" for key in foreign if getattr(self, key) != fields[key].default]
        if stated:
            usual = ", ".join(f"optim.{key}={json.dumps(fields[key].default)}" for key in foreign)
            raise ValueError(
                f"{' and '.join(stated)} would change nothing under optim.schedule = {self.schedule}; leave out, or "
                f"set back: {usual}"
            )
        return self


class EvaluateConfig(Section):
    domain: Literal["target", "source"] = setting("target", "data set that is evaluated")
    split: str = setting("val", "its split")
    size: Size | None = setting(None, "input size; none: as in training", unit="pixels")
    mode: Literal["whole", "slide"] = setting("whole", "whole image, or averaged windows")
    window: Size = setting("1024x1024", "window of slide", origin="HRDA code", unit="pixels")
    stride: Size = setting("512x512", "stride of slide", origin="HRDA code", unit="pixels")
    flip: bool = setting(False, "average with the mirrored image")
    align_corners: bool = setting(False, "how logits are resized to the label", origin="DAFormer code")
    restrict_to_source: bool = setting(False, "forbid classes that the source lacks in the argmax")
    batch: int = setting(1, "images a forward pass", unit="images", ge=1, hashed=False)
    predictors: tuple[str, ...] | None = setting(
        None, "networks that are evaluated, such as [student]; none: all of the method's", hashed=False
    )
    limit: int | None = setting(None, "first so many images only (flagged in the record)", unit="images", ge=1)


class EngineConfig(Section):
    precision: Literal["float32", "bfloat16", "float16"] = setting(
        "float32", "autocast type; float16 with loss scaling"
    )
    accumulate: int = setting(1, "micro-batches a step, for methods that allow it", ge=1)
    device: str = setting("auto", "auto, cpu, cuda, cuda:1", hashed=False)
    deterministic: bool = setting(False, "deterministic kernels where they exist", hashed=False)
    sync_norms: bool = setting(
        False, "with several GPUs, batch norms see the batch of all (as one process does)", hashed=False
    )
    channels_last: bool = setting(False, "memory format", hashed=False)
    compile: bool = setting(False, "torch.compile of the networks", hashed=False)
    threads: int | None = setting(None, "CPU threads; none: torch's choice", ge=1, hashed=False)
    log_every: int = setting(50, "scalars", unit="iterations", ge=1, hashed=False)
    panel_every: int = setting(1000, "pictures; 0: none", unit="iterations", ge=0, hashed=False)
    checkpoint_every: int = setting(1000, "checkpoints", unit="iterations", ge=1, hashed=False)
    keep_checkpoints: int = setting(2, "checkpoints that are kept", ge=1, hashed=False)
    eval_every: int | None = setting(None, "evaluations during training", unit="iterations", ge=1, hashed=False)
    probe: Literal["entropy"] | None = setting(None, "what is measured beside the metric", hashed=False)


class RunConfig(Section):
    """One run, whole. ``settings`` is the method's own part."""

    method: str = setting("", "method plugin")
    source: str = setting("", "labelled data set")
    target: str = setting("cityscapes", "data set that is adapted to")
    preset: str | None = setting(None, "row of a paper that the values come from", hashed=False)
    seed: int = setting(0, "seed of everything random", ge=0, lt=2**31, hashed=False)
    iterations: int = setting(
        40_000, "training steps (a method with stages shares them out)", origin="DAFormer code", unit="iterations", ge=1
    )
    init_from: Path | None = setting(None, "folder of a finished run that this one begins from", hashed=False)
    ancestor: str | None = setting(None, "that run's row (same seed), or its digest; follows from init_from")
    network: NetworkConfig = Field(default_factory=NetworkConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    optim: OptimConfig = Field(default_factory=OptimConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    engine: EngineConfig = Field(default_factory=EngineConfig)
    settings: SerializeAsAny[MethodConfig] = Field(default_factory=MethodConfig)

    @model_validator(mode="after")
    def _crop_fits(self) -> RunConfig:
        for side, size in (("source", self.data.source_size), ("target", self.data.target_size)):
            crop = self.data.crop
            if size is not None and (crop.height > size.height or crop.width > size.width):
                raise ValueError(
                    f"data.crop {crop} does not fit data.{side}_size {size}; set data.crop to {size} or "
                    "smaller, or choose a preset for small images (quick)"
                )
        return self

    def leaves(self) -> Iterator[tuple[str, Any, FieldInfo]]:
        """Every value: dotted key, value, field."""
        yield from _leaves(self, "")

    @property
    def methods(self) -> tuple[str, ...]:
        """The method and those that it wraps, the outermost first."""
        names, settings = [self.method], self.settings
        while isinstance(settings, WrapperConfig):
            names.append(settings.inner)
            settings = settings.inner_settings
        return tuple(names)

    @property
    def title(self) -> str:
        """What it is called in tables and legends: ``proda + sam``."""
        return method_title(self.methods)

    @property
    def hash(self) -> str:
        """8 hex digits over all that makes the experiment: no seed, path, device or logging. A leaderboard row."""
        values = {key: value for key, value, field in self.leaves() if extra_of(field, "hashed", True)}
        # A run that begins from no other is what it was before there was this key.
        if self.ancestor is None:
            del values["ancestor"]
        return hashlib.sha256(json.dumps(values, sort_keys=True, default=str).encode()).hexdigest()[:8]


def method_title(methods: Sequence[str]) -> str:
    """A method and those around it, given the outermost first: ``proda + sam``."""
    return " + ".join(name.removesuffix(ADDON_SUFFIX) if name != methods[-1] else name for name in reversed(methods))


def _leaves(section: BaseModel, prefix: str) -> Iterator[tuple[str, Any, FieldInfo]]:
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value, field


def flatten(values: Mapping[str, Any], model: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """Nested or dotted values as (dotted key, value); mappings that are themselves values stay whole."""
    for key, value in values.items():
        inner = section_of(model, str(key)) or section_of(model, f"settings.{key}")
        if isinstance(value, Mapping) and inner is not None:
            yield from ((f"{key}.{name}", each) for name, each in flatten(value, inner))
        else:
            yield str(key), value


def section_of(model: type[BaseModel], key: str) -> type[BaseModel] | None:
    """The model of a field that is itself a section, by its name or dotted key; else None."""
    name, _, rest = key.partition(".")
    field = model.model_fields.get(name)
    annotation = field.annotation if field else None
    section = annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
    return section_of(section, rest) if section is not None and rest else section
