"""What a run ran on: versions, and the revision of the code."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import udabench
from udabench.results.record import Revision

PACKAGES = ("udabench", "torch", "torchvision", "timm", "numpy", "pillow")


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide numbers."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def revision() -> Revision | None:
    """Commit and dirty flag of the checkout that udabench is imported from; None where it is installed."""
    root = Path(udabench.__file__).resolve().parents[1]
    top = _git(root, "rev-parse", "--show-toplevel")
    # An installed package may lie inside somebody else's repository.
    if top is None or Path(top).resolve() != root:
        return None
    commit, changes = _git(root, "rev-parse", "HEAD"), _git(root, "status", "--porcelain", "--untracked-files=no")
    return None if commit is None else Revision(commit=commit, dirty=bool(changes))


def _git(folder: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
