"""``udabench resume``."""

from __future__ import annotations

from pathlib import Path

import click

from udabench.cli.options import device_option, plugin_option


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@plugin_option
@device_option
def resume(run: Path, plugins: tuple[Path, ...], device: str | None) -> None:
    """Go on with RUN, a run folder that was stopped or killed, from its last checkpoint."""
    from udabench.cli.outcome import print_outcome
    from udabench.run.conduct import resume_run

    print_outcome(resume_run(run, plugins, device))
