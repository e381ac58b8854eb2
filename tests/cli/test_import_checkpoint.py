"""Checkpoints of DAFormer's, HRDA's and MIC's names and shapes become runs that can be evaluated and predict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from published import MIT_B5, RESNET101, Shapes, daformer, deeplab_head, hrda, mmseg_resnet, models, under
from safetensors.torch import load_file
from torch import Tensor

from udabench.results import Record, read_record

ON_TOYCITY = [
    "--source", "toycity", "--target", "toycity-real", "--set", "data.crop=128x64", "--set", "data.source_size=128x64",
    "--set", "data.target_size=128x64", "--set", "data.target_options={length: 4}",
    *("--set", "ignored_top=0", "--set", "ignored_bottom=0", "--set", "feature_distance=0"),
    *("--set", "evaluate.window=64x64", "--set", "evaluate.stride=32x32", "--set", "evaluate.limit=2"),
]  # fmt: skip
Said = tuple[int, str]
Call = Callable[..., Said]


def saved(path: Path, state: dict[str, Tensor]) -> Path:
    """As mmcv writes it."""
    torch.save(
        {"meta": {"iter": 40000, "CLASSES": ("road", "sidewalk"), "PALETTE": [[1, 2, 3]]}, "state_dict": state}, path
    )
    return path


def imported(udabench: Call, path: Path, *arguments: object) -> Path:
    code, said = udabench("import-checkpoint", path, *ON_TOYCITY, "--name", "mine", *arguments)
    assert code == 0, said
    return Path("runs/toycity-toycity-real/mine")


def weights(run: Path) -> dict[str, Tensor]:
    return load_file(run / "checkpoints" / "0" / "model.safetensors")


def evaluated(udabench: Call, run: Path, *arguments: object) -> Record:
    code, said = udabench("evaluate", run, "--device", "cpu", *arguments)
    assert code == 0, said
    assert "not trained here" in said
    (folder,) = (run / "evaluated").iterdir()
    return read_record(folder)


def test_daformer_with_its_teacher(udabench: Call, tmp_path: Path) -> None:
    published = models(daformer(), "model", "ema_model", "imnet_model")
    run = imported(udabench, saved(tmp_path / "latest.pth", published))
    stored = weights(run)
    for ours, theirs in (("student", "model"), ("teacher.module", "ema_model")):
        embedding = published[f"{theirs}.decode_head.embed_layers.3.proj.weight"]
        assert torch.equal(stored[f"{ours}.head.embeds.3.weight"][..., 0, 0], embedding)
        depth = published[f"{theirs}.backbone.block4.1.attn.kv.bias"]
        assert torch.equal(stored[f"{ours}.backbone.block4.1.attn.kv.bias"], depth)
    info = json.loads((run / "run.json").read_text())
    assert (info["status"], info["config"]["preset"]) == ("imported", "daformer-paper")
    record = evaluated(udabench, run)
    assert [score.predictor for score in record.evaluations] == ["student", "teacher"]
    assert record.evaluations[0].iou != record.evaluations[1].iou
    assert str(record.flags.imported).startswith("latest.pth (SHA-256 ")
    assert (record.network.name, record.cost.images) == ("mit_b0-daformer", 0)
    (report,) = record.network.reports
    assert (report.coverage, report.missing, report.unexpected) == (1.0, 0, 0)
    assert "evaluate it" in udabench("show", run)[1]
    code, said = udabench("resume", run)
    assert code == 2
    assert "imported weights" in said


def test_hrda_without_a_teacher(udabench: Call, tmp_path: Path) -> None:
    published = models(hrda(), "model")
    run = imported(udabench, saved(tmp_path / "iter_40000_relevant.pth", published))
    stored = weights(run)
    bias = published["model.decode_head.scale_attention.conv_seg.bias"]
    assert torch.equal(stored["student.scale_attention.classifier.bias"], bias)
    info = json.loads((run / "run.json").read_text())["config"]
    assert (info["network"]["name"], info["preset"]) == ("hrda:mit_b0-daformer", "hrda-paper")
    assert info["evaluate"]["mode"] == "slide"
    record = evaluated(udabench, run, "--set", "evaluate.batch=4")
    assert [score.predictor for score in record.evaluations] == ["student"]
    (tmp_path / "photos").mkdir()
    Image.fromarray(np.zeros((64, 128, 3), np.uint8)).save(tmp_path / "photos" / "a.png")
    assert udabench("predict", run, tmp_path / "photos", "--device", "cpu", "--format", "trainids")[0] == 0
    assert np.asarray(Image.open(run / "predictions" / "photos-trainids" / "a.png")).shape == (64, 128)
    assert "Unknown predictor" in udabench("predict", run, tmp_path / "photos", "--predictor", "teacher")[1]


def test_mic_around_daformer(udabench: Call, tmp_path: Path) -> None:
    published = models(hrda(), "model", "ema_model")
    run = imported(udabench, saved(tmp_path / "mic.pth", published), "-m", "mic", "--preset", "mic-paper")
    stored = weights(run)
    bias = published["ema_model.decode_head.head.conv_seg.bias"]
    assert torch.equal(stored["inner.teacher.module.inner.head.classifier.bias"], bias)


def test_what_cannot_be_imported(udabench: Call, tmp_path: Path) -> None:
    published = models(daformer(), "model", "ema_model")
    short = {k: v for k, v in published.items() if "block3.1.mlp.fc1" not in k or k.startswith("ema_model.")}
    teacher = {k: v for k, v in published.items() if not k.startswith("ema_model.decode_head.conv_seg")}
    other = {"features.0.weight": torch.zeros(1)}
    cases = [
        ("no such file", tmp_path / "none.pth", [], "There is no checkpoint"),
        ("a key is missing", saved(tmp_path / "short.pth", short), [], "Missing: backbone.block3.1.mlp.fc1.weight, "),
        (
            "in the teacher",
            saved(tmp_path / "teacher.pth", teacher),
            [],
            "head.classifier.weight, head.classifier.bias",
        ),
        ("another network", saved(tmp_path / "other.pth", other), [], "encoder is not recognised"),
        ("more state", saved(tmp_path / "good.pth", published), ["-m", "t2sda"], "has no values for projector"),
        ("more outputs", tmp_path / "good.pth", ["--set", "data.classes=synthia16"], "19 outputs"),
        ("a path for a name", tmp_path / "good.pth", ["--name", "../x"], "no name for a folder"),
    ]
    for what, path, arguments, message in cases:
        code, said = udabench("import-checkpoint", path, *ON_TOYCITY, *arguments)
        assert code in (1, 2), what
        assert message in said, what
    assert not (tmp_path / "runs").exists()


def test_a_folder_that_is_taken(udabench: Call, tmp_path: Path) -> None:
    path = saved(tmp_path / "latest.pth", models(daformer(), "model"))
    imported(udabench, path)
    code, said = udabench("import-checkpoint", path, *ON_TOYCITY, "--name", "mine")
    assert code == 2
    assert "Choose another --name" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "network"),
    [
        (daformer(MIT_B5), "mit_b5-daformer"),
        (hrda(MIT_B5), "hrda:mit_b5-daformer"),
        (under("backbone.", mmseg_resnet(RESNET101)) | deeplab_head("decode_head", 2), "resnet101-deeplabv2"),
    ],
    ids=["daformer", "hrda", "deeplabv2"],
)
def test_networks_of_full_size(udabench: Call, tmp_path: Path, model: Shapes, network: str) -> None:
    state = models({k: v for k, v in model.items() if "backbone.fc." not in k}, "model", "ema_model", "imnet_model")
    record = evaluated(udabench, imported(udabench, saved(tmp_path / "latest.pth", state)))
    assert record.network.name == network
    assert [score.predictor for score in record.evaluations] == ["student", "teacher"]
