"""What a sweep asks for: rows, each on its data sets with its seeds and its grid. A YAML file, or options."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from udabench.errors import UsageError
from udabench.resolve import read_yaml
from udabench.run.plan import Request
from udabench.sweep.kin import Kin, Place, misnamed


def _as_list(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _different(values: list[Any]) -> list[Any]:
    twice = sorted({str(value) for value in values if values.count(value) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands twice")
    return values


_listed = (Field(min_length=1), BeforeValidator(_as_list))
Names = Annotated[list[Annotated[str, Field(min_length=1)]], *_listed]
Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**31, strict=True)]], *_listed]
Choices = Annotated[list[Any], *_listed]


class Values(BaseModel):
    """What a row, its group or the whole file says; the innermost wins, ``set`` and ``grid`` add up.

    Attributes:
        sources, targets: data sets; every pair is run.
        set: key -> value, full or short keys.
        grid: key -> values; every combination is run.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: Names | None = None
    targets: Names | None = None
    seeds: Seeds | None = None
    preset: str | None = None
    network: str | None = None
    set: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, Choices] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _nothing_twice(self) -> Values:
        for values in (self.sources, self.targets, self.seeds, *self.grid.values()):
            _different(values or [])
        return self


class Row(Values):
    """A method with its values.

    Attributes:
        label: its name in the sweep's own tables; none: its method.
        init_from: the name of another row of its group: each run begins from that row's run on the same data sets with
            the same seed, as by ``udabench run --init-from``, once that is done. Of the same method it goes on behind
            the stages that agree (a next generation); of another it begins with the network's weights.
    """

    method: str
    label: str | None = None
    init_from: Annotated[str, Field(min_length=1)] | None = None

    @property
    def name(self) -> str:
        return self.label or self.method


class Group(Values):
    """Rows that share something."""

    rows: list[Row] = Field(min_length=1)


class SweepFile(Values):
    """A whole sweep: ``rows``, or ``groups`` of them."""

    rows: list[Row] = Field(default_factory=list)
    groups: list[Group] = Field(default_factory=list)

    @model_validator(mode="after")
    def _is_complete(self) -> SweepFile:
        if not self.rows and not self.groups:
            raise ValueError("there are no rows: name them under 'rows', or under 'groups'")
        homeless = [levels[-1].name for levels in self._levels() if _said(levels, "sources") is None]
        if homeless:
            raise ValueError(f"no source is named for {', '.join(homeless)}: say it under 'sources'")
        problems = [*self._contradictions(), *self._misnamed()]
        if problems:
            raise ValueError("\n  ".join(problems))
        return self

    def _contradictions(self) -> Iterator[str]:
        for levels in self._levels():
            both = _added(levels, "set").keys() & _added(levels, "grid").keys()
            if both:
                yield f"{levels[-1].name}: {', '.join(sorted(both))} stands in 'set' and in 'grid'"

    def _misnamed(self) -> Iterator[str]:
        for group in self._groups():
            yield from misnamed([_kin((self, group, row)) for row in group.rows])

    def points(self) -> Iterator[Point]:
        """Every experiment in the order of the file."""
        for number, group in enumerate(self._groups()):
            for row in group.rows:
                for point in _points((self, group, row)):
                    yield _placed(point, number, row)

    def _groups(self) -> list[Group]:
        return ([Group(rows=self.rows)] if self.rows else []) + self.groups

    def _levels(self) -> Iterator[Levels]:
        """Each row behind what holds for it, the weakest first."""
        for group in self._groups():
            for row in group.rows:
                yield self, group, row


Levels = tuple[SweepFile, Group, Row]
_MODELS: dict[str, type[Values]] = {"rows": Row, "groups": Group}


def _said(levels: Levels, name: str, fallback: Any = None) -> Any:
    return next((value for level in reversed(levels) if (value := getattr(level, name)) is not None), fallback)


def _added(levels: Levels, name: str) -> dict[str, Any]:
    """Mappings of all levels; what a later one says also stands later."""
    added: dict[str, Any] = {}
    for level in levels:
        for key, value in getattr(level, name).items():
            added.pop(key, None)
            added[key] = value
    return added


@dataclass(frozen=True)
class Point:
    """One configuration on one pair of data sets, with its seeds.

    Attributes:
        row: what was asked for, in a few words.
        place: in the file; the configurations of a grid share it.
        ancestor: the place of that which it begins from.
        carried: it was not chosen; others that were begin from it.
    """

    row: str
    request: Request
    seeds: tuple[int, ...]
    place: Place | None = None
    ancestor: Place | None = None
    carried: bool = False


def _points(levels: Levels) -> Iterator[Point]:
    row, shared, grid = levels[-1], _added(levels, "set"), _added(levels, "grid")
    network, preset = _said(levels, "network"), _said(levels, "preset")
    flags = {"network.name": network} if network else {}
    targets, seeds = _said(levels, "targets", ["cityscapes"]), _said(levels, "seeds", [0])
    for source, target in product(_said(levels, "sources"), targets):
        for chosen in product(*grid.values()):
            varied = dict(zip(grid, chosen, strict=True))
            label = " ".join([row.name, *(f"{key}={value}" for key, value in varied.items())])
            request = Request(row.method, source, target, preset, flags, {**shared, **varied})
            yield Point(label, request, tuple(seeds))


def _placed(point: Point, group: int, row: Row) -> Point:
    source, target = point.request.source, point.request.target
    ancestor = None if row.init_from is None else Place(group, row.init_from, source, target)
    return replace(point, place=Place(group, row.name, source, target), ancestor=ancestor)


def _kin(levels: Levels) -> Kin:
    row, variants = levels[-1], prod(len(values) for values in _added(levels, "grid").values())
    runs = {(point.request.source, point.request.target, seed) for point in _points(levels) for seed in point.seeds}
    return Kin(row.name, row.init_from, variants, frozenset(runs))


def read_sweep(path: Path) -> SweepFile:
    """Raises UsageError with every problem of the file at once."""
    return parse_sweep(read_yaml(path), str(path))


def parse_sweep(values: Mapping[str, Any], origin: str) -> SweepFile:
    """``origin``: a file, or the command line. Raises UsageError with every problem at once."""
    try:
        return SweepFile.model_validate(values)
    except ValidationError as error:
        problems = "\n".join(f"  {_explain(dict(each))}" for each in error.errors())
        raise UsageError(f"{origin} describes no sweep:\n{problems}") from error


def _explain(error: dict[str, Any]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] != "extra_forbidden":
        message = error["msg"].removeprefix("Value error, ")
        return f"{place}: {message[0].lower()}{message[1:]}" if place else message
    parent = [part for part in error["loc"][:-1] if isinstance(part, str)]
    model: type[Values] = _MODELS.get(parent[-1] if parent else "", SweepFile)
    near = difflib.get_close_matches(str(error["loc"][-1]), list(model.model_fields), 1, 0.5)
    known = f" Did you mean '{near[0]}'?" if near else f" Known: {', '.join(model.model_fields)}."
    return f"{place}: unknown key.{known} (a value of the configuration goes under 'set')"
