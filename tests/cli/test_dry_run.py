"""What the dry run says of a row's published figures."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from udabench.cli.dry_run import print_dry_run, published
from udabench.cli.run import run
from udabench.plugins import load_registry
from udabench.run.plan import Request, make_plan

REGISTRY = load_registry()


@pytest.fixture(autouse=True)
def _no_user_file(tmp_path, monkeypatch):
    monkeypatch.setenv("UDABENCH_CONFIG", str(tmp_path / "none.yaml"))


@pytest.mark.parametrize(
    ("source", "preset", "network", "said"),
    [
        ("gta5", None, None, "mIoU19 60.4"),
        ("synthia", None, None, "mIoU16 57.6, mIoU13* 65.4"),
        ("gta5", "daformer", None, "mIoU19 70.0, tail 63.7"),
        ("gta5", "default", "lite0", "null (the row's network is resnet101-deeplabv2, not lite0)"),
        ("gta5", "mse", "lite0", "null (the row's network is resnet101-deeplabv2, not lite0)"),
        ("synthia", "mse", None, "null (the row has figures for gta5-cityscapes, not for synthia-cityscapes)"),
        ("gta5", "srw", None, "null (the text has lost the body of the table)"),
        ("gta5", "quick", None, "null (no row of a paper)"),
    ],
)
def test_figures_stand_only_where_task_and_network_are_the_rows(source, preset, network, said):
    flags = {"network.name": network} if network else {}
    assert published(make_plan(REGISTRY, Request("t2sda", source, preset=preset, flags=flags))) == said


@pytest.mark.parametrize(
    ("method", "preset", "overrides", "said"),
    [
        ("t2sda", None, {"ema": 0.5, "optim.lr": 1e-3, "seed": 3, "engine.device": "cpu"},
         "mIoU19 60.4; this run differs from the row in: optim.lr, settings.ema"),
        ("t2sda", None, {"ema": 0.999}, "mIoU19 60.4"),
        ("mic", None, {}, "mIoU19 75.9"),
        ("mic", None, {"ema": 0.9}, "mIoU19 75.9; this run differs from the row in: settings.inner_settings.ema"),
        ("mic", None, {"inner": "t2sda"}, "null (the row is of mic around daformer, not of mic around t2sda)"),
        ("mic", "t2sda", {}, "mIoU19 76.7"),
        ("t2sda", "hrda", {"addons": "mic"}, "null (the row is of t2sda, not of mic around t2sda)"),
        ("proda", "proda-sam", {}, "mIoU19 58.1"),
        ("sam_addon", "proda-sam", {"sa_weight": 0.1},
         "mIoU19 58.1; this run differs from the row in: settings.sa_weight"),
    ],
)  # fmt: skip
def test_what_differs_from_a_row_is_named(method, preset, overrides, said):
    assert published(make_plan(REGISTRY, Request(method, "gta5", preset=preset, overrides=overrides))) == said


@pytest.mark.parametrize(("source", "target", "code"), [("gta5", "toycity-real", 1), ("toycity", "toycity-real", 0)])
def test_missing_data_are_a_failure(tmp_path, monkeypatch, source, target, code):
    monkeypatch.setattr("udabench.cli.dry_run._costs", lambda *arguments: [])
    arguments = ["-m", "source_only", "-s", source, "-t", target, "--preset", "quick", "--dry-run"]
    result = CliRunner().invoke(run, [*arguments, "--set", f"data.store={tmp_path}"])
    assert result.exit_code == code, result.output
    assert ("This run would not start: gta5 train missing" in result.output) is bool(code)
    assert "Would write" in result.output


def test_only_the_last_presets_figures_are_printed(capsys, monkeypatch):
    monkeypatch.setattr("udabench.cli.dry_run._costs", lambda *arguments: [])
    print_dry_run([make_plan(REGISTRY, Request("t2sda", "gta5", preset="daformer-mse"))], Path("runs"))
    printed = capsys.readouterr().out
    assert "published: mIoU19 69.4\n" in printed
    assert printed.count("published: ") == 1
    assert "60.4" not in printed
