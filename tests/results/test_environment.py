"""The revision of the code, only where the code is a checkout."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import udabench
from udabench.results.environment import revision, versions


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that holds a package of our name."""
    package = tmp_path / "udabench"
    package.mkdir()
    (package / "__init__.py").write_text("")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run(
            ["git", "-c", "user.name=n", "-c", "user.email=e@example.org", *command], cwd=tmp_path, check=True
        )
    monkeypatch.setattr(udabench, "__file__", str(package / "__init__.py"))
    return tmp_path


def test_clean_and_dirty(checkout: Path) -> None:
    found = revision()
    assert found is not None
    assert len(found.commit) == 40
    assert not found.dirty
    (checkout / "udabench" / "__init__.py").write_text("changed = 1")
    assert revision() == found.model_copy(update={"dirty": True})


def test_installed_inside_somebody_elses_repository(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    installed = checkout / "venv" / "udabench"
    installed.mkdir(parents=True)
    monkeypatch.setattr(udabench, "__file__", str(installed / "__init__.py"))
    assert revision() is None


def test_no_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(udabench, "__file__", str(tmp_path / "udabench" / "__init__.py"))
    assert revision() is None


def test_versions() -> None:
    import platform

    import torch

    assert versions()["python"] == platform.python_version()
    assert versions()["torch"] == torch.__version__.split("+")[0] or versions()["torch"] == torch.__version__
