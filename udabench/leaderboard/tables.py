"""The tables of one task under one protocol."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from udabench.leaderboard.format import NONE, average, difference, duration, measured, percent
from udabench.leaderboard.rows import Row, baseline, group, other_scores
from udabench.leaderboard.table import Column, Line, Table
from udabench.results import Record

NAME = (Column("method", False), Column("preset", False), Column("network", False))


def summary(records: Iterable[Record]) -> list[Table]:
    """The results table of each task and protocol: for a terminal."""
    found = by_protocol(records)
    return [results(group(members)) for _, members in sorted(found.items())]


def by_protocol(records: Iterable[Record]) -> dict[tuple[str, int, str], list[Record]]:
    """(task, minus the number of images, protocol hash) -> records: sorts larger evaluation sets first."""
    found: dict[tuple[str, int, str], list[Record]] = {}
    for record in records:
        key = (record.task.name, -int(record.protocol.get("images", 0)), record.protocol_hash)
        found.setdefault(key, []).append(record)
    return found


def results(rows: Sequence[Row]) -> Table:
    """Means over the seeds, and the difference to the baseline."""
    task = rows[0].first.task
    names = list(task.evaluated)
    columns = (*NAME, *(Column(name) for name in names), Column("Δ source_only"), Column("n"))
    lines = []
    for row in rows:
        base = baseline(row, rows)
        delta = NONE if base is None else difference(row.over(base, task.headline))
        cells = (*_name(row), *(percent(row.mean(name)) for name in names), delta, str(row.seeds))
        lines.append(Line(cells, _notes(row)))
    caption = (
        "Mean ± sample standard deviation over n seeds, in %. "
        f"Δ: {task.headline} minus that of source_only with the same network and initial weights, paired by seed; "
        "in brackets the 95 % t-interval."
    )
    return Table(f"{task.source} → {task.target}", columns, tuple(lines), caption)


def classes(rows: Sequence[Row]) -> Table:
    """IoU of each class."""
    names = rows[0].first.task.classes
    columns = (*NAME, *(Column(name) for name in names))
    lines = (Line((*_name(row), *(percent(row.iou(name), 1) for name in names))) for row in rows)
    return Table("IoU by class", columns, tuple(lines), "Mean ± sample standard deviation over the seeds, in %.")


def settings(rows: Sequence[Row]) -> Table:
    """What may differ between rows of one protocol."""
    heads = (
        "configuration", "initial weights", "training input", "crop", "batch", "iterations", "optimiser", "precision",
        "evaluation input", "inference", "predictor", "checkpoint",
    )  # fmt: skip
    columns = (*NAME, *(Column(head, False) for head in heads))
    return Table("Settings", columns, tuple(Line((*_name(row), *_settings(row))) for row in rows))


def _settings(row: Row) -> tuple[str, ...]:
    get = row.setting
    rate = get("optim.lr")
    return (
        row.first.config_hash,
        row.first.network.weights,
        f"{get('data.source_size')} / {get('data.target_size')}",
        str(get("data.crop")),
        f"{get('data.source_batch')} + {get('data.target_batch')}",
        str(get("iterations")),
        f"{get('optim.kind')} {rate:g}" if isinstance(rate, float) else f"{get('optim.kind')} {rate}",
        str(get("engine.precision")),
        str(get("evaluate.size") or get("data.target_size")),
        _inference(row),
        row.score.predictor,
        _checkpoint(row),
    )


def _inference(row: Row) -> str:
    get = row.setting
    mode = str(get("evaluate.mode"))
    if mode == "slide":
        mode += f" {get('evaluate.window')} by {get('evaluate.stride')}"
    if get("evaluate.flip") is True:
        mode += " + flip"
    return mode + (", source's classes only" if get("evaluate.restrict_to_source") is True else "")


def _checkpoint(row: Row) -> str:
    if row.score.unlabelled_selection:
        return f"{row.score.checkpoint} (selection without labels)"
    return "best (oracle selection)" if row.score.oracle_selection else row.score.checkpoint


def cost(rows: Sequence[Row]) -> Table:
    """What the runs took, on average over the seeds."""
    heads = ("parameters", "training images", "wall time", "step", "data wait", "peak memory", "evaluation")
    columns = (*NAME, *(Column(head) for head in heads), Column("device", False))
    return Table("Cost", columns, tuple(Line((*_name(row), *_cost(row))) for row in rows), "Mean over the seeds.")


def _cost(row: Row) -> tuple[str, ...]:
    costs = [record.cost for record in row.records]
    wall = average([c.wall_seconds for c in costs])
    return (
        f"{row.first.network.parameters / 1e6:.1f} M",
        str(costs[0].images),
        NONE if wall is None else duration(wall),
        measured(average([c.step_seconds for c in costs]), 1e3, 0, "ms"),
        measured(average([c.data_wait for c in costs]), 100, 1, "%"),
        measured(average([c.peak_memory for c in costs]), 2**-30, 2, "GiB"),
        measured(average([c.evaluation_seconds for c in costs]), 1, 1, "s"),
        ", ".join(sorted({record.device for record in row.records})),
    )


def others(rows: Sequence[Row]) -> Table:
    """The same runs at other predictors and checkpoints."""
    names = list(rows[0].first.task.evaluated)
    head = (Column("predictor", False), Column("checkpoint", False))
    columns = (*NAME, *head, *(Column(name) for name in names), Column("n"))
    lines = [
        Line(
            (*_name(row), row.score.predictor, _checkpoint(row), *(percent(row.mean(n)) for n in names), str(row.seeds))
        )
        for main in rows
        for row in other_scores(main)
    ]
    return Table("The same runs at other predictors and checkpoints", columns, tuple(lines))


def _name(row: Row) -> tuple[str, str, str]:
    mark = " (target labels)" if row.first.flags.target_labels else ""
    preset = row.first.preset or (NONE if not row.variant else "")
    return row.method + mark, ", ".join(part for part in (preset, row.variant) if part), row.first.network.name


def _notes(row: Row) -> tuple[str, ...]:
    """Each sentence once, those of the lower seeds first."""
    said = [note for record in row.records for note in record.flags.described()]
    revisions = {record.revision.commit for record in row.records if record.revision is not None}
    if any(record.revision is not None and record.revision.dirty for record in row.records):
        said.append("the code had uncommitted changes")
    if len(revisions) > 1:
        said.append("the seeds ran on different revisions of the code")
    return tuple(dict.fromkeys(said))
