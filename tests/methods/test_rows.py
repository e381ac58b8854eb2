"""Every preset of every built-in method: it resolves and dry-runs as it stands, and its steps run in small."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from udabench.cli.run import run
from udabench.errors import UsageError
from udabench.plugins import import_file
from udabench.presets import presets_of
from udabench.run import estimate
from udabench.run.disk import DiskUse
from udabench.testing import dataset, fake_registry
from udabench.testing.step import run_step
from udabench.testing.subject import Subject

rows = import_file(Path(__file__).with_name("rows.py"))
REGISTRY, FAKES = rows.REGISTRY, fake_registry()
ROWS = [
    pytest.param(method.name, preset, id=f"{method.name}-{preset}")
    for method in REGISTRY.methods
    for preset in presets_of(method)
]
STEPS = [
    # Rows of further generations (gen3) do once more what those of the second do.
    pytest.param(*row.values, id=row.id, marks=pytest.mark.slow if re.search(r"gen[3-9]$", row.id) else ())
    for row in ROWS
]


@pytest.fixture
def free_estimate(monkeypatch):
    """Without timing a step of a full-size network."""
    disk = DiskUse(checkpoint=1, checkpoints=1, ends=0, artefacts=None, passes=0)
    cost = estimate.Estimate(parameters=1, disk=disk, step_flops=None, flops_per_second=1.0)
    monkeypatch.setattr(estimate, "estimate", lambda *_: cost)


@pytest.mark.usefixtures("free_estimate")
@pytest.mark.parametrize(("method", "preset"), ROWS)
def test_every_row_dry_runs(method, preset, tmp_path, monkeypatch):
    monkeypatch.setenv("UDABENCH_CONFIG", str(tmp_path / "none.yaml"))
    arguments = ["-m", method, "-s", "gta5", "--preset", preset, "--dry-run", "--runs", str(tmp_path)]
    result = CliRunner().invoke(run, arguments)
    assert isinstance(result.exception, SystemExit | UsageError | None), result.exception
    row = presets_of(REGISTRY.methods.describe(method))[preset]
    for metric, figure in (row.published or {}).get("gta5-cityscapes", {}).items():
        assert f"{metric} {figure}" in result.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("method", "preset"), STEPS)
def test_every_row_makes_two_steps(method, preset, tmp_path):
    subject = Subject(method, FAKES, tmp_path, _small(method, preset, tmp_path), preset)
    built = subject.build()
    for opened in subject.open(built):
        losses = [run_step(built, opened, iteration) for iteration in range(min(2, opened.stage.iterations))]
        assert losses[-1]


@pytest.mark.parametrize("method", [entry.name for entry in REGISTRY.methods])
def test_every_method_steps_on_padded_crops(method, tmp_path):
    """Images are scaled to a quarter of the crop: the rest is padding."""
    subject = Subject(method, FAKES, tmp_path, {"data.scale": [0.25], **_small(method, "quick", tmp_path)}, "quick")
    built = subject.build()
    for opened in subject.open(built):
        shown = [half for half in opened.batch(0) if half is not None]
        assert all(half.valid is not None and 0 < half.valid.float().mean() < 0.5 for half in shown)
        assert run_step(built, opened, 0)


def _small(method: str, preset: str, folder: Path) -> dict[str, object]:
    """What else a row needs at this size: its wrappers around the fake network, pictures where it reads some."""
    config = rows.row(method, preset).config
    chosen = {key.rpartition(".")[2]: value for key, value, _ in config.leaves() if key.startswith("settings.")}
    values: dict[str, object] = {"network.name": ":".join([*config.network.name.split(":")[:-1], "fake"])}
    # Margins of images 512 high would leave nothing here.
    values |= {key: 0 for key in chosen if key in ("ignored_top", "ignored_bottom", "ignored_left", "ignored_right")}
    if chosen.get("features") == "branches":
        values["features"] = "encoder"  # the fake network's head has none
    # The fake network has no weights and options of its own, and is never so sure.
    others = {"distil_weights": None, "distil_options": {}, "label_threshold": 0.0}
    values |= {key: value for key, value in others.items() if key in chosen}
    if chosen.get("translator") == "folder":
        values["translator_options"] = {"path": str(folder / "data" / dataset.SOURCE / "images" / "train")}
    return values
