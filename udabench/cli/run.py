"""``udabench run``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from udabench.cli.options import device_option, load, plugin_option, runs_option, set_option
from udabench.errors import UsageError

if TYPE_CHECKING:
    from udabench.run.plan import Plan


@click.command()
@click.option("--method", "-m", required=True, help="Method to train (udabench methods).")
@click.option("--source", "-s", required=True, help="Labelled data set (udabench datasets).")
@click.option("--target", "-t", default="cityscapes", show_default=True, help="Data set to adapt to.")
@click.option("--network", help="<backbone>-<head> (udabench networks).")
@click.option("--preset", help="A row of the method's paper, or quick.")
@click.option("--seed", type=int, help="One seed (0).")
@click.option("--seeds", metavar="0,1,2", help="Several runs, one after the other.")
@click.option("--init-from", type=click.Path(path_type=Path), metavar="RUN",
              help="A finished run: another method's weights, or the stages of this one's that agree.")  # fmt: skip
@click.option("--iterations", type=int, metavar="N", help="Training steps.")
@set_option
@click.option("--config", "config_file", type=click.Path(path_type=Path), metavar="FILE", help="YAML with values.")
@plugin_option
@runs_option
@device_option
@click.option("--precision", type=click.Choice(["float32", "bfloat16", "float16"]), help="Autocast type.")
@click.option("--eval-every", type=int, metavar="N", help="Evaluate during training.")
@click.option("--probe", type=click.Choice(["entropy"]), help="Measured beside the metric at each evaluation.")
@click.option(
    "--dry-run", is_flag=True, help="Print the configuration and what would happen; exit code 1: data are missing."
)
def run(
    method: str,
    source: str,
    target: str,
    preset: str | None,
    seed: int | None,
    seeds: str | None,
    overrides: tuple[str, ...],
    config_file: Path | None,
    plugins: tuple[Path, ...],
    runs: Path,
    dry_run: bool,
    **flags: Any,
) -> None:
    """Train a method, evaluate it, write its record.

    \b
    udabench run --method t2sda --source gta5                     the paper's ResNet-101 row
    udabench run --method t2sda --source gta5 --preset daformer   its MiT-B5 row
    udabench run --method t2sda --source gta5 --dry-run           every value with its origin
    """
    from udabench.resolve import parse_overrides
    from udabench.run.plan import Request, make_plan

    request = Request(method, source, target, preset, _flags(flags), parse_overrides(overrides), config_file)
    plan = make_plan(load(plugins), request, tuple(path.resolve() for path in plugins))
    plans = [plan.with_seed(number) for number in _seeds(seed, seeds, plan.config.seed)]
    if dry_run:
        from udabench.cli.dry_run import print_dry_run

        sys.exit(0 if print_dry_run(plans, runs) else 1)
    _run_all(plans, runs)


def _run_all(plans: list[Plan], runs: Path) -> None:
    from udabench.cli.outcome import print_outcome
    from udabench.engine.folder import RunFolder
    from udabench.run.conduct import check_free, start_run

    for plan in plans:
        check_free(RunFolder(runs / plan.folder_name))
    for plan in plans:
        print_outcome(start_run(plan, runs))


_KEYS = {
    "network": "network.name",
    "init_from": "init_from",
    "iterations": "iterations",
    "device": "engine.device",
    "precision": "engine.precision",
    "eval_every": "engine.eval_every",
    "probe": "engine.probe",
}


def _flags(flags: dict[str, Any]) -> dict[str, Any]:
    return {_KEYS[name]: value for name, value in flags.items() if value is not None}


def _seeds(seed: int | None, seeds: str | None, default: int) -> list[int]:
    if seed is not None and seeds is not None:
        raise UsageError("Give --seed or --seeds, not both.")
    return parse_seeds(seeds if seeds is not None else str(default if seed is None else seed))


def parse_seeds(text: str) -> list[int]:
    """``0,1,2``. Raises UsageError when it is no list of different seeds."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(f"Seeds are numbers such as 0,1,2, not '{text}'.") from None
    if len(set(numbers)) < len(numbers):
        raise UsageError(f"A seed is named twice: {text}.")
    for number in numbers:
        if not 0 <= number < 2**31:
            raise UsageError(f"Seed {number} is out of bounds: 0 to 2147483647.")
    return numbers
