"""What is printed when a run has ended."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from udabench.run.outcome import Outcome


def print_outcome(outcome: Outcome) -> None:
    """The headline, the averages, where everything lies, and what to do next."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    record = outcome.record
    console.print(f"\nevaluated on {record.protocol['dataset']} {record.protocol['split']}", markup=False)
    for evaluation in record.evaluations:
        means = "   ".join(f"{name} [bold]{100 * value:.2f}[/]" for name, value in evaluation.means.items())
        console.print(
            f"[bold]{record.method_title}[/] {evaluation.predictor}, {evaluation.checkpoint} checkpoint:  {means}"
        )
        if evaluation.entropy is not None:
            right, wrong = evaluation.entropy.correct, evaluation.entropy.incorrect
            console.print(f"  entropy of correct pixels {right:.3f}, of incorrect ones {wrong:.3f} nats")
    for flag in record.flags.described():
        console.print(f"  [yellow]note[/] {flag}")
    console.print(f"run folder  {outcome.folder}", markup=False)
    if (outcome.folder / "run.json").is_file():
        console.print(f"curves      udabench show {outcome.folder}", markup=False)
    console.print(f"next        udabench leaderboard add {outcome.folder}", markup=False)
