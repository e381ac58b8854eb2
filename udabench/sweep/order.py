"""What a process needs to know of one run: how to begin it, how to go on with it, where it speaks."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from udabench.run.plan import Request


@dataclass(frozen=True)
class Order:
    """Plain values: it may go to another machine.

    Attributes:
        folder: of the run.
        fresh: arguments of ``udabench`` that begin it.
        log: what its processes print, one after the other.
    """

    folder: Path
    fresh: tuple[str, ...]

    @property
    def log(self) -> Path:
        """Beside the folder, so that it outlives it."""
        return self.folder.with_name(f"{self.folder.name}.log")

    def arguments(self) -> tuple[str, ...]:
        """Of ``udabench``, as the folder stands now."""
        started = (self.folder / "run.json").is_file()
        return ("resume", str(self.folder)) if started else self.fresh

    def start(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """A process that ends with this one. It has a session of its own: a Ctrl-C reaches it through us alone, once.

        Args:
            environment: set beside this process' own.
        """
        arguments = self.arguments()
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as out:
            out.write(f"$ {shlex.join(['udabench', *arguments])}\n".encode())
            out.flush()
            return subprocess.Popen(
                [sys.executable, "-m", "udabench.sweep.child", str(os.getpid()), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                start_new_session=True,
            )

    def note(self, text: str) -> None:
        """Say in the log what no process was started to say."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("a", encoding="utf-8") as out:
            out.write(f"{text}\n")

    def last_words(self) -> str:
        """The last line of the log that says something."""
        if not self.log.is_file():
            return ""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")


def fresh_arguments(request: Request, seed: int, runs: Path, plugins: tuple[Path, ...]) -> tuple[str, ...]:
    """The command line that means a request: the same configuration and the same folder."""
    words = ["run", "--method", request.method, "--source", request.source, "--target", request.target]
    if request.preset is not None:
        words += ["--preset", request.preset]
    if "network.name" in request.flags:
        words += ["--network", str(request.flags["network.name"])]
    if "init_from" in request.flags:
        words += ["--init-from", str(request.flags["init_from"])]
    words += ["--seed", str(seed), "--runs", str(runs)]
    words += [word for file in plugins for word in ("--plugin", str(file))]
    return (*words, *(f"--set={key}={_yaml(value)}" for key, value in request.overrides.items()))


def _yaml(value: Any) -> str:
    """A value in one line; read again, it is the same."""
    text: str = yaml.safe_dump(value, default_flow_style=True, width=float("inf"))
    return text.removesuffix("...\n").strip()
