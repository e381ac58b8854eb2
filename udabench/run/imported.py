"""A run folder from a published checkpoint, for its evaluation: nothing is trained here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from torch import Tensor

from udabench.engine.checkpoint import Checkpoints
from udabench.engine.counters import Counters
from udabench.engine.folder import RunFolder
from udabench.engine.seeding import seed_everything
from udabench.engine.stages import read_stages, run_identity
from udabench.errors import CheckpointError, UsageError
from udabench.method import Method
from udabench.network import Network, WeightsReport
from udabench.networks.keymaps import has_teacher, mmseg_network
from udabench.networks.recognise import Recognised, recognise
from udabench.networks.weights import State, file_digest, load_state, read_state
from udabench.parts.ema import Ema
from udabench.presets import presets_of
from udabench.registry import Registry
from udabench.results.record import FILE_NAME
from udabench.run.conduct import describe
from udabench.run.plan import Plan, Request, make_plan
from udabench.run.setup import bare_method

TEACHER, STUDENT = "teacher", "student"


@dataclass(frozen=True)
class Published:
    """A checkpoint of DAFormer's, HRDA's or MIC's code, under udabench's names.

    Attributes:
        teacher: the EMA model; None where the file holds none (the authors publish reduced files too).
    """

    path: Path
    digest: str
    network: Recognised
    student: State
    teacher: State | None

    @property
    def source(self) -> str:
        """What a record calls it: file names alone (``latest.pth``) do not tell them apart."""
        return f"{self.path.name} (SHA-256 {self.digest[:12]})"


@dataclass(frozen=True)
class Imported:
    """What became of a checkpoint."""

    folder: Path
    published: Published
    report: WeightsReport


def read_published(path: Path) -> Published:
    """Raises CheckpointError when the file is missing, needs more than tensors, or holds no network that is known."""
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")
    state = read_state(path)
    student = mmseg_network(state)
    teacher = mmseg_network(state, TEACHER) if has_teacher(state) else None
    return Published(path, file_digest(path), recognise(student), student, teacher)


def import_checkpoint(
    path: Path, registry: Registry, request: Request, runs: Path, name: str | None = None
) -> Imported:
    """Write the run folder of a published checkpoint: its student, and its teacher where it holds one.

    Args:
        request: method, data sets and overrides; without a preset, that of the network's paper where the method has it.
        runs: the folder is written below ``<runs>/<task>/``.
        name: the folder's; None: the run's.

    Raises:
        CheckpointError: the file does not give every value of the method's networks.
        UsageError: the folder is taken, the configuration has problems.
    """
    if name is not None and not re.fullmatch(FILE_NAME, name):
        raise UsageError(f"'{name}' is no name for a folder: use letters, digits and any of _ + = - .")
    published = read_published(path)
    plan = _plan(registry, request, published)
    folder = RunFolder(runs / (f"{plan.task.name}/{name}" if name else plan.folder_name))
    if folder.run_json.exists():
        raise UsageError(f"{folder.path} holds a run already. Choose another --name, or delete it.")
    seed_everything(plan.config.seed, "initial weights")
    method = bare_method(plan)
    report = _fill(method, published)
    counters = Counters(stage_name=read_stages(method, plan.config)[0].name)
    state = {"identity": run_identity(plan.config), "counters": counters.as_state()}
    with folder.lock():
        Checkpoints(folder.checkpoints).write(0, state, method, {})
        folder.update_run(**describe(plan), status="imported", iteration=0, weights=[asdict(report)])
    return Imported(folder.path, published, report)


def _plan(registry: Registry, request: Request, published: Published) -> Plan:
    found = published.network
    flags = {
        **request.flags,
        "network.name": found.name,
        "network.options": dict(found.options),
        "network.weights": f"imported: {published.source}",
    }
    if published.teacher is None:
        flags["evaluate.predictors"] = [STUDENT]
    preset = request.preset or _paper_preset(registry, request, found)
    plan = make_plan(registry, replace(request, preset=preset, flags=flags))
    if len(plan.task.classes) != found.classes:
        raise UsageError(
            f"{published.path} has {found.classes} outputs, but {plan.task.name} has {len(plan.task.classes)} classes "
            f"({plan.task.classes.name}). Choose other data sets or --set data.classes=<list>."
        )
    return plan


def _paper_preset(registry: Registry, request: Request, network: Recognised) -> str | None:
    """``hrda-paper`` or ``daformer-paper``, that of the source first; None where the method has neither."""
    known = presets_of(registry.methods.describe(request.method))
    paper = "hrda-paper" if network.name.startswith("hrda:") else "daformer-paper"
    return next((name for name in (f"{paper}-{request.source}", paper) if name in known), None)


def _fill(method: Method, published: Published) -> WeightsReport:
    """Give every network of the method its values. Raises CheckpointError where something would stay as it is."""
    student = method.network_of_record()
    report = load_state(student, published.student, published.source, digest=published.digest)
    for follower in _followers(method):
        load_state(follower, published.teacher or published.student, published.source)
    given = {id(value) for network in (student, *_followers(method)) for value in _values(network).values()}
    left = [name for name, value in _values(method).items() if id(value) not in given]
    if left:
        raise CheckpointError(
            f"{published.path} has no values for {', '.join(left[:5])}{' ...' if len(left) > 5 else ''} of method "
            f"{type(method).__name__}. Import it as a method that has a student and its EMA teacher alone: daformer."
        )
    student.reports = (report,)
    return report


def _followers(method: Method) -> Iterator[Network]:
    """The networks of EMA teachers."""
    for module in method.modules():
        if isinstance(module, Ema) and isinstance(module.module, Network):
            yield module.module


def _values(module: Method | Network) -> Mapping[str, Tensor]:
    """Everything that a checkpoint of it holds."""
    return module.state_dict(keep_vars=True)
