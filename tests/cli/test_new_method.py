"""``udabench new-method`` and ``udabench test-plugin``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from udabench.cli.new_method import check_name, new_method, render, write_method
from udabench.cli.test_plugin import plugin_path
from udabench.cli.test_plugin import test_plugin as check_plugin
from udabench.errors import PluginError, UsageError
from udabench.testing import write_fake_dataset


def udabench(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "udabench", *map(str, arguments)]
    environment = {**os.environ, "COLUMNS": "120", "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


def files_of(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def test_it_writes_a_folder_and_says_what_to_do_next(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    new_method.main(["my_method"], standalone_mode=False)
    assert files_of(tmp_path) == {
        f"my_method/{name}"
        for name in (
            "pyproject.toml",
            "test_my_method.py",
            "udabench_my_method/__init__.py",
            "udabench_my_method/config.py",
            "udabench_my_method/method.py",
            "udabench_my_method/presets/quick.yaml",
        )
    }
    said = capsys.readouterr().out
    plugin = "my_method/udabench_my_method"
    assert f"udabench run --plugin {plugin} --method my_method --source toycity --target toycity-real" in said
    assert "udabench test-plugin my_method" in said
    assert "pip install -e my_method" in said
    assert "pyproject.toml" not in said


def test_inside_a_clone_it_names_the_entry_point_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "methods").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "udabench"\n')
    monkeypatch.chdir(tmp_path)
    new_method.main(["mine"], standalone_mode=False)
    said = capsys.readouterr().out
    assert 'mine = "udabench_mine"' in said
    assert "methods/udabench_mine" in said


def test_templates_leave_no_placeholder_and_compile():
    for name, text in render("my_method").items():
        assert "{{" not in text
        assert text.endswith("\n")
        if name.endswith(".py"):
            compile(text, name, "exec")


@pytest.mark.parametrize("name", ["../x", "a/b", "1st", "class", "with-dash", "Mine", "", "ümlaut", "."])
def test_a_name_that_is_none_is_refused(name):
    with pytest.raises(UsageError, match="cannot name a method"):
        check_name(name)


@pytest.mark.parametrize(("name", "said"), [("t2sda", "There is a method"), ("toycity", "installed package")])
def test_a_name_that_is_taken_is_refused(name, said):
    with pytest.raises(UsageError, match=said):
        check_name(name)


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "work.txt").write_text("precious")
    with pytest.raises(UsageError, match="exists already"):
        write_method("mine", tmp_path)
    assert files_of(tmp_path) == {"mine/work.txt"}


def test_a_missing_folder_is_not_made_up(tmp_path):
    with pytest.raises(UsageError, match="There is no folder"):
        write_method("mine", tmp_path / "typo")
    assert not files_of(tmp_path)


def test_nothing_half_written_is_left(tmp_path, monkeypatch):
    write = Path.write_text

    def full(self: Path, text: str, **options: object) -> int:
        if self.name == "method.py":
            raise OSError(28, "No space left on device")
        return write(self, text, **options)

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UsageError, match="No space left"):
        write_method("mine", tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_generated_method_conforms(tmp_path):
    assert udabench("new-method", "mine", folder=tmp_path).returncode == 0
    ended = udabench("test-plugin", "mine", "--quick", folder=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "method mine" in ended.stdout
    assert "failed" not in ended.stdout


def test_a_generated_method_is_formatted(tmp_path):
    folder = write_method("mine", tmp_path)
    ruff, options = [sys.executable, "-m", "ruff"], ["--isolated", "--no-cache", "--line-length", "120"]
    for command in (
        [*ruff, "check", "--select", "E,F,I,B,UP,PT,RET,SIM", *options],
        [*ruff, "format", "--check", *options],
    ):
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout


@pytest.mark.slow
def test_a_generated_methods_own_test_passes(tmp_path):
    folder = write_method("mine", tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error"]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout
    assert "1 passed" in ended.stdout


BROKEN = """
from udabench import Dataset, Entry, hookimpl
from udabench.testing.dataset import FakeSource

class Sound(FakeSource): ...

class WrongMap(FakeSource):
    id_map = {0: 19}

class NoLayout(FakeSource):
    layout = ""

@hookimpl
def register_datasets():
    return {kind.__name__: Entry(kind) for kind in (Sound, WrongMap, NoLayout)}
"""


def test_failures_are_listed_with_their_reasons(tmp_path, monkeypatch, capsys):
    monkeypatch.delenv("UDABENCH_DATA", raising=False)
    path = tmp_path / "three_data_sets.py"
    path.write_text(BROKEN)
    with pytest.raises(PluginError) as caught:
        check_plugin.main([str(path)], standalone_mode=False)
    assert str(caught.value).split("\n\n") == [
        "data set NoLayout, check 'declares': State 'layout' and 'obtain': they are printed to a user whose folder is "
        "missing.",
        "data set WrongMap, check 'declares': id_map leads to 19, which is neither an id of cityscapes19 nor 255.",
    ]
    assert "data set Sound" in capsys.readouterr().out


def test_a_data_set_is_tested_where_its_folder_is_named(tmp_path, capsys):
    folder = write_fake_dataset(tmp_path)
    check_plugin.main(["fake-source", "--set", f"data.fake-source={folder}"], standalone_mode=False)
    assert "train 6, val 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["t2sad"], "Did you mean 't2sda'"),
        (["nowhere.py"], "Unknown method, data set or plugin file 'nowhere.py'"),
        (["toycity", "--set", "lr=1"], "only its folder can be set"),
        (["source_only", "--set", "lrr=1"], "Did you mean"),
    ],
)
def test_bad_input_is_explained(arguments, said):
    with pytest.raises((UsageError, PluginError), match=said):
        check_plugin.main(arguments, standalone_mode=False)


def test_a_file_that_registers_nothing_testable_is_refused(tmp_path):
    path = tmp_path / "empty_plugin.py"
    path.write_text("")
    with pytest.raises(UsageError, match="nothing to test"):
        check_plugin.main([str(path)], standalone_mode=False)


def test_a_projects_folder_leads_to_its_package(tmp_path):
    folder = write_method("mine", tmp_path)
    assert plugin_path(folder) == folder / "udabench_mine"
    assert plugin_path(folder / "udabench_mine") == folder / "udabench_mine"
    (folder / "pyproject.toml").write_text("[project]\nname = 'x'\n")
    with pytest.raises(UsageError, match="names no entry point"):
        plugin_path(folder)
