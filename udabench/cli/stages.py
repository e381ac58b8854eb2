"""The stages of a run as a tree: how far each is, what it wrote."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.tree import Tree

    from udabench.run.standing import Standing

STYLES = {"done": "green", "taken over": "cyan", "running": "bold yellow", "stopped": "yellow", "waiting": "dim"}


def stage_tree(stages: Sequence[Standing]) -> Tree:
    """A branch for each stage, a leaf for each artefact in each version."""
    from rich.filesize import decimal
    from rich.markup import escape
    from rich.tree import Tree

    tree = Tree("[bold]Stages[/]")
    width = max(len(stage.name) for stage in stages)
    for stage in stages:
        style = STYLES[stage.state]
        parts = [f"{escape(stage.name):<{width}}", f"[{style}]{stage.state.value:<10}[/]", *_counts(stage)]
        branch = tree.add("  ".join(parts))
        for each in stage.artefacts:
            files = f"{each.files} file{'s' if each.files != 1 else ''}"
            branch.add(f"{escape(each.name)} of iteration {each.version}: {files}, {decimal(each.size)}")
        if stage.pruned:
            branch.add(f"[dim]pruned: {escape(', '.join(stage.pruned))}[/]")
    return tree


def _counts(stage: Standing) -> list[str]:
    counts = [f"{stage.done} of {stage.iterations} steps"] if stage.iterations else []
    if stage.passes:
        counts.append(f"prepared {stage.prepared} of {stage.passes} time{'s' if stage.passes > 1 else ''}")
    return counts
