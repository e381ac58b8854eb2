"""What runs are called beside each other: by what tells them apart."""

from __future__ import annotations

from collections.abc import Sequence

from udabench.run.trained import Trained


def titles_of(runs: Sequence[Trained]) -> list[str]:
    """The method, and of preset, network, seed, configuration and iteration what not all runs have in common."""
    parts = [_parts(run) for run in runs]
    # The configuration's hash only where nothing that has a name tells two runs apart.
    columns = list(zip(*parts, strict=True))
    differing = [0, *(i for i in range(1, len(columns)) if len(set(columns[i])) > 1)]
    named = [i for i in differing if i != len(columns) - 1]
    short = [" ".join(part[i] for i in named if part[i]) for part in parts]
    if len(set(short)) == len(runs):
        return short
    return [" ".join(part[i] for i in differing if part[i]) for part in parts]


def _parts(run: Trained) -> tuple[str, ...]:
    config = run.plan.config
    return (
        config.title,
        config.preset or "",
        config.network.name,
        f"seed {config.seed}",
        f"at {run.iteration}",
        config.hash,
    )
