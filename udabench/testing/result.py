"""What a check found, and how checks are run one after the other."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from udabench.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class CheckResult:
    """One check.

    Attributes:
        name: of the check.
        status: ``passed``, ``failed`` or ``skipped``.
        message: what was found; of a failure, what the author is to do.
        blocked_by: the failed check without which this one was skipped.
    """

    name: str
    status: Literal["passed", "failed", "skipped"]
    message: str = ""
    blocked_by: str = ""

    @property
    def failed(self) -> bool:
        return self.status == "failed"

    def __str__(self) -> str:
        return f"{self.name}: {self.status}{'. ' if self.message else ''}{self.message}"


class Broken(Exception):
    """Raised by a check: the sentence that tells the author what to do."""


class Skip(Exception):
    """Raised by a check that does not apply, with the reason."""


@dataclass(frozen=True)
class Check(Generic[T]):
    """A named check of a subject. ``needs``: checks without which its finding would say nothing new."""

    name: str
    run: Callable[[T], str | None]
    needs: tuple[str, ...] = ()


def run_checks(checks: Sequence[Check[T]], subject: T, before: Sequence[CheckResult] = ()) -> Iterator[CheckResult]:
    """Results as they come. Whatever a check raises is its failure; those that need it are skipped.

    ``before``: results of checks that these may need.
    """
    missing = {result.name: result.blocked_by or result.name for result in before if result.failed or result.blocked_by}
    for check in checks:
        cause = next((missing[name] for name in check.needs if name in missing), None)
        if cause is not None:
            missing[check.name] = cause
            yield CheckResult(check.name, "skipped", f"mend '{cause}' first", cause)
            continue
        result = _run(check, subject)
        if result.failed:
            missing[check.name] = check.name
        yield result


def _run(check: Check[T], subject: T) -> CheckResult:
    try:
        return CheckResult(check.name, "passed", check.run(subject) or "")
    except Skip as reason:
        return CheckResult(check.name, "skipped", str(reason))
    except (Broken, UserError) as error:
        return CheckResult(check.name, "failed", str(error))
    # A plugin may raise anything, and a kit that dies of it helps nobody.
    except Exception as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return CheckResult(
            check.name, "failed", f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})."
        )
