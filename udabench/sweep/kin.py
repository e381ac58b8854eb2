"""Which row of a sweep begins from which: the names that say so, and what a choice of rows carries along."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

from udabench.errors import unknown

if TYPE_CHECKING:
    from udabench.sweep.file import Point


class Place(NamedTuple):
    """Where a point stands in its file. ``row``: the row's name, known within its group."""

    group: int
    row: str
    source: str
    target: str


@dataclass(frozen=True, eq=False)
class Kin:
    """What those that begin from a row need to know of it.

    Attributes:
        init_from: the name of the row that it begins from itself.
        variants: configurations of its grid.
        runs: source, target and seed of each.
    """

    name: str
    init_from: str | None
    variants: int
    runs: frozenset[tuple[str, str, int]]


def misnamed(group: Sequence[Kin]) -> Iterator[str]:
    """What is wrong with the rows that those of a group begin from."""
    named: dict[str, list[Kin]] = {}
    for row in group:
        named.setdefault(row.name, []).append(row)
    for row in group:
        if row.init_from is not None and (problem := _problem(row, row.init_from, named)):
            yield f"{row.name}: init_from '{row.init_from}': {problem}"


def _problem(row: Kin, name: str, named: Mapping[str, list[Kin]]) -> str | None:
    found = named.get(name, [])
    if not found:
        return str(unknown("row of its group", name, named))
    if len(found) > 1:
        return f"{len(found)} rows of the group have this name. Give each a 'label' of its own."
    if found[0] is row:
        return "a row cannot begin from itself. Name another row; of two with one method, give one a 'label'."
    if found[0].variants > 1:
        return f"the grid of that row makes {found[0].variants} configurations. Make the one to begin from a row."
    if circle := _circle(row, named):
        return f"the rows begin from each other in a circle ({' <- '.join(circle)}). Take init_from from one of them."
    return _uncovered(row, found[0])


def _circle(row: Kin, named: Mapping[str, list[Kin]]) -> list[str]:
    """The names from a row back to itself; none where there is no way back, or a row before it in the file tells it."""
    path, order, name = [row.name], list(named), row.init_from
    while name is not None and name in named and name not in path:
        path.append(name)
        name = named[name][0].init_from
    first = min(path, key=order.index)
    return [*path, row.name] if name == row.name == first else []


def _uncovered(row: Kin, ancestor: Kin) -> str | None:
    lacking = sorted(row.runs - ancestor.runs)
    if not lacking:
        return None
    said = ", ".join(f"{source} -> {target} seed {seed}" for source, target, seed in lacking)
    return f"that row has no run of {said}. Give both the same sources, targets and seeds."


def carry_ancestors(chosen: Sequence[Point], points: Sequence[Point]) -> list[Point]:
    """The chosen points and whatever they begin from.

    Args:
        chosen: one for each of ``points``, without seeds where it was not chosen.
    """
    known = {point.place: point for point in points}
    needed: dict[Place, set[int]] = {}
    for point in chosen:
        place = point.ancestor
        while place is not None and point.seeds:
            needed.setdefault(place, set()).update(point.seeds)
            place = known[place].ancestor
    return [_carried(one, point, needed) for one, point in zip(chosen, points, strict=True)]


def _carried(chosen: Point, point: Point, needed: Mapping[Place, set[int]]) -> Point:
    if chosen.seeds or point.place is None:
        return chosen
    seeds = needed.get(point.place, set())
    return replace(point, seeds=tuple(seed for seed in point.seeds if seed in seeds), carried=True)
