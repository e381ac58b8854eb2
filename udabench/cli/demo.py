"""``udabench demo``."""

from __future__ import annotations

import os
import time
from pathlib import Path

import click

from udabench.cli.options import load
from udabench.cli.run import parse_seeds


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, metavar="DIR")
@click.option("--seeds", metavar="0,1,2", default="0", show_default=True, help="Seeds of every method.")
@click.option("--iterations", type=int, metavar="N", help="Training steps. [the quick preset's]")
@click.option("--jobs", type=click.IntRange(1), help="Runs side by side, a thread each. [as many as processors]")
def demo(folder: Path, seeds: str, iterations: int | None, jobs: int | None) -> None:
    """Adapt from one look of the embedded street world to the other, and compare: minutes on two cores, no data needed.

    Trains source_only, t2sda and oracle on toycity -> toycity-real, builds a leaderboard and a picture panel. What is
    finished is not trained again; what was stopped goes on.
    """
    from rich.console import Console

    from udabench.data.locate import open_dataset
    from udabench.data.parallel import cpus
    from udabench.data.store import prepare
    from udabench.leaderboard import add, build, summary, to_rich
    from udabench.results import read_record
    from udabench.run.demo import METHODS, SOURCE, TARGET, Job, in_table_order, run_jobs
    from udabench.run.panel import panel
    from udabench.run.plan import Request, make_plan
    from udabench.run.trained import load_trained

    console, started, registry = Console(highlight=False, soft_wrap=True), time.perf_counter(), load(())
    store = folder / "store"
    flags = {"iterations": iterations} if iterations is not None else {}
    requests = [Request(method, SOURCE, TARGET, flags={**flags, "data.store": store}) for method in METHODS]
    plans = [make_plan(registry, request) for request in requests]
    for name, split in ((SOURCE, "train"), (TARGET, "train")):
        console.print(f"drawing {name} {split}")
        dataset = open_dataset(registry, name, split)
        prepare(dataset, dataset.train_size, store)
    todo = [Job(plan.with_seed(seed), folder / "runs") for seed in parse_seeds(seeds) for plan in plans]
    # Predictions come from one process, with all threads; trainings side by side.
    os.environ.setdefault("OMP_NUM_THREADS", str(cpus()))
    run_jobs(todo, jobs or cpus(), console)
    finished = list(in_table_order(todo))
    for job in finished:
        add(job.folder, folder / "leaderboards")
    pages = build(folder / "leaderboards")
    first = [job for job in finished if job.plan.config.seed == finished[0].plan.config.seed]
    runs = [load_trained(job.folder) for job in first]
    picture = folder / "panel.png"
    panel(runs, open_dataset(registry, TARGET, "val")).save(picture)
    # The table needs some room; a log or a narrow terminal gets long lines rather than cut words.
    wide = Console(highlight=False, soft_wrap=True, width=max(console.width, 120))
    for table in summary(read_record(job.folder) for job in finished):
        wide.print(to_rich(table))
    console.print(f"\n{time.perf_counter() - started:.0f} s", markup=False)
    for what, where in (("picture", picture), ("leaderboard", pages[0]), ("runs", folder / "runs")):
        console.print(f"{what:<12} {where}", markup=False)
