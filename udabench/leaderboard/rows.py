"""Rows: the seeds of one configuration, at one predictor and checkpoint."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

from udabench.config import RunConfig, extra_of
from udabench.errors import RecordError
from udabench.leaderboard.statistics import Spread, paired_difference
from udabench.results import Record, Score

BASELINE = "source_only"
TOLD = 4
"""Values that are named of a row that shares its name with others; the settings' table has all."""


@dataclass(frozen=True)
class Row:
    """Records that differ in the seed alone.

    Attributes:
        records: by seed.
        key: ``<predictor>.<checkpoint>`` of the score that is shown.
        variant: what it does otherwise than the rows of the same method, preset and network: ``alignment=none``.
    """

    records: tuple[Record, ...]
    key: str
    variant: str = ""

    @property
    def first(self) -> Record:
        """The record of the lowest seed: for what all of them share."""
        return self.records[0]

    @property
    def method(self) -> str:
        """Its name; ``proda + sam`` where something is around it."""
        return self.first.method_title

    @cached_property
    def scores(self) -> dict[int, Score]:
        """Seed -> score, where the run has it."""
        found = ((r.seed, score) for r in self.records for score in r.evaluations if score.key == self.key)
        return dict(found)

    @property
    def score(self) -> Score:
        """Any of the scores: for what all of them share."""
        return next(iter(self.scores.values()))

    @property
    def seeds(self) -> int:
        return len(self.scores)

    def mean(self, metric: str) -> Spread:
        """Of a mean IoU over the seeds, in 0..1."""
        return Spread.of([score.means[metric] for score in self.scores.values()])

    def iou(self, name: str) -> Spread:
        """Of one class's IoU over the seeds, in 0..1."""
        return Spread.of([score.iou[name] for score in self.scores.values()])

    def over(self, other: Row, metric: str) -> Spread:
        """The difference to another row, paired by seed."""
        mine = {seed: score.means[metric] for seed, score in self.scores.items()}
        return paired_difference(mine, {seed: score.means[metric] for seed, score in other.scores.items()})

    def setting(self, key: str) -> Any:
        """A value of the configuration; ``unknown`` where the record does not state it."""
        return self.first.config.get(key, "unknown")

    def with_score(self, key: str) -> Row:
        """The same runs, another score."""
        return replace(self, key=key)


def group(records: Iterable[Record]) -> list[Row]:
    """Rows of records of one task and protocol, best headline first; those that saw the target's labels come last.

    Raises:
        RecordError: two records of one configuration have the same seed.
    """
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record.config_hash, record.headline.key), []).append(record)
    rows = [Row(_by_seed(members), key) for (_, key), members in groups.items()]
    return sorted(_told_apart(rows), key=_rank)


def _told_apart(rows: Iterable[Row]) -> Iterator[Row]:
    names: dict[tuple[str, str | None, str], list[Row]] = {}
    for row in rows:
        names.setdefault((row.method, row.first.preset, row.first.network.name), []).append(row)
    unhashed = {key for key, _, field in RunConfig().leaves() if not extra_of(field, "hashed", True)}
    for same in names.values():
        keys = [key for key in same[0].first.config if len({repr(row.setting(key)) for row in same}) > 1]
        told = [key for key in keys if key not in unhashed]
        for row in same:
            parts = [f"{key.rpartition('.')[2]}={row.setting(key)}" for key in told[:TOLD]]
            yield replace(row, variant=", ".join(parts + ["..."] * (len(told) > TOLD)))


def _by_seed(records: list[Record]) -> tuple[Record, ...]:
    ordered = sorted(records, key=lambda r: (r.seed, r.run))
    for one, other in pairwise(ordered):
        if one.seed == other.seed:
            raise RecordError(
                f"{one.run} and {other.run} are the same experiment with the same seed (configuration "
                f"{one.config_hash}, seed {one.seed}). Remove one of the two."
            )
    return tuple(ordered)


def _rank(row: Row) -> tuple[bool, float, str, str]:
    mean = row.mean(row.first.task.headline).mean
    return row.first.flags.target_labels, -mean if mean == mean else 1.0, row.first.config_hash, row.key


def other_scores(row: Row) -> list[Row]:
    """The same runs at the other predictors and checkpoints that they were evaluated at."""
    keys = dict.fromkeys(score.key for record in row.records for score in record.evaluations)
    return [row.with_score(key) for key in keys if key != row.key]


def baseline(row: Row, rows: Sequence[Row]) -> Row | None:
    """The ``source_only`` row of the same network and initial weights; of several that which shares most settings."""
    if row.first.method == BASELINE:
        return None
    candidates = [r for r in rows if r.first.method == BASELINE and _network(r) == _network(row)]
    if not candidates:
        return None
    return min(candidates, key=lambda r: (-_shared(r, row), r.first.config_hash))


def _network(row: Row) -> tuple[str, str]:
    return row.first.network.name, row.first.network.weights


def _shared(one: Row, other: Row) -> int:
    pairs = ((key, value) for key, value in one.first.config.items() if not key.startswith("settings."))
    return sum(key in other.first.config and other.first.config[key] == value for key, value in pairs)
