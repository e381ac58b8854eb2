"""The house's rules, read from the code's own imports."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "udabench"

ROOMS = (
    ("errors", "labels", "launch", "scales", "schedules", "size", "strict_yaml", "world"),
    ("hookspecs", "config", "registry"),
    ("dataset", "network", "task", "presets"),
    ("plugins", "resolve"),
    ("method",),
    ("data", "augment", "translate", "networks", "parts", "device"),
    ("engine",),
    ("evaluate",),
    ("results",),
    ("leaderboard",),
    ("run",),
    ("analysis",),
    ("sweep",),
    ("testing",),
    ("cli",),
)
"""Floors, lowest first. A room may import rooms of its own floor and below, never above."""
FLOOR = {room: number for number, rooms in enumerate(ROOMS) for room in rooms}
TYPES_ONLY = {("method", "translate")}
"""Imports that exist for annotations alone (under TYPE_CHECKING)."""


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def sources() -> list[Path]:
    return [p for p in PACKAGE.rglob("*.py") if p.name not in ("__main__.py",) and p != PACKAGE / "__init__.py"]


def test_every_room_has_a_floor() -> None:
    assert {room_of(path) for path in sources()} <= set(FLOOR)


@pytest.mark.parametrize("path", sources(), ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_import_runs_upwards(path: Path) -> None:
    here = room_of(path)
    for name in imported(path):
        parts = name.split(".")
        if parts[0] != "udabench" or len(parts) < 2 or parts[1] not in FLOOR or (here, parts[1]) in TYPES_ONLY:
            continue
        assert FLOOR[parts[1]] <= FLOOR[here], f"{here} imports {name}, which lies above it"


def plugin_folders() -> list[Path]:
    return sorted(p for kind in ("methods", "datasets") for p in (ROOT / kind).glob("udabench_*") if p.is_dir())


@pytest.mark.parametrize("folder", plugin_folders(), ids=lambda p: p.name)
def test_plugins_import_udabench_and_themselves(folder: Path) -> None:
    for path in folder.rglob("*.py"):
        others = {name.split(".")[0] for name in imported(path)} & {f.name for f in plugin_folders()}
        assert others <= {folder.name}


def test_every_plugin_folder_is_registered() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    points = set(project["entry-points"]["udabench"].values())
    assert {folder.name for folder in plugin_folders()} == {p for p in points if not p.startswith("udabench.")}


def test_parents_of_plugins_are_no_packages() -> None:
    assert not (ROOT / "methods" / "__init__.py").exists()
    assert not (ROOT / "datasets" / "__init__.py").exists()


@pytest.mark.parametrize("module", ["udabench", "udabench.cli", "udabench.plugins", "udabench.resolve"])
def test_light_modules_import_no_torch(module: str) -> None:
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_plugins_are_found_without_importing_torch() -> None:
    code = (
        "import sys; from udabench.plugins import load_registry; r = load_registry();"
        "assert not [p for p in r.plugins if p.error], r.plugins; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_public_names_exist() -> None:
    import udabench

    for name in udabench.__all__:
        assert getattr(udabench, name) is not None
