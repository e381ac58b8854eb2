"""``udabench sweep``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udabench.cli.options import load, plugin_option, runs_option, set_option
from udabench.cli.run import parse_seeds
from udabench.errors import UsageError, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from udabench.sweep.conduct import Phase
    from udabench.sweep.executor import Executor
    from udabench.sweep.file import Point
    from udabench.sweep.job import Job


@click.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@click.option("--methods", metavar="A,B", help="Methods; with FILE: only these of it.")
@click.option("--sources", metavar="S,T", help="Labelled data sets; with FILE: only these of it.")
@click.option("--targets", metavar="S,T", help="Data sets to adapt to [cityscapes]; with FILE: only these of it.")
@click.option("--seeds", metavar="0,1,2", help="Seeds of every row [0]; with FILE: only these of it.")
@click.option("--preset", help="Of every method. Not with FILE.")
@click.option("--network", help="Of every run. Not with FILE.")
@set_option
@click.option("--grid", multiple=True, metavar="KEY=V1,V2", help="Every combination is run. Not with FILE.")
@click.option("--jobs", type=click.IntRange(1), metavar="N", help="Runs side by side. [1, or as many as --gpus]")
@click.option("--gpus", metavar="0,1", help="A run on each; named twice, a GPU takes two.")
@click.option("--executor", type=click.Choice(["process", "slurm", "local"]), default="process", show_default=True,
              help="Who runs: processes here, a cluster, or submitit's own processes.")  # fmt: skip
@click.option("--slurm", multiple=True, metavar="KEY=VALUE", help="Resource of a job: partition, timeout_min, mem_gb.")
@plugin_option
@runs_option
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), metavar="DIR",
              help="Folder of the leaderboard. [<runs>/leaderboards]")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Print the plan and stop.")
@click.option("--yes", is_flag=True, help="Start without asking.")
def sweep(
    file: Path | None,
    overrides: tuple[str, ...],
    jobs: int | None,
    gpus: str | None,
    executor: str,
    slurm: tuple[str, ...],
    plugins: tuple[Path, ...],
    runs: Path,
    out: Path | None,
    dry_run: bool,
    yes: bool,
    **asked: Any,
) -> None:
    """Carry out many runs, the rows of FILE or methods x seeds, and build their leaderboard.

    What is finished is skipped, what is broken goes on, and a run that fails stops no other: stopped or killed, the
    same command goes on where it was.

    \b
    udabench sweep leaderboards/small.yaml --jobs 2
    udabench sweep --methods source_only,t2sda --sources gta5 --seeds 0,1,2 --gpus 0,1
    udabench sweep --methods t2sda --sources gta5 --grid temperature=0.05,0.1 --executor slurm --slurm gpus_per_node=1
    """
    from rich.console import Console

    from udabench.sweep.conduct import Sweep
    from udabench.sweep.job import State, make_jobs
    from udabench.sweep.view import watching

    console = Console(highlight=False, soft_wrap=True)
    registry, files = load(plugins), tuple(path.resolve() for path in plugins)
    points = _points(file, asked, overrides)
    todo = make_jobs(registry, points, runs, files)
    side_by_side, names = _slots(todo, jobs, gpus, executor, slurm)
    if not dry_run:
        worker = _executor(executor, runs, side_by_side, names, slurm)
    # Without GPUs or machines of their own, runs side by side share this one.
    share = 1 if names or executor == "slurm" else 1 / side_by_side
    _print_plan(todo, side_by_side, share, files, "auto" if executor == "slurm" else None)
    begun = yes or all(job.state() == State.DONE for job in todo)
    if dry_run or not (begun or _agreed()):
        return
    with watching(todo, console) as watch:
        phases = Sweep(todo, worker, watch).run()
    _conclude(phases, out or runs / "leaderboards")


def _points(file: Path | None, asked: Mapping[str, Any], overrides: tuple[str, ...]) -> list[Point]:
    from udabench.resolve import parse_overrides
    from udabench.sweep.file import parse_sweep, read_sweep
    from udabench.sweep.job import choose

    names = {key: _names(key, asked[key]) for key in ("methods", "sources", "targets")}
    seeds = None if asked["seeds"] is None else parse_seeds(asked["seeds"])
    said = parse_overrides(overrides)
    if file is None:
        missing = [f"--{key}" for key in ("methods", "sources") if names[key] is None]
        if missing:
            raise UsageError(f"Name a FILE of rows, or {' and '.join(missing)}.")
        values = {"sources": names["sources"], "targets": names["targets"], "seeds": seeds, "set": said}
        values |= {"preset": asked["preset"], "network": asked["network"], "grid": _grid(asked["grid"])}
        rows = [{"method": name} for name in names["methods"] or []]
        return list(parse_sweep({**values, "rows": rows}, "The command line").points())
    extra = [f"--{key}" for key in ("preset", "network", "grid") if asked[key]]
    if extra:
        raise UsageError(f"{', '.join(extra)}: a FILE says it itself, for its rows or for all. --set goes with both.")
    points = list(read_sweep(file).points())
    kinds = {"method": names["methods"], "source": names["sources"], "target": names["targets"], "seed": seeds}
    points = choose(points, **kinds)
    return [replace(p, request=replace(p.request, overrides=_over(p.request.overrides, said))) for p in points]


def _over(before: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """What is said last also stands last: a short key may mean what a full one before it means."""
    return {key: value for key, value in before.items() if key not in said} | dict(said)


def _names(key: str, text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [part.strip() for part in text.split(",")]
    if "" in names:
        raise UsageError(f"--{key} takes names such as a,b, not '{text}'.")
    return names


def _grid(pairs: Sequence[str]) -> dict[str, Any]:
    from udabench.resolve import parse_overrides

    return parse_overrides(
        [f"{key}{equals}[{text}]" for key, equals, text in (p.partition("=") for p in pairs)], "--grid"
    )


def _slots(
    todo: Sequence[Job], jobs: int | None, gpus: str | None, executor: str, slurm: tuple[str, ...]
) -> tuple[int, list[str]]:
    """How many runs stand side by side, and on which GPUs. Raises UsageError for options that contradict each other."""
    from udabench.sweep.executor import visible_gpus

    if executor == "process" and slurm:
        raise UsageError("--slurm names resources of --executor slurm or local.")
    if gpus is None:
        return jobs or (len(todo) if executor == "slurm" else 1), []
    if executor != "process":
        raise UsageError(f"--gpus chooses among this machine's; with --executor {executor}: --slurm gpus_per_node=1.")
    names = visible_gpus(gpus)
    if jobs is not None and jobs > len(names):
        raise UsageError(f"--jobs {jobs} with {len(names)} --gpus: a run takes one. Name a GPU twice to share it.")
    elsewhere = sorted({job.row for job in todo if job.plan.config.engine.device not in ("auto", "cuda")})
    if elsewhere:
        raise UsageError(f"--gpus gives each run its GPU, but engine.device is set for {', '.join(elsewhere)}.")
    return jobs or len(names), names


def _executor(kind: str, runs: Path, jobs: int, gpus: Sequence[str], slurm: tuple[str, ...]) -> Executor:
    from udabench.data.parallel import cpus
    from udabench.resolve import parse_overrides

    if kind == "process":
        from udabench.sweep.executor import Processes, slots

        return Processes(slots(jobs, gpus, cpus()))
    from udabench.sweep.cluster import Cluster

    return Cluster("slurm" if kind == "slurm" else "local", runs / kind, jobs, parse_overrides(slurm, "--slurm"))


def _print_plan(jobs: Sequence[Job], slots: int, share: float, plugins: tuple[Path, ...], device: str | None) -> None:
    from rich.markup import escape

    from udabench.sweep.duration import durations
    from udabench.sweep.job import State, missing
    from udabench.sweep.view import carried_rows, plan_table, plan_total

    console = _wide()
    states = {job: job.state() for job in jobs}
    seconds = durations(jobs, states, share, plugins, device)
    for problem in missing([job for job, state in states.items() if state != State.DONE]):
        console.print(f"[yellow]missing[/] {escape(problem)}")
    console.print(plan_table(jobs, states, seconds))
    if along := carried_rows(jobs):
        console.print(along, markup=False)
    console.print(plan_total(jobs, states, seconds, slots), markup=False)


def _wide() -> Console:
    """Tables need some room; a log or a narrow terminal gets long lines rather than cut words."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=True, width=max(Console().width, 120))


def _agreed() -> bool:
    return not sys.stdin.isatty() or click.confirm("Start?", default=True)


def _conclude(phases: Mapping[Job, Phase], out: Path) -> None:
    """The leaderboard over the finished runs. Raises UserError that names those that failed."""
    from udabench.leaderboard import add, build, summary, to_rich
    from udabench.results import read_record
    from udabench.sweep.conduct import Phase
    from udabench.sweep.view import failures

    done = [job for job, phase in phases.items() if phase == Phase.DONE]
    console = _wide()
    for table in summary(read_record(job.order.folder) for job in done):
        console.print(to_rich(table))
    for job in done:
        add(job.order.folder, out)
    if done:
        for page in build(out):
            console.print(f"leaderboard  {page}", markup=False)
    if len(done) < len(phases):
        raise UserError(f"{len(phases) - len(done)} of {len(phases)} runs failed:\n{failures(phases)}")
