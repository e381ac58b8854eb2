"""A plugin that is broken is reported and costs nobody else."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from udabench.errors import PluginError, UsageError
from udabench.plugins import load_registry

GOOD = """
from udabench import Entry, hookimpl
@hookimpl
def register_methods():
    return {{"{name}": Entry("{module}:Thing", "one line")}}
class Thing: ...
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


@pytest.fixture
def points(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, EntryPoint]:
    texts = {
        "plug_good": GOOD.format(name="good", module="plug_good"),
        "plug_raises": "raise RuntimeError('boom')",
        "plug_newer": "API_VERSION = 99\n" + GOOD.format(name="newer", module="plug_newer"),
        "plug_misspelt": "from udabench import hookimpl\n@hookimpl\ndef register_metods(): return {}\n",
        "plug_clash": GOOD.format(name="good", module="plug_clash"),
        "plug_exits": "import sys; sys.exit(3)",
    }
    for name, text in texts.items():
        write(tmp_path, name, text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return {name: EntryPoint(name, name, "udabench") for name in texts}


def test_broken_plugins_are_reported_and_rolled_back(points: dict[str, EntryPoint]) -> None:
    broken = [name for name in points if name not in ("plug_good", "plug_exits")]
    registry = load_registry(installed=[points["plug_good"], *(points[name] for name in broken)])
    errors = {info.name: info.error for info in registry.plugins}
    assert errors["plug_good"] is None
    assert "boom" in str(errors["plug_raises"])
    assert "API 99" in str(errors["plug_newer"])
    assert "register_metods" in str(errors["plug_misspelt"])
    assert "already registered by plugin 'plug_good'" in str(errors["plug_clash"])
    assert registry.methods.names() == ["good"]


def test_a_plugin_that_exits_is_reported(points: dict[str, EntryPoint]) -> None:
    registry = load_registry(installed=[points["plug_exits"], points["plug_good"]])
    assert "SystemExit" in str(registry.plugins[0].error)
    assert registry.methods.names() == ["good"]


def test_local_file(tmp_path: Path) -> None:
    path = write(tmp_path, "plug_local", GOOD.format(name="local", module="plug_local"))
    registry = load_registry([path], installed=[])
    assert registry.methods.get("local").__name__ == "Thing"
    assert registry.plugins[0].provides == ("method local",)


def test_local_file_that_raises_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match="boom"):
        load_registry([write(tmp_path, "plug_bad", "raise RuntimeError('boom')")], installed=[])


def test_missing_local_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a Python file"):
        load_registry([tmp_path / "nothing.py"], installed=[])


def test_unknown_name_offers_the_nearest(tmp_path: Path) -> None:
    path = write(tmp_path, "plug_near", GOOD.format(name="t2sda", module="plug_near"))
    registry = load_registry([path], installed=[])
    with pytest.raises(UsageError, match=r"Unknown method 't2sad'\. Did you mean 't2sda'\?"):
        registry.methods.get("t2sad")


def test_unimportable_target_is_a_plugin_error(tmp_path: Path) -> None:
    path = write(tmp_path, "plug_target", GOOD.format(name="x", module="no_such_module_here"))
    with pytest.raises(PluginError, match="no_such_module_here"):
        load_registry([path], installed=[]).methods.get("x")


def test_a_file_that_is_installed_too_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, "plug_twice", GOOD.format(name="twice", module="plug_twice"))
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = load_registry([path], installed=[EntryPoint("twice", "plug_twice", "udabench")])
    assert registry.methods.names() == ["twice"]
    assert [info.error for info in registry.plugins] == [None]
