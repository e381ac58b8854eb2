"""The command line. Commands are imported when they are used, so that ``--help`` is quick and needs no torch."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from udabench.errors import UsageError, UserError
from udabench.launch import several, together

COMMANDS = {
    "demo": ("demo", "Three methods on the embedded data, with table and pictures."),
    "run": ("run", "Train a method, evaluate it, write its record."),
    "sweep": ("sweep", "Many runs: methods, seeds, grids; side by side or on a cluster."),
    "resume": ("resume", "Go on with a run that was stopped or killed."),
    "show": ("show", "A run's status, stages, curves and configuration."),
    "prune": ("prune", "Remove the artefacts of finished runs."),
    "evaluate": ("evaluate", "Evaluate a run or a checkpoint."),
    "analyze": ("analyze", "Look at the features, certainty and pseudo-labels of runs."),
    "import-checkpoint": ("import_checkpoint", "A run folder from a checkpoint of DAFormer, HRDA or MIC."),
    "predict": ("predict", "Segment a folder of images with a run."),
    "translate": ("translate", "Translate pictures and write them beside the originals."),
    "leaderboard": ("leaderboard", "Build, check or add to the leaderboards."),
    "data": ("data", "Check, prepare and look at data sets."),
    "methods": ("listing", "List the methods."),
    "presets": ("listing", "List a method's presets: the papers' rows, with their figures."),
    "datasets": ("listing", "List the data sets."),
    "networks": ("listing", "List the networks: backbones, heads and whole ones."),
    "translators": ("listing", "List the image translators."),
    "plugins": ("listing", "List the plugins, broken ones with their errors."),
    "new-method": ("new_method", "Write the folder of a new method that runs at once."),
    "test-plugin": ("test_plugin", "Run the conformance kit on a method or data set."),
}
TOGETHER = ("run", "resume")
"""Commands that several processes may carry out together, under torchrun."""


class LazyGroup(click.Group):
    """Knows each command's name and line; imports the command itself on first use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f"udabench.cli.{COMMANDS[name][0]}")
        command: click.Command = getattr(module, name.replace("-", "_"))
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, about) for name, (_, about) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            from udabench.errors import unknown

            raise unknown("command", args[0], COMMANDS)
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="udabench")
@click.pass_context
def cli(context: click.Context) -> None:
    """udabench compares methods of unsupervised domain adaptation for semantic segmentation.

    \b
    udabench run --method t2sda --source gta5          the paper's experiment
    udabench run --method t2sda --source toycity --target toycity-real   minutes, no data needed
    """
    command = context.invoked_subcommand
    if several() and command not in TOGETHER:
        raise UsageError(f"torchrun is for {' and '.join(TOGETHER)}; start 'udabench {command}' without it.")


def main() -> None:
    """Entry point. Exit codes: 0 success, 1 failure, 2 usage."""
    try:
        with together():
            cli.main(standalone_mode=False)
    except UserError as error:
        _print_error(str(error))
        sys.exit(error.exit_code)
    except click.exceptions.Abort:
        _print_error("Stopped.")
        sys.exit(1)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except (PermissionError, NotADirectoryError, FileExistsError, IsADirectoryError, FileNotFoundError) as error:
        _print_error(f"{error.filename}: {error.strerror}. Choose another file or folder.")
        sys.exit(1)
    except BrokenPipeError:
        # The reader of our output (head, less) has gone.
        sys.stderr.close()
        sys.exit(1)


def _print_error(message: str) -> None:
    from rich.console import Console

    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("[bold red]error[/]: ", end="")
    console.print(message, markup=False)
