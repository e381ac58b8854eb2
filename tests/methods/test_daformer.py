"""DAFormer: one step against its equations, worked out in float64; its rows and switches."""

import copy
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from udabench_daformer.method import DAFormer

from udabench.parts.self_training import SelfTrainingConfig
from udabench.plugins import import_file
from udabench.presets import presets_of
from udabench.size import Size

fakes = import_file(Path(__file__).with_name("fakes.py"))
rows = import_file(Path(__file__).with_name("rows.py"))
THINGS = (6, 7, 11, 12, 13, 14, 15, 16, 17, 18)


def _step(**values):
    torch.manual_seed(7)
    config = SelfTrainingConfig(**({"threshold": 0.16, "ignored_bottom": 12, "ignored_top": 4} | values))
    method, data = DAFormer(config, fakes.FakeSetup()), fakes.batch()
    # As after some training: no longer where it started.
    with torch.no_grad():
        method.student.encoder[0].weight.mul_(1.5)
    before = copy.deepcopy(method.student)
    losses, _, shared = fakes.run_step(method, data, iteration=0)
    return before, data, losses, shared


def test_cross_entropy_is_divided_by_all_pixels():
    network, data, losses, _ = _step()
    logits = network.double().train()(data.source.image.double()).logits
    full = F.interpolate(logits, (32, 48), mode="bilinear", align_corners=False)
    expected = F.cross_entropy(full, data.source.label, ignore_index=255, reduction="sum") / (2 * 32 * 48)
    assert losses["source"].parts["source"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_feature_distance_is_that_of_thing_cells_to_the_first_encoder():
    network, data, losses, _ = _step()
    first = fakes.FakeSetup().network().double().eval()
    image = data.source.image.double()
    distances = []
    features, frozen = network.double().train().encode(image)[-1], first.encode(image)[-1]
    for n in range(2):
        for y in range(8):
            for x in range(12):
                cell = data.source.label[n, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].flatten().tolist()
                if any(cell.count(thing) >= 0.75 * 16 for thing in THINGS):
                    distances.append((features[n, :, y, x] - frozen[n, :, y, x]).square().sum().sqrt())
    assert 10 < len(distances) < 2 * 8 * 12
    expected = torch.stack(distances).mean()
    parts = losses["source"].parts
    assert parts["feature_distance"].item() == pytest.approx(expected.item(), rel=1e-5)
    assert losses["source"].value.item() == pytest.approx(
        (parts["source"] + 0.005 * parts["feature_distance"]).item(), rel=1e-6
    )


def test_pseudo_labels_weigh_the_share_of_the_batch_within_the_margins():
    network, data, _, shared = _step()
    logits = network.double().train()(data.target.image.double()).logits
    full = F.interpolate(logits, (32, 48), mode="bilinear", align_corners=False)
    share = (full.softmax(1).amax(1) >= 0.16).double().mean().item()
    assert shared.weight[:, 4:20].unique().tolist() == pytest.approx([share])
    assert shared.weight[:, :4].abs().max() == shared.weight[:, 20:].abs().max() == 0


METHOD = rows.REGISTRY.methods.describe("daformer")


def _row(preset):
    return rows.row("daformer", preset).config


def test_the_default_is_the_papers_row():
    row = _row(None)
    assert row.hash == _row("daformer-paper").hash
    assert (row.network.name, row.iterations, row.data.crop) == ("mit_b5-daformer", 40_000, Size(512, 512))
    assert (row.data.sampler, row.data.rcs_temperature, row.data.rcs_min_pixels) == ("rcs", 0.01, 3000)
    assert (row.optim.kind, row.optim.lr, row.optim.warmup, row.optim.power) == ("adamw", 6e-5, 1500, 1.0)
    settings = row.settings
    assert (settings.ema, settings.ema_update, settings.teacher_norms) == (0.999, "before", "batch")
    assert (settings.margins, settings.ignored_rule) == ((15, 120, 0, 0), "crop")
    assert (settings.jitter_strength, settings.mix_scope, settings.ce_avg) == (0.2, "batch", "all")
    assert (settings.feature_distance, settings.feature_majority) == (0.005, 0.75)


def test_each_strategy_is_a_switch():
    def changed(preset):
        rows = [{key: value for key, value, _ in _row(name).leaves()} for name in (None, preset)]
        return {key: rows[1][key] for key in rows[0] if key != "preset" and rows[0][key] != rows[1][key]}

    assert changed("no-rcs") == {"data.sampler": "paired"}
    assert changed("no-feature-distance") == {"settings.feature_distance": 0}
    assert changed("no-warmup") == {"optim.warmup": 0}


def test_hrda_is_another_network_at_twice_the_size():
    row = _row("hrda-paper")
    assert row.network.name == "hrda:mit_b5-daformer"
    data = row.data
    assert (data.source_size, data.target_size, data.crop) == (Size(1440, 2560), Size(1024, 2048), Size(1024, 1024))
    assert data.rcs_min_crop_ratio == 2.0
    assert (row.settings.margins, row.settings.ignored_rule) == ((30, 240, 30, 30), "image")
    assert (row.evaluate.mode, row.evaluate.window, row.evaluate.stride) == ("slide", Size(1024, 1024), Size(512, 512))
    assert _row("hrda-paper-synthia").data.source_size == Size(1520, 2560)
    assert _row("hrda-paper-synthia").settings == row.settings


def test_figures():
    published = {name: preset.published for name, preset in presets_of(METHOD).items() if preset.published}
    paper = {"gta5-cityscapes": {"mIoU19": 68.3}, "synthia-cityscapes": {"mIoU16": 60.9, "mIoU13*": 67.4}}
    assert published == {
        "default": paper,
        "daformer-paper": paper,
        "hrda-paper": {"gta5-cityscapes": {"mIoU19": 73.8}},
        "hrda-paper-synthia": {"synthia-cityscapes": {"mIoU16": 65.8, "mIoU13*": 72.4}},
        "source-domain": {"gta5-cityscapes": {"mIoU19": 80.7}},
    }


def test_quick_keeps_rare_classes_and_the_feature_distance():
    row = _row("quick")
    assert (row.network.name, row.iterations, row.optim.warmup) == ("lite0", 450, 30)
    # 3000 pixels of 1024x512 are a sixteenth of that in 256x128.
    assert (row.data.sampler, row.data.rcs_min_pixels, row.data.rcs_min_crop_ratio) == ("rcs", round(3000 / 16), 0.5)
    settings = row.settings
    assert (settings.ema, settings.feature_distance, settings.margins) == (0.99, 0.005, (0, 0, 0, 0))
    assert (settings.student_batch, settings.teacher_norms, settings.ce_avg) == ("all", "batch", "valid")
