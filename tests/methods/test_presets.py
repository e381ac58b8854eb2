"""Every preset of the built-in methods resolves, and says what the paper's row says."""

import subprocess
import sys
from pathlib import Path

import pytest

from udabench.errors import PluginError
from udabench.hookspecs import Entry
from udabench.labels import CITYSCAPES19
from udabench.plugins import import_file
from udabench.presets import presets_of
from udabench.registry import Catalogue
from udabench.size import Size

rows = import_file(Path(__file__).with_name("rows.py"))
CATALOGUE = rows.REGISTRY.methods


@pytest.mark.parametrize("method", list(CATALOGUE), ids=lambda m: m.name)
def test_every_preset_resolves_and_is_documented(method):
    presets = presets_of(method)
    assert {"default", "quick"} <= set(presets)
    for name, preset in presets.items():
        resolved = rows.row(method.name, name)
        assert preset.about, name
        assert all(origin.strip() for origin in resolved.origins.values()), name
        assert (preset.published is None) or preset.table, name


def _row(preset):
    return rows.row("t2sda", preset).config


def test_the_default_is_the_papers_resnet_row():
    config = _row(None)
    assert config.network.name == "resnet101-deeplabv2"
    assert (config.iterations, config.optim.warmup, config.optim.power) == (40_000, 1500, 1.0)
    assert (config.optim.kind, config.optim.lr, config.optim.head_lr_factor) == ("adamw", 6e-5, 10)
    assert (config.data.sampler, config.data.crop, config.data.source_batch) == ("rcs", Size(512, 512), 2)
    assert config.settings.feature_distance == 0.005


def test_rows_of_the_tables():
    assert _row("daformer").network.name == "mit_b5-daformer"
    assert _row("daformer").optim.warmup == 1500
    assert _row("t2sda-literal").settings.pull_reduction == "literal"
    assert not _row("baseline").settings.pulls
    assert _row("pseudo-target-ce").settings.ce_on == "pseudo_target"
    assert not _row("vanilla-contrast").settings.translates
    assert _row("dg").settings.generalize


def test_quick_is_small_for_all_methods():
    quick = [rows.row(method, "quick").config for method in CATALOGUE.names()]
    assert {row.network.name for row in quick} == {"lite0"}
    assert {row.iterations for row in quick} == {quick[0].iterations}
    assert {row.hash for row in quick} != {quick[0].hash}


GTA5, SYNTHIA = "gta5-cityscapes", "synthia-cityscapes"
# Task -> metric -> figure, read off the tables of the two texts.
FIGURES = {
    "default": {GTA5: {"mIoU19": 60.4}, SYNTHIA: {"mIoU16": 57.6, "mIoU13*": 65.4}},
    "daformer": {GTA5: {"mIoU19": 70.0, "tail": 63.7}, SYNTHIA: {"mIoU16": 62.8, "mIoU13*": 69.4}},
    "daformer-fda": {GTA5: {"mIoU19": 68.8}, SYNTHIA: {"mIoU16": 61.4, "mIoU13*": 67.8}},
    "hrda-synthia": {SYNTHIA: {"mIoU16": 67.5, "mIoU13*": 73.8}},
    "dg": {GTA5: {"mIoU19": 48.6}, SYNTHIA: {"mIoU16": 44.5}},
    "daformer-drw-none": {GTA5: {"mIoU19": 68.9, "tail": 62.0}},
    "daformer-drw-ce": {GTA5: {"mIoU19": 68.8, "tail": 60.1}},
    **{
        name: {GTA5: {"mIoU19": figure}}
        for name, figure in {
            "baseline": 56.3, "vanilla-contrast": 57.5, "source-to-target": 57.3, "source-to-pseudo-target": 58.4,
            "source-negatives": 60.1, "pseudo-target-ce": 58.7, "mse": 58.6,
            "components-drw-ce": 56.9, "daformer-components-none": 68.7,
            "components-pull": 59.0, "components-cbqs": 59.2, "components-drw": 59.8,
            "daformer-baseline": 68.3, "daformer-vanilla-contrast": 68.5, "daformer-source-to-target": 68.3,
            "daformer-source-to-pseudo-target": 69.0, "daformer-pseudo-target-ce": 69.0,
            "daformer-target-to-source": 68.6, "daformer-mse": 69.4,
            "daformer-color-jitter": 69.0, "daformer-color-jitter-ce": 68.1,
            "daformer-gaussian-blur": 69.5, "daformer-gaussian-blur-ce": 68.4,
            "daformer-cycada": 69.2, "daformer-cycada-ce": 68.2, "daformer-uplr": 70.7, "daformer-uplr-ce": 69.3,
            "daformer-lambda-0.01": 68.3, "daformer-lambda-0.5": 68.2, "daformer-lambda-1": 67.3,
            "daformer-tau-0.02": 69.3, "daformer-tau-0.5": 68.8, "daformer-tau-1": 69.0,
            "daformer-beta-0.1": 69.9, "daformer-beta-1": 68.8, "daformer-beta-2": 69.0,
            "daformer-alpha-0.1": 69.5, "daformer-alpha-0.9": 69.4,
            "daformer-n-64": 68.7, "daformer-n-256": 69.3, "daformer-m-512": 69.5, "daformer-m-2048": 68.8,
            "daformer-source-domain": 80.9, "hrda": 75.1,
        }.items()
    },
}  # fmt: skip
UNPUBLISHED = {
    "dg-styles", "dg-weather", "dg-cartoon", "dg-neural", "t2sda-literal", "srw", "daformer-srw",
    "daformer-components-cbqs", "daformer-components-denps",
}  # fmt: skip


def test_published_figures_of_the_presets():
    presets = presets_of(CATALOGUE.describe("t2sda"))
    assert {name: preset.published for name, preset in presets.items() if preset.published} == FIGURES
    assert {name for name, preset in presets.items() if preset.reason} == UNPUBLISHED
    assert set(presets) == set(FIGURES) | UNPUBLISHED | {"quick"}


def test_metrics_of_the_figures_are_measured():
    for preset in presets_of(CATALOGUE.describe("t2sda")).values():
        for metrics in (preset.published or {}).values():
            assert set(metrics) <= set(CITYSCAPES19.averages)


def test_the_transformer_rows_change_what_their_resnet_twins_change():
    for name in ("vanilla-contrast", "source-to-target", "source-to-pseudo-target", "pseudo-target-ce", "mse"):
        small, large = _row(name), _row(f"daformer-{name}")
        assert large.settings == small.settings
        assert (small.network.name, large.network.name) == ("resnet101-deeplabv2", "mit_b5-daformer")


def test_rows_without_a_pull_have_daformers_teacher():
    for name in ("baseline", "components-drw-ce", "daformer-baseline", "daformer-fda", "daformer-color-jitter-ce"):
        settings = _row(name).settings
        assert (settings.pulls, settings.teacher_norms, settings.copy_buffers) == (False, "batch", False)
    assert _row("daformer-color-jitter-ce").settings.translator == "color_jitter"


def test_generalisation_is_the_papers_objective():
    engines = {"dg": "choice", "dg-styles": "fda_style", "dg-weather": "weather", "dg-cartoon": "cartoon"}
    for name, engine in (engines | {"dg-neural": "folder"}).items():
        row = _row(name)
        assert (row.network.name, row.settings.generalize) == ("mit_b5-daformer", True)
        assert (row.settings.feature_distance, row.data.sampler) == (0, "uniform")
        assert (row.settings.reweight, row.settings.negative_sampling) == ("none", "source")
        assert row.settings.translator == engine


def test_the_baseline_of_generalisation_has_the_same_augmentation():
    mine, baseline = (rows.row(name, "dg").config for name in ("t2sda", "source_only"))
    assert mine.network == baseline.network
    assert mine.settings.translator == baseline.settings.translator
    assert mine.settings.translator_options == baseline.settings.translator_options


def _assumed(preset):
    return set(rows.row("t2sda", preset).assumed)


def test_what_the_paper_leaves_open_is_listed_as_assumed():
    daformers = {
        "data.flip", "data.crop_max_ratio", "settings.jitter_strength", "settings.mix_scope", "settings.ce_avg",
    }  # fmt: skip
    assert daformers | {"network.weights", "data.sampler", "settings.feature_distance"} <= _assumed("default")
    assert not daformers & _assumed("daformer")
    assert {"settings.teacher_norms", "settings.copy_buffers"} <= _assumed("daformer")
    assert {"settings.query_sampling", "settings.negative_sampling"} <= _assumed("components-pull")
    assert "settings.reweight" not in _assumed("components-pull")
    assert {"data.sampler", "settings.translator_options"} <= _assumed("dg")


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """``toy(name=yaml, ...)``: the presets of a method that has these files."""

    def make(**texts):
        package = tmp_path / "toy_presets_method"
        (package / "presets").mkdir(parents=True)
        (package / "__init__.py").touch()
        for name, text in texts.items():
            (package / "presets" / f"{name}.yaml").write_text(text, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "toy_presets_method", raising=False)
        catalogue = Catalogue("method")
        catalogue.add("toy", Entry("toy_presets_method.method:Toy", "a toy"), "toy_presets_method")
        return presets_of(catalogue.describe("toy"))

    return make


def test_a_preset_lies_over_what_it_extends(toy):
    base = "{origin: paper Tab 1, task: a-b, published: {mIoU: 1}, values: {settings: {x: 1, y: 1, z: 1}}}"
    middle = "{extends: base, origin: paper Tab 2, values: {settings: {y: 2, z: 2}}}"
    presets = toy(base=base, middle=middle, top="{extends: middle, values: {settings: {z: 3}}}")
    top = presets["top"]
    assert top.values == {"settings.x": 1, "settings.y": 2, "settings.z": 3}
    assert top.origins == {"settings.x": "paper Tab 1", "settings.y": "paper Tab 2"}
    assert (presets["base"].published, top.published) == ({"a-b": {"mIoU": 1.0}}, None)


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        ({"one": "extends: two", "two": "extends: one"}, "extend each other: one -> two -> one"),
        ({"one": "extends: one"}, "extend each other: one -> one"),
        ({"one": "extends: tow", "two": "about: it"}, "'one' extends what is not there.*Did you mean 'two'"),
        ({"one": "published: {mIoU19: 60.4}"}, "one.yaml cannot be read: published figures belong to a task"),
    ],
)
def test_presets_that_cannot_be(toy, texts, error):
    with pytest.raises(PluginError, match=error):
        toy(**texts)


@pytest.mark.parametrize("method", CATALOGUE.names())
def test_registering_imports_no_torch(method):
    module = CATALOGUE.describe(method).entry.target.partition(".")[0]
    code = f"import sys, {module} as m; m.register_methods(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


BOUNDS = {
    ("source_only", "default"): {GTA5: {"mIoU19": 38.6}, SYNTHIA: {"mIoU16": 33.5, "mIoU13*": 38.6}},
    ("source_only", "mit_b5"): {GTA5: {"mIoU19": 46.1}, SYNTHIA: {"mIoU16": 42.4, "mIoU13*": 47.7}},
    ("source_only", "source-domain"): {GTA5: {"mIoU19": 79.6}},
    ("oracle", "default"): {GTA5: {"mIoU19": 72.5}, SYNTHIA: {"mIoU16": 74.6, "mIoU13*": 79.7}},
    ("oracle", "mit_b5"): {GTA5: {"mIoU19": 77.6}, SYNTHIA: {"mIoU16": 78.7, "mIoU13*": 82.4}},
}


@pytest.mark.parametrize(("method", "preset"), BOUNDS)
def test_published_figures_of_the_bounds(method, preset):
    assert presets_of(CATALOGUE.describe(method))[preset].published == BOUNDS[method, preset]
