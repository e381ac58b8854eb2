"""Every preset of the built-in methods resolves, and says what the paper's row says."""

import subprocess
import sys

import pytest
import udabench_oracle
import udabench_source_only
import udabench_t2sda

from udabench.presets import choose_presets, presets_of
from udabench.registry import Catalogue, Registered
from udabench.resolve import layer_of, resolve
from udabench.size import Size

CATALOGUE = Catalogue("method")
for _module in (udabench_source_only, udabench_oracle, udabench_t2sda):
    for _name, _entry in _module.register_methods().items():
        CATALOGUE.add(_name, _entry, _module.__name__)


def _resolve(method: Registered, preset: str | None):
    layers = [layer_of(p) for p in choose_presets(method, preset)]
    return resolve(CATALOGUE.get(method.name).Config, layers)


@pytest.mark.parametrize("method", list(CATALOGUE), ids=lambda m: m.name)
def test_every_preset_resolves_and_is_documented(method):
    presets = presets_of(method)
    assert {"default", "quick"} <= set(presets)
    for name, preset in presets.items():
        resolved = _resolve(method, name)
        assert preset.about, name
        assert all(resolved.origins[key].strip() for key in preset.values), name
        assert (preset.published is None) or preset.table, name


def _row(preset):
    return _resolve(CATALOGUE.describe("t2sda"), preset).config


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
    assert _row("generalize").settings.generalize


def test_quick_is_small_for_all_methods():
    rows = [_resolve(method, "quick").config for method in CATALOGUE]
    assert {row.network.name for row in rows} == {"lite0"}
    assert {row.iterations for row in rows} == {rows[0].iterations}
    assert {row.hash for row in rows} != {rows[0].hash}


def test_published_figures_of_the_presets():
    presets = presets_of(CATALOGUE.describe("t2sda"))
    figures = {name: preset.published for name, preset in presets.items() if preset.published}
    assert figures["default"] == {"mIoU19": 60.4}
    assert figures["daformer"] == {"mIoU19": 70.0}
    assert figures["baseline"] == {"mIoU19": 56.3}
    assert presets["generalize"].published is None
    assert presets["generalize"].reason
    assert not {"quick"} & set(figures)


@pytest.mark.parametrize("module", ["udabench_source_only", "udabench_oracle", "udabench_t2sda"])
def test_registering_imports_no_torch(module):
    code = f"import sys, {module} as m; m.register_methods(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
