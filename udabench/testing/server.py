"""Runs ``udabench`` commands in forks of one interpreter that has imported everything but plugins.

Importing torch takes longer than a tiny run. Each command still begins without a trace of the ones before.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

LIMIT_SECONDS = 300


class Server:
    """The parent's side; a context manager. ``environment`` is the server's own."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = dict(environment)
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Server:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._process is not None:
            self._process.communicate()

    def run(self, arguments: Sequence[str], environment: Mapping[str, str], log: Path) -> int:
        """The exit code of ``udabench ARGUMENTS``; minus the signal that killed it. What it prints goes to ``log``."""
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        request = {"arguments": list(arguments), "environment": dict(environment), "log": str(log)}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return int(process.stdout.readline())

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from udabench.testing.server import serve; serve()"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=self._environment
        )
        return self._process


def serve() -> None:
    """Answer requests, a line of JSON each, until the standard input is closed."""

    import udabench.run.conduct  # noqa: F401

    for line in sys.stdin:
        child = os.fork()
        if not child:
            os._exit(_run(json.loads(line)))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _run(request: Mapping[str, Any]) -> int:
    """One command, in the fork."""
    # The default action ends a run that hangs.
    signal.alarm(LIMIT_SECONDS)
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request["environment"])
    sys.argv = ["udabench", *request["arguments"]]
    try:
        runpy.run_module("udabench", run_name="__main__")
        return 0
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
