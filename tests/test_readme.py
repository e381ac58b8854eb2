"""What the README says can be done can be done."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from udabench.cli import cli
from udabench.plugins import load_registry
from udabench.results import read_record
from udabench.testing import FAKES, SMALL, check_method, fake_registry, write_fake_data

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(TEXT) if kind == language]


def commands() -> list[str]:
    """Every ``udabench ...`` of the bash blocks and of inline code, without comments."""
    lines = [part for block in blocks("bash") for line in block.splitlines() for part in line.split(" && ")]
    lines = [re.sub(r"^torchrun .* -m (?=udabench )", "", line.strip()) for line in lines]
    inline = re.findall(r"`(udabench [a-z][^`]*)`", BLOCK.sub("", TEXT))
    return [line.strip() for line in (*lines, *inline) if line.strip().startswith("udabench ")]


def check_command(line: str) -> None:
    """Parse a command line to the innermost command; nothing is run."""
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
    command: click.Command = cli
    context = click.Context(cli, info_name="udabench")
    while isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        assert found is not None, f"no command '{name}'"
        command = found
        context = click.Context(command, parent=context, info_name=name)
    # Placeholders such as runs/... stand for files that need not be there.
    for parameter in command.params:
        if isinstance(parameter.type, click.Path):
            parameter.type = click.Path(path_type=Path)
    command.make_context(command.name, words, parent=context.parent)


def test_there_are_commands_to_check():
    assert len(commands()) > 15


@pytest.mark.parametrize("line", commands())
def test_a_command_parses(line):
    check_command(line)


def test_a_wrong_command_would_not_parse():
    for line in ("udabench run --metod t2sda --source gta5", "udabench run --method t2sda", "udabench resume"):
        with pytest.raises(click.UsageError):
            check_command(line)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"^make ([a-z-]+)", "\n".join(blocks("bash")), re.MULTILINE))))
def test_a_make_target_exists(target):
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def named_files() -> list[str]:
    """Links to files, and folders in the table of what lies where."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", TEXT)
    inline = re.findall(r"`([\w.]+(?:/[\w.]+)*/?)`", BLOCK.sub("", TEXT))
    tops = {path.name for path in ROOT.iterdir()}
    own = [name for name in inline if name.split("/")[0] in tops - {"runs"}]
    return sorted({*links, *own})


def test_files_are_named():
    assert {"udabench/hookspecs.py", "udabench/method.py", "benchmarks/", "CITATION.cff"} <= set(named_files())


@pytest.mark.parametrize("name", named_files())
def test_a_named_file_exists(name):
    assert (ROOT / name).exists()


def test_every_method_and_command_is_named():
    cells = [line.split("|")[1] for line in TEXT.splitlines() if line.startswith("| ")]
    named = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert {method.name for method in load_registry().methods} <= named
    for command in cli.list_commands(click.Context(cli)):
        assert re.search(rf"udabench {command}\b|`{command}`", TEXT), command


@pytest.mark.parametrize("kind", ["methods", "datasets"])
def test_named_plugins_exist(kind):
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{kind}/udabench_<name>/`"))
    for name in re.findall(r"`(\w+)`", row.split("|")[2]):
        assert (ROOT / kind / f"udabench_{name}").is_dir()


def written(number, folder):
    """A method of the README as a file of the name that it gives itself."""
    text = [block for block in blocks("python") if "register_methods" in block][number]
    name = re.match(r"# (\w+\.py)\n", text)
    assert name is not None
    path = folder / name[1]
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory):
    return written(0, tmp_path_factory.mktemp("tutorial"))


@pytest.fixture(scope="module")
def rounds(tmp_path_factory):
    return written(1, tmp_path_factory.mktemp("rounds"))


def test_the_tutorial_fits_a_screen(tutorial, rounds):
    assert len(tutorial.read_text().splitlines()) <= 50
    assert len(rounds.read_text().splitlines()) <= 55


def test_the_tutorial_conforms(tutorial, tmp_path):
    results = check_method("entropy", fake_registry(tutorial), tmp_path, whole_runs=False)
    assert not [str(result) for result in results if result.failed]
    assert {"steps", "state", "predict"} <= {result.name for result in results if result.status == "passed"}


def test_the_tutorial_of_stages_conforms(rounds, tmp_path):
    results = check_method("rounds", fake_registry(rounds), tmp_path, {"every": 3}, whole_runs=False)
    assert not [str(result) for result in results if result.failed]


@pytest.mark.slow
def test_the_tutorial_of_stages_conforms_in_whole_runs(rounds, tmp_path):
    results = check_method("rounds", fake_registry(rounds), tmp_path, {"every": 3})
    assert not [str(result) for result in results if result.failed]
    assert {"prepare", "boundary"} <= {result.name for result in results if result.status == "passed"}


@pytest.mark.slow
def test_the_tutorial_conforms_in_whole_runs(tutorial, tmp_path):
    results = check_method("entropy", fake_registry(tutorial), tmp_path)
    assert not [str(result) for result in results if result.failed]
    assert {"resume", "target labels", "process"} <= {result.name for result in results if result.status == "passed"}


def run_tutorial(tutorial: Path, folder: Path, *more: str) -> Path:
    runs = ["--method", tutorial.stem, "--runs", str(folder / "runs")]
    assert cli.main(["run", "--plugin", str(tutorial), *runs, *more], standalone_mode=False) is None
    return max((folder / "runs").glob("*/*/record.json"), key=lambda record: record.stat().st_mtime).parent


@pytest.fixture
def small(tmp_path, monkeypatch):
    """Options that make a run small."""
    monkeypatch.setenv("UDABENCH_DATA", str(write_fake_data(tmp_path / "data")))
    monkeypatch.setenv("UDABENCH_CONFIG", str(tmp_path / "none.yaml"))
    settings = [f"--set={key}={'null' if value is None else value}" for key, value in SMALL.items()]
    return ["--source", "fake-source", "--target", "fake-target", "--plugin", str(FAKES), *settings]


def test_the_tutorial_runs(tutorial, tmp_path, small):
    folder = run_tutorial(tutorial, tmp_path, *small)
    assert folder.name.startswith("entropy-")
    assert "loss/target" in (folder / "metrics.jsonl").read_text()


def test_the_tutorial_of_stages_branches_behind_its_first(rounds, tmp_path, small, capsys):
    first = run_tutorial(rounds, tmp_path, *small, "--set=every=3")
    second = run_tutorial(rounds, tmp_path, *small, "--set=sure=0.2", "--init-from", str(first))
    record = read_record(second)
    assert record.flags.ancestor.stages == ("warm",)
    assert record.flags.ancestor.iterations == 2
    capsys.readouterr()
    assert cli.main(["show", str(first)], standalone_mode=False) is None
    shown = capsys.readouterr().out
    assert "adapt  done        6 of 6 steps  prepared 2 of 2 times" in shown
    assert "pseudo of iteration 3: 6 files" in shown
    assert cli.main(["prune", str(first), "--yes"], standalone_mode=False) is None
    assert not (first / "artefacts").exists()


@pytest.mark.slow
def test_the_tutorial_runs_on_the_embedded_data(tutorial, tmp_path, monkeypatch):
    monkeypatch.setenv("UDABENCH_CONFIG", str(tmp_path / "none.yaml"))
    names = ["--source", "toycity", "--target", "toycity-real", "--iterations", "4"]
    folder = run_tutorial(tutorial, tmp_path, *names, "--set=network.weights=none", "--set=evaluate.limit=2")
    assert folder.parent.name == "toycity-toycity-real"
