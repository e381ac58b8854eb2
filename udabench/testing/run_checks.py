"""Checks of whole runs: what a kill, a missing label file, another process or a loader process may not change."""

from __future__ import annotations

import random
import shutil
from functools import cached_property
from pathlib import Path

from udabench.testing import dataset
from udabench.testing.result import Broken, Skip
from udabench.testing.server import Server
from udabench.testing.subject import Subject
from udabench.testing.trial import KILL_AT, KILL_BEFORE, KILL_BEHIND, OTHER_HASH_SEED, Ended, Trial


class RunSubject:
    """A subject and its undisturbed run, with which the others are compared."""

    def __init__(self, subject: Subject, server: Server) -> None:
        self.subject = subject
        self.server = server

    @cached_property
    def undisturbed(self) -> Ended:
        """No loader process, every label there."""
        return Trial(self.subject, "undisturbed", server=self.server).run_counted(self._counted)

    @property
    def _counted(self) -> Path:
        return self.subject.folder / "images-of-passes"

    @property
    def looked_at(self) -> int:
        """Images that the passes of the undisturbed run looked at, each as often as it was."""
        return self._counted.stat().st_size if self.undisturbed else 0

    @cached_property
    def images(self) -> int:
        """Training images of the target."""
        return len([*(self.subject.data / dataset.TARGET / "images" / "train").iterdir()])

    @cached_property
    def middle(self) -> int:
        """The step in which a run is killed: after its first checkpoint, and not right after one."""
        return sum(stage.iterations for stage in self.subject.build().stages()) // 2 + 1


def check_run(subject: RunSubject) -> str:
    """A whole run trains, writes checkpoints, is evaluated and writes its record."""
    return f"{len(subject.undisturbed.model)} tensors stored"


def check_resume(subject: RunSubject) -> str:
    """A run that is killed in the middle of a step and resumed ends bit for bit as the undisturbed one."""
    trial = Trial(subject.subject, "killed", server=subject.server)
    trial.run_killed(**{KILL_AT: str(subject.middle)})
    _expect_same(
        subject.undisturbed,
        trial.resume(),
        f"after a kill in step {subject.middle} and a resume",
        "All that a later step depends on must be in submodules and buffers, or follow from 'iteration' and 'rng'; a "
        "stage's start() runs again at a resume, before the state is loaded",
    )
    return f"killed in step {subject.middle}, identical at the end"


def check_prepare(subject: RunSubject) -> str:
    """A run that is killed in the middle of its passes and resumed has written the same artefacts, to the byte."""
    if not subject.looked_at:
        raise Skip("no stage has a prepare that looks at images")
    first = max(1, subject.images // 2)
    trial = Trial(subject.subject, "killed-in-prepare", server=subject.server)
    trial.run_killed(**{KILL_BEHIND: str(first)})
    killed = [first]
    if subject.looked_at >= 2 * subject.images:
        # A second walk over the images, or a second pass.
        killed.append(subject.images + first)
        trial.resume_killed(**{KILL_BEHIND: str(killed[-1])})
    where = " and ".join(f"behind image {number} of its passes" for number in killed)
    _expect_same(
        subject.undisturbed,
        trial.resume(),
        f"after a kill {where} and a resume",
        "A pass that goes on may skip what it has written (images(..., skip_done=artefact)) and nothing else: what it "
        "gathers over all images must be gathered anew, or stored with write_table",
    )
    return f"killed {where}, identical at the end"


def check_boundary(subject: RunSubject) -> str:
    """A run that is killed between two stages and resumed ends bit for bit as the undisturbed one."""
    names = [stage.name for stage in subject.subject.build().stages()]
    if len(names) == 1:
        raise Skip("there is one stage only")
    entered = random.Random(" ".join(names)).choice(names[1:])
    trial = Trial(subject.subject, "killed-between", server=subject.server)
    trial.run_killed(**{KILL_BEFORE: entered})
    _expect_same(
        subject.undisturbed,
        trial.resume(),
        f"after a kill before stage '{entered}' and a resume",
        "What a stage needs of those before it must be in submodules and buffers, or be an artefact",
    )
    return f"killed before '{entered}', identical at the end"


def check_target_labels(subject: RunSubject) -> str:
    """Without the label files of the target's training split the weights are the same."""
    if subject.subject.build().target_labels:
        raise Skip("target_labels = True: the method asks for them, and its record says so")
    data = subject.subject.folder / "data-unlabelled"
    shutil.copytree(subject.subject.data, data)
    dataset.delete_labels(data / dataset.TARGET, "train")
    advice = "No training label of the target may be read, not even from its files"
    try:
        ended = Trial(subject.subject, "unlabelled", data=data, server=subject.server).run()
    except Broken as error:
        raise Broken(f"Without the target's training labels the run does not work. {advice}. {error}") from None
    _expect_same(subject.undisturbed, ended, "without the target's training labels", advice)
    return "identical without the target's training labels"


def check_process(subject: RunSubject) -> str:
    """Another interpreter, with another hash seed and a loader process, gives the same result."""
    both = Trial(subject.subject, "elsewhere", workers=1).run()
    if subject.undisturbed.difference(both) is None:
        return "identical with another hash seed and a loader process"
    _expect_same(
        subject.undisturbed,
        Trial(subject.subject, "interpreter").run(),
        f"in another interpreter (PYTHONHASHSEED={OTHER_HASH_SEED})",
        "Do not depend on hash(), on the order of a set, on addresses, the clock or the process's number",
    )
    _expect_same(
        subject.undisturbed,
        both,
        "with a loader process",
        "Do not read or change what the batches are made of: another process makes them",
    )
    raise Broken("Two runs of the same configuration differ now and then.")


def _expect_same(expected: Ended, found: Ended, when: str, advice: str) -> None:
    what = expected.difference(found)
    if what is not None:
        raise Broken(
            f"{what[0].upper()}{what[1:]} is another {when}. {advice}. Compare {expected.folder} with {found.folder}."
        )
