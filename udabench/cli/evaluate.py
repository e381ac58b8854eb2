"""``udabench evaluate``."""

from __future__ import annotations

from pathlib import Path

import click

from udabench.cli.options import device_option, plugin_option, set_option


@click.command()
@click.argument("run", metavar="CHECKPOINT|RUN", type=click.Path(path_type=Path))
@set_option
@click.option("--probe", type=click.Choice(["entropy"]), help="Measured beside the metric.")
@plugin_option
@device_option
def evaluate(
    run: Path, overrides: tuple[str, ...], probe: str | None, plugins: tuple[Path, ...], device: str | None
) -> None:
    """Evaluate a run folder (its last checkpoint) or one checkpoint, every predictor of its method.

    \b
    Other settings give another row: --set evaluate.mode=slide --set evaluate.size=2048x1024 --set evaluate.flip=true
    """
    from udabench.cli.outcome import print_outcome
    from udabench.resolve import parse_overrides
    from udabench.run.evaluation import evaluate_run

    values = parse_overrides(overrides)
    if probe is not None:
        values["engine.probe"] = probe
    print_outcome(evaluate_run(run, values, plugins, device))
