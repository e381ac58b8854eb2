"""``udabench new-method``."""

from __future__ import annotations

import keyword
import shutil
import tomllib
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import click

from udabench.cli.options import load
from udabench.errors import UsageError

TEMPLATES = {
    "pyproject.toml.jinja": "pyproject.toml",
    "test.py.jinja": "test_{name}.py",
    "package/__init__.py.jinja": "{package}/__init__.py",
    "package/config.py.jinja": "{package}/config.py",
    "package/method.py.jinja": "{package}/method.py",
    "package/presets/quick.yaml.jinja": "{package}/presets/quick.yaml",
}
"""Template below ``udabench/templates/method`` -> file of the new folder."""


@click.command()
@click.argument("name")
@click.option(
    "--folder", type=click.Path(path_type=Path), default=Path(), metavar="DIR", help="Where to put it.  [.]"
)  # fmt: skip
def new_method(name: str, folder: Path) -> None:
    """Write the folder of a new method that runs at once: method, settings, preset, test, entry point.

    \b
    udabench new-method mine
    udabench test-plugin mine
    """
    check_name(name)
    written = write_method(name, folder)
    click.echo("\n".join(_next_steps(name, written)))


def check_name(name: str) -> None:
    """Raises UsageError unless NAME can be a method's name and is not taken."""
    if not (name.isascii() and name.isidentifier()) or keyword.iskeyword(name) or name != name.lower():
        raise UsageError(
            f"'{name}' cannot name a method. Use small letters, digits and underscores, a letter first: my_method."
        )
    registry = load(())
    if name in registry.methods:
        origin = registry.methods.describe(name).origin
        raise UsageError(f"There is a method '{name}' already (plugin '{origin}'). Choose another name.")
    if find_spec(package_of(name)) is not None:
        raise UsageError(f"There is an installed package '{package_of(name)}' already. Choose another name.")


def package_of(name: str) -> str:
    """The name under which the method's code is imported."""
    return f"udabench_{name}"


def write_method(name: str, folder: Path) -> Path:
    """Write ``folder/name``, wholly or not at all. Raises UsageError when it is there or cannot be written."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder '{folder}'. Create it first, or name another with --folder.")
    final, hidden = folder / name, folder / f".new-{name}"
    if final.exists() or final.is_symlink():
        raise UsageError(f"'{final}' exists already. Remove it, choose another name, or another --folder.")
    try:
        shutil.rmtree(hidden, ignore_errors=True)
        for target, text in render(name).items():
            path = hidden / target
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        hidden.rename(final)
    except OSError as error:
        shutil.rmtree(hidden, ignore_errors=True)
        raise UsageError(f"'{final}' cannot be written: {error.strerror}. Name another --folder.") from error
    return final


def render(name: str) -> dict[str, str]:
    """Path in the new folder -> text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    values = {"name": name, "package": package_of(name), "class_name": name.title().replace("_", "")}
    folder = files("udabench") / "templates" / "method"
    return {
        target.format(**values): environment.from_string(folder.joinpath(source).read_text("utf-8")).render(values)
        for source, target in TEMPLATES.items()
    }


def _next_steps(name: str, written: Path) -> list[str]:
    package = written / package_of(name)
    lines = [
        f"{written}/ is written: the method is {package / 'method.py'}.",
        "",
        "Run it      "
        f"udabench run --plugin {package} --method {name} --source toycity --target toycity-real",
        f"Check it    udabench test-plugin {written}",
        f"Install it  python -m pip install -e {written}        then: udabench run --method {name} ...",
    ]  # fmt: skip
    if _is_clone(Path.cwd()):
        lines += [
            "",
            f"To build it into udabench: move {package} to methods/{package_of(name)}, add this line to pyproject.toml",
            f'under [project.entry-points.udabench]:  {name} = "{package_of(name)}"  and install again.',
        ]
    return lines


def _is_clone(folder: Path) -> bool:
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    except (OSError, ValueError):
        return False
    return project.get("name") == "udabench" and (folder / "methods").is_dir()
