"""``udabench run --dry-run``: every value with its origin, what would be read and written, what it would cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from udabench.config import RunConfig, extra_of
from udabench.errors import UserError
from udabench.method import Domain
from udabench.run.ancestor import without_ancestor
from udabench.run.heritage import Heritage, find_heritage
from udabench.run.plan import Plan, row_of


def print_dry_run(plans: Sequence[Plan], runs: Path) -> bool:
    """Works without the data sets being there. Returns whether all are."""
    console = Console(highlight=False, soft_wrap=True)
    plan = plans[0]
    console.print(_values(plan))
    console.print("\n[bold]Task[/]")
    console.print(f"  {plan.task.source} -> {plan.task.target}, {len(plan.task.classes)} classes; averages: "
                  f"{', '.join(plan.task.evaluated)} (headline {plan.task.headline})", markup=False)  # fmt: skip
    if len(plan.methods) > 1:
        console.print(f"  {plan.config.title} ({' around '.join(plan.config.methods)})", markup=False)
    for i, preset in enumerate(plan.presets, 1):
        row = "; ".join(part for part in (preset.about, preset.table) if part)
        owner = f" of {preset.of}" if preset.of else ""
        console.print(f"  preset {preset.name}{owner}: {row}", markup=False)
        if i == len(plan.presets):
            # The figures of those under it are of other rows.
            console.print(f"  published: {published(plan)}", markup=False)
    console.print("\n[bold]Would read[/]")
    reads = list(_reads(plan))
    for read in reads:
        console.print("  " + read.text)
    heritage = find_heritage(plan)
    if heritage is not None:
        console.print("\n[bold]Would take over[/]")
        for line in _taken_over(heritage):
            console.print("  " + line, markup=False)
    if warning := without_ancestor(plan.config):
        console.print(f"\n[yellow]warning[/] {warning}")
    console.print("\n[bold]Would write[/]")
    for each in plans:
        console.print(f"  {runs / each.folder_name}/", markup=False)
    console.print("\n[bold]Estimated[/]")
    images = {domain: read.images for domain, read in zip(DOMAINS, reads, strict=False) if not read.missing}
    for line in _costs(plan, len(plans), runs, images, heritage):
        console.print("  " + line)
    missing = [read.name for read in reads if read.missing]
    if missing:
        console.print(f"\n[bold red]This run would not start[/]: {escape(', '.join(missing))} missing (see above).")
    return not missing


def _values(plan: Plan) -> Table:
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("key", "value", "unit", "origin"):
        table.add_column(column, overflow="fold", no_wrap=column == "key")
    for key, value, field in plan.config.leaves():
        origin = plan.resolved.origins.get(key, "udabench")
        style = "yellow" if origin.startswith("assumed") else ""
        table.add_row(key, escape(_text(value)), extra_of(field, "unit"), escape(origin), style=style)
    return table


def _text(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items()) or "-"
    return str(value)


def published(plan: Plan) -> str:
    """The paper's figures of the plan's preset, and what differs from its row; or why there are none."""
    preset = plan.presets[-1]
    if preset.published is None:
        return f"null ({preset.reason})" if preset.reason else "null (no row of a paper)"
    row, ours = row_of(plan), plan.config
    if row.methods != ours.methods:
        return f"null (the row is of {' around '.join(row.methods)}, not of {' around '.join(ours.methods)})"
    if row.network.name != ours.network.name:
        return f"null (the row's network is {row.network.name}, not {ours.network.name})"
    if plan.task.name not in preset.published:
        return f"null (the row has figures for {', '.join(preset.published)}, not for {plan.task.name})"
    figures = ", ".join(f"{metric} {figure}" for metric, figure in preset.published[plan.task.name].items())
    others = differing(row, ours)
    return f"{figures}; this run differs from the row in: {', '.join(others)}" if others else figures


def differing(row: RunConfig, ours: RunConfig) -> list[str]:
    """The keys that make two configurations different experiments."""
    one, other = _experiment(row), _experiment(ours)
    return [key for key in {**one, **other} if one.get(key) != other.get(key)]


def _experiment(config: RunConfig) -> dict[str, object]:
    return {key: value for key, value, info in config.leaves() if extra_of(info, "hashed", True)}


DOMAINS: tuple[Domain, ...] = ("source", "target")


class Read(NamedTuple):
    """A split that the run reads: its name, what is said of it, its images. Those of the domains come first."""

    name: str
    text: str
    images: int = 0
    missing: bool = False


def _reads(plan: Plan) -> Iterator[Read]:
    from udabench.data.locate import open_dataset
    from udabench.run.evaluated import evaluated
    from udabench.run.opened import trained_on

    config, said = plan.config, set()
    wanted = (*(trained_on(config, domain) for domain in DOMAINS), evaluated(config))
    for name, split, options in wanted:
        split_name = f"{name} {split}"
        try:
            dataset = open_dataset(plan.registry, name, split, config.data.roots, options)
            where = f" from {dataset.root}" if dataset.root else ", generated"
            yield Read(split_name, escape(f"{split_name}: {len(dataset)} images{where}"), len(dataset))
        except UserError as error:
            # The advice is long: once for each data set.
            advice = str(error) if name not in said else str(error).partition("\n")[0]
            said.add(name)
            text = f"[red]missing[/] {escape(f'{split_name}: ' + advice)}".replace("\n", "\n    ")
            yield Read(split_name, text, missing=True)


def _taken_over(heritage: Heritage) -> Iterator[str]:
    """What of the run that this one begins from, and where its own training begins."""
    path = heritage.ancestor.folder.path
    if not heritage.stages:
        assert heritage.initial is not None
        yield f"{path}: the weights of {heritage.initial.source}, for every network without weights of its own"
        return
    yield f"{path}: {', '.join(heritage.stages)} ({heritage.iterations} steps), with state and artefacts"
    yield f"training begins behind them: {heritage.next}"


def _costs(
    plan: Plan, runs: int, place: Path, images: Mapping[Domain, int], heritage: Heritage | None
) -> Iterator[str]:
    from rich.filesize import decimal

    from udabench.run.disk import free_space
    from udabench.run.estimate import estimate

    cost = estimate(plan, images, 0 if heritage is None else len(heritage.stages))
    times = f" x {runs} runs" if runs > 1 else ""
    yield f"parameters  {cost.parameters / 1e6:.1f} million trained"
    free = free_space(place)
    short = "" if free >= cost.disk.total else ": [bold red]too little, this run would not start[/]"
    yield f"disk        {cost.disk.described()}{times}; {decimal(free)} free{short}"
    if cost.step_seconds is None or cost.step_flops is None:
        yield "time        not estimated: every stage reads what a pass over the data writes"
        return
    steps = plan.config.iterations - (0 if heritage is None else heritage.iterations)
    hours = cost.step_seconds * steps / 3600
    yield (
        f"time        about {_duration(hours)} for {steps} steps of {cost.step_flops / 1e9:.0f} GFLOP "
        f"on this device ({cost.flops_per_second / 1e9:.0f} GFLOP/s in a matrix product){times}; within a factor of 3"
    )


def _duration(hours: float) -> str:
    if hours > 48:
        return f"{hours / 24:.0f} days"
    return f"{hours:.1f} h" if hours >= 1 else f"{60 * hours:.0f} min"
