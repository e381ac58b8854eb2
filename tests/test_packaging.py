"""The wheel works outside a clone: modules, entry points, presets, templates, the command."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second environment with the wheel alone, that sees the first one's packages."""
    folder = tmp_path_factory.mktemp("env")
    venv.create(folder, with_pip=False, symlinks=True)
    found = folder / "bin" / "python"
    site = Path(
        subprocess.check_output(
            [found, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
        ).strip()
    )
    # A line in a .pth file adds the folder, but not what an editable installation there points to.
    (site / "first.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", str(found), "install", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([*install, "--quiet", "--disable-pip-version-check"], check=True, capture_output=True)
    return found


def call(python: Path, folder: Path, *arguments: str) -> str:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [python, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_wheel_holds_the_packages_and_their_files(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    for wanted in (
        "udabench/preset_files/quick.yaml", "udabench_t2sda/presets/default.yaml", "udabench_toycity/dataset.py",
        "udabench/py.typed",
    ):  # fmt: skip
        assert wanted in names
    assert not [name for name in names if name.startswith(("tests/", "methods/", "datasets/"))]


def test_installed_wheel_finds_its_plugins(python: Path, tmp_path: Path) -> None:
    home = call(python, tmp_path, "-c", "import udabench; print(udabench.__file__)")
    assert str(python.parents[1]) in home
    said = call(python, tmp_path, "-m", "udabench", "plugins")
    assert "broken" not in said
    for name in ("t2sda", "toycity", "cityscapes", "networks"):
        assert name in said


def test_installed_wheel_trains(python: Path, tmp_path: Path) -> None:
    said = call(
        python, tmp_path, "-m", "udabench", "run", "-m", "source_only", "-s", "toycity", "-t", "toycity-real",
        "--iterations", "2", "--set", "network.weights=none", "--set", "data.source_options={length: 4}",
        "--set", "evaluate.limit=2", "--set", "data.workers=0", "--device", "cpu",
    )  # fmt: skip
    assert "mIoU19" in said
    assert list((tmp_path / "runs").glob("*/*/record.json"))
