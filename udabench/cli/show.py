"""``udabench show``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udabench.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from udabench.engine.folder import RunFolder

Curve = tuple[list[int], list[float]]
BARS = "▁▂▃▄▅▆▇█"


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--config", "with_config", is_flag=True, help="Every value with its origin.")
@click.option("--plot", type=click.Path(path_type=Path), metavar="PNG", help="[<run>/curves.png]")
def show(run: Path, with_config: bool, plot: Path | None) -> None:
    """Status, stages, curves and configuration of RUN."""
    from rich.console import Console

    from udabench.engine.folder import RunFolder

    folder = RunFolder(run)
    console = Console(highlight=False, soft_wrap=True)
    info = folder.read_run()
    if "config" not in info:
        raise UsageError(f"{run} is no run folder: it has no run.json with a configuration.")
    _print_status(console, folder, info)
    _print_stages(console, folder, info)
    _print_config(console, info, with_config)
    curves = read_curves(folder.metrics)
    if not curves:
        console.print("\nNothing is logged yet.")
        return
    _print_curves(console, curves)
    path = plot or folder.path / "curves.png"
    draw_curves(curves, path)
    console.print(f"\ncurves       {path}", markup=False)
    console.print(f"tensorboard  tensorboard --logdir {folder.tensorboard}", markup=False)


def _print_status(console: Console, folder: RunFolder, info: Mapping[str, Any]) -> None:
    console.print(f"[bold]{folder.path.name}[/]  {info['status']}")
    console.print(
        f"  iteration {info.get('iteration', 0)} of {info['config']['iterations']} on {info.get('device', '?')}"
    )
    if folder.record.is_file():
        from udabench.results import read_record

        for evaluation in read_record(folder.path).evaluations:
            means = "  ".join(f"{name} {100 * value:.2f}" for name, value in evaluation.means.items())
            console.print(f"  {evaluation.predictor} ({evaluation.checkpoint}): {means}", markup=False)
    elif info["status"] == "imported":
        console.print(f"  not trained here; evaluate it: udabench evaluate {folder.path}", markup=False)
    elif info["status"] != "finished":
        console.print(f"  go on with: udabench resume {folder.path}", markup=False)


def _print_stages(console: Console, folder: RunFolder, info: Mapping[str, Any]) -> None:
    """What the run began from, and its stages (older run folders do not name them)."""
    from udabench.cli.stages import stage_tree
    from udabench.results import AncestorInfo
    from udabench.run.standing import standings

    if info.get("ancestor"):
        console.print(f"  {AncestorInfo(**info['ancestor']).described()}", markup=False)
    if stages := standings(folder):
        console.print()
        console.print(stage_tree(stages))


def _print_config(console: Console, info: Mapping[str, Any], whole: bool) -> None:
    origins: Mapping[str, str] = info["origins"]
    chosen = [key for key, origin in origins.items() if whole or origin == "command line"]
    console.print("\n[bold]Configuration[/]" + ("" if whole else " (command line only; --config for all)"))
    for key in chosen:
        console.print(f"  {key} = {_value(info['config'], key)}  ({origins[key]})", markup=False)


def _value(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def read_curves(path: Path) -> dict[str, Curve]:
    """Scalar name -> iterations and values, from ``metrics.jsonl``."""
    from udabench.engine.metrics import read_metrics

    curves: dict[str, Curve] = {}
    for entry in read_metrics(path):
        for name, value in entry.get("values", {}).items():
            steps, values = curves.setdefault(name, ([], []))
            steps.append(entry["iteration"])
            values.append(value)
    return curves


def _print_curves(console: Console, curves: Mapping[str, Curve]) -> None:
    from rich.table import Table

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    for column in ("curve", "first", "last", ""):
        table.add_column(column)
    for name, (_, values) in sorted(curves.items()):
        table.add_row(name, f"{values[0]:.4g}", f"{values[-1]:.4g}", sparkline(values))
    console.print()
    console.print(table)


def sparkline(values: Sequence[float], width: int = 40) -> str:
    """Values as a line of bars, averaged into at most ``width`` of them."""
    import numpy as np

    means = [float(np.nanmean(part)) for part in np.array_split(np.asarray(values, float), min(width, len(values)))]
    low, high = min(means), max(means)
    scale = (len(BARS) - 1) / (high - low) if high > low else 0.0
    return "".join(BARS[round((mean - low) * scale)] for mean in means)


def draw_curves(curves: Mapping[str, Curve], path: Path) -> None:
    """All curves as a PNG, a panel each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    columns = min(3, len(curves))
    rows = -(-len(curves) // columns)
    figure = Figure(figsize=(4.5 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for axis, (name, (steps, values)) in zip(axes, sorted(curves.items()), strict=False):
        axis.plot(steps, values, linewidth=1, marker="." if len(steps) < 30 else None)
        axis.set_title(name, fontsize=9)
        axis.tick_params(labelsize=7)
        axis.grid(alpha=0.3)
    for axis in list(axes):
        axis.set_axis_off()
    figure.savefig(path, dpi=110)
