"""Whole runs of the method under test through the command line, each in an interpreter of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Generator as Rng
from torch import Tensor

from udabench.engine.checkpoint import MODEL, Checkpoints
from udabench.hookspecs import Entry
from udabench.method import Batch, Event, Loss, Method, Pass, Samples, Stage, Step, Workspace
from udabench.plugins import import_file
from udabench.results.store import read_record
from udabench.testing import dataset
from udabench.testing.result import Broken
from udabench.testing.server import LIMIT_SECONDS, Server
from udabench.testing.setup import FAKES
from udabench.testing.subject import NAME, PRESET, Subject, where_is

KILL_AT = "UDABENCH_TEST_KILL_AT"
"""Environment variable: the training step, counted over all stages of this process, in which it kills itself."""
KILL_BEHIND = "UDABENCH_TEST_KILL_BEHIND"
"""Likewise: the image, counted over all passes of this process, behind which it kills itself."""
KILL_BEFORE = "UDABENCH_TEST_KILL_BEFORE"
"""Likewise: the stage that it is to enter when it kills itself."""
COUNT_IN = "UDABENCH_TEST_COUNT_IN"
"""Likewise: a file that grows by a byte with each image that a pass has looked at."""
OTHER_HASH_SEED = "1"

PLUGIN = """\
from udabench import hookimpl
from udabench.testing.trial import subject_entries


@hookimpl
def register_methods():
    return subject_entries({module!r}, {file!r}, {name!r})
"""


@dataclass(frozen=True)
class Ended:
    """What a run left behind."""

    folder: Path
    model: Mapping[str, Tensor]
    optimizers: Mapping[str, Tensor]
    outcome: str
    files: Mapping[str, bytes]
    """What passes wrote, and the weights at the ends of stages."""

    def difference(self, other: Ended) -> str | None:
        """The first thing that is not identical, or None."""
        for name in sorted({*self.files, *other.files}):
            if self.files.get(name) != other.files.get(name):
                return f"the file '{name}'"
        for what, mine, theirs in (
            ("weight", self.model, other.model),
            ("optimiser state", self.optimizers, other.optimizers),
        ):
            for key in sorted({*mine, *theirs}):
                if key not in mine or key not in theirs or not torch.equal(mine[key], theirs[key]):
                    return f"the {what} '{key}'"
        return None if self.outcome == other.outcome else "the evaluation (the weights are identical)"


class Trial:
    """One run folder of the subject.

    Args:
        subject: what is run.
        name: of the folder of runs; one trial each.
        data: None: the subject's own.
        workers: loader processes.
        server: makes the process; None: a new interpreter, with another hash seed.
    """

    def __init__(
        self, subject: Subject, name: str, *, data: Path | None = None, workers: int = 0, server: Server | None = None
    ) -> None:
        self.subject = subject
        self.runs = subject.folder / "runs" / name
        self.log = subject.folder / f"{name}.log"
        self.workers = workers
        self.server = server
        self.environment = {
            **environment_of(subject),
            "UDABENCH_DATA": str(data or subject.data),
            "UDABENCH_STORE": str(subject.folder / "store" / name),
        }

    def run(self) -> Ended:
        """From the first step to the record. Raises Broken with the end of what it printed."""
        self._expect(self._start(self._run_arguments()), "the run")
        return self.ended()

    def run_counted(self, file: Path) -> Ended:
        """The same; ``file`` is then as long as images were looked at in passes."""
        file.touch()
        self._expect(self._start(self._run_arguments(), **{COUNT_IN: str(file)}), "the run")
        return self.ended()

    def run_killed(self, **kill: str) -> None:
        """Kill the process where ``KILL_AT`` (in the middle of a step, 1-based), ``KILL_BEHIND`` or ``KILL_BEFORE``
        says. Raises Broken."""
        code = self._start(self._run_arguments(), **kill)
        if code != -signal.SIGKILL:
            self._expect(code, "the run that was to be killed")
            where = ", ".join(f"{name} {value}" for name, value in kill.items())
            raise Broken(f"The run ended before it was to be killed ({where}): it is too short.")

    def resume_killed(self, **kill: str) -> None:
        """Go on, and be killed again; or to the end, where that comes first. Raises Broken."""
        code = self._start(self._resume_arguments(), **kill)
        if code != -signal.SIGKILL:
            self._expect(code, "the resumed run")

    def resume(self) -> Ended:
        """Go on to the end. Raises Broken."""
        self._expect(self._start(self._resume_arguments()), "the resumed run")
        return self.ended()

    def _resume_arguments(self) -> list[str]:
        return ["resume", str(self.folder()), *self._plugins()]

    def folder(self) -> Path:
        """The run folder. Raises Broken when there is none."""
        found = sorted(path.parent for path in self.runs.glob("*/*/run.json"))
        if not found:
            raise Broken(f"No run folder was written below {self.runs}.")
        return found[0]

    def ended(self) -> Ended:
        """What lies in the run folder now."""
        folder = self.folder()
        last = Checkpoints(folder / "checkpoints").latest()
        if last is None:
            raise Broken(f"There is no checkpoint in {folder}.")
        kept = [*folder.glob("artefacts/**/*"), *folder.glob(f"stages/**/{MODEL}")]
        files = {str(path.relative_to(folder)): path.read_bytes() for path in kept if path.is_file()}
        return Ended(folder, last.model(), last.optimizers(), read_record(folder).outcome_digest, files)

    def _run_arguments(self) -> list[str]:
        values: dict[str, Any] = {**self.subject.values, "data.workers": self.workers}
        settings = [f"--set={key}={_yaml(value)}" for key, value in values.items()]
        names = ["--method", NAME, "--source", dataset.SOURCE, "--target", dataset.TARGET]
        return ["run", *names, "--preset", PRESET, "--runs", str(self.runs), *settings, *self._plugins()]

    def _plugins(self) -> list[str]:
        files = [*self.subject.files, FAKES, self._subject_file()]
        return [argument for file in files for argument in ("--plugin", str(file))]

    def _subject_file(self) -> Path:
        """A plugin that registers the method under test, whatever its own plugin calls it."""
        path = self.subject.folder / "udabench_subject.py"
        module, file, name = where_is(self.subject.method)
        path.write_text(PLUGIN.format(module=module, file=str(file), name=name), encoding="utf-8")
        return path

    def _start(self, arguments: list[str], **environment: str) -> int:
        """The exit code."""
        if self.server is not None:
            return self.server.run(arguments, {**self.environment, **environment}, self.log)
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "udabench", *arguments]
            everything = {**self.environment, "PYTHONHASHSEED": OTHER_HASH_SEED, **environment}
            return subprocess.run(command, env=everything, stdout=log, stderr=log, check=False).returncode

    def _expect(self, code: int, what: str) -> None:
        if code == -signal.SIGALRM:
            raise Broken(f"{what[0].upper()}{what[1:]} did not end within {LIMIT_SECONDS} s.")
        if code:
            said = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-12:]
            raise Broken(f"{what[0].upper()}{what[1:]} failed with exit code {code}:\n" + "\n".join(said))


def environment_of(subject: Subject) -> dict[str, str]:
    """What every process of a subject's runs gets: this one's search path, and nothing of the user's own settings."""
    return {
        **os.environ,
        "PYTHONHASHSEED": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
        "UDABENCH_CONFIG": str(subject.folder / "no-config.yaml"),
    }


def _yaml(value: object) -> str:
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def subject_entries(module: str, file: str, name: str) -> dict[str, Entry]:
    """What the subject's plugin registers: the class, made to kill its process where the environment says so."""
    method = find_class(module, Path(file), name)
    if {KILL_AT, KILL_BEHIND, KILL_BEFORE, COUNT_IN} & set(os.environ):
        declared, deadly = method.stages, _Deadly()
        method.stages = lambda self: [deadly.stage(stage) for stage in declared(self)]  # type: ignore[method-assign]
    return {NAME: Entry(method, "the method under test")}


def find_class(module: str, file: Path, name: str) -> type[Method]:
    """A class by its module, or by its file where no such module can be imported."""
    try:
        found: Any = __import__(module, fromlist=["*"])
    except ImportError:
        found = import_file(file)
    for part in name.split("."):
        found = getattr(found, part)
    method: type[Method] = found
    return method


class _Deadly:
    """Stages that kill their process at some moment, or count what they look at."""

    def __init__(self) -> None:
        self.steps = int(os.environ.get(KILL_AT, "0"))
        self.images = int(os.environ.get(KILL_BEHIND, "0"))
        self.before = os.environ.get(KILL_BEFORE)
        self.counted = os.environ.get(COUNT_IN)
        self.worked = False

    def stage(self, stage: Stage) -> Stage:
        """The stage, made so."""
        prepare = None if stage.prepare is None else self._pass(stage.prepare)
        start = partial(self._enter, stage.start) if stage.name == self.before else stage.start
        return replace(stage, step=self._step(stage.step), prepare=prepare, start=start)

    def _enter(self, start: Callable[[], None] | None) -> None:
        """Before the run's first stage all stages are entered too, to see how large the method becomes."""
        if self.worked:
            _die()
        if start is not None:
            start()

    def _step(self, step: Step) -> Callable[[Batch, int, Rng], Generator[Event, None, None]]:
        def run(batch: Batch, iteration: int, rng: Rng) -> Generator[Event, None, None]:
            self.worked = True
            self.steps -= 1
            for event in step(batch, iteration, rng):
                yield event
                # The engine has back-propagated this loss, and no optimiser has been stepped yet.
                if isinstance(event, Loss) and self.steps == 0:
                    _die()

        return run

    def _pass(self, prepare: Pass) -> Pass:
        return lambda workspace: prepare(_Watched(workspace, self.look))

    def look(self) -> None:
        """A pass has done with an image."""
        self.worked = True
        self.images -= 1
        if self.counted:
            with Path(self.counted).open("ab") as file:
                file.write(b".")
        if self.images == 0:
            _die()


class _Watched:
    """A workspace that tells of each image that a pass has done with."""

    def __init__(self, workspace: Workspace, look: Callable[[], None]) -> None:
        self._workspace = workspace
        self._look = look

    def __getattr__(self, name: str) -> Any:
        return getattr(self._workspace, name)

    def images(self, *arguments: Any, **options: Any) -> Iterator[Samples]:
        for samples in self._workspace.images(*arguments, **options):
            yield samples
            self._look()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
