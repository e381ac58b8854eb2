"""Bad input: one message (what, value, remedy), the right exit code, no traceback, nothing written."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

RUN = ["run", "--source", "toycity", "--target", "toycity-real", "--device", "cpu"]
TINY = ["--iterations", "2", "--set", "network.weights=none", "--set", "evaluate.limit=2", "--set", "data.workers=0"]
OPTIONS = ["--set", "data.source_options={length: 4}", "--set", "data.target_options={length: 4}"]


Call = Callable[..., Any]


CASES = {
    "method": ([*RUN, "-m", "t2sad"], 2, ["Unknown method 't2sad'", "'t2sda'"]),
    "source": (["run", "-m", "t2sda", "-s", "toycty"], 2, ["Unknown data set 'toycty'", "'toycity'"]),
    "command": (["rnu"], 2, ["Unknown command 'rnu'", "'run'"]),
    "option": ([*RUN, "-m", "t2sda", "--iteratoins", "3"], 2, ["--iteratoins", "--iterations"]),
    "preset": ([*RUN, "-m", "t2sda", "--preset", "dafromer"], 2, ["'dafromer'", "'daformer'"]),
    "several": (
        [*RUN, "-m", "t2sda", "--set", "optim.lrr=1", "--set", "temperature=-1", "--set", "iterations=0"],
        2,
        ["'optim.lrr'", "'optim.lr'", "settings.temperature = -1", "greater than 0", "iterations = 0", "iterations:"],
    ),
    "crop": ([*RUN, "-m", "t2sda", "--set", "data.crop=512x512"], 2, ["512x512 does not fit", "256x128"]),
    "crop of a network": (
        [*RUN, "-m", "source_only", "--network", "hrda:lite0", "--set", "data.crop=100x100"],
        2,
        ["hrda:lite0 cannot be trained on crops of 100x100 (data.crop)", "use sides that 8 divides"],
    ),
    "no folder": (["run", "-m", "t2sda", "-s", "gta5"], 2, ["labels/00001.png", "UDABENCH_DATA", "--set data.gta5="]),
    "wrong folder": (
        ["run", "-m", "t2sda", "-s", "gta5", "--set", "data.gta5=nowhere"],
        1,
        ["There is no folder", "nowhere (data.gta5)"],
    ),
    "device": ([*RUN, "-m", "t2sda", "--device", "cudda"], 2, ["Unknown device 'cudda'", "cuda:<number>"]),
    "seeds": ([*RUN, "-m", "t2sda", "--seeds", "0,x"], 2, ["Seeds are numbers", "0,x"]),
    "seed twice": ([*RUN, "-m", "t2sda", "--seeds", "1,1"], 2, ["named twice"]),
    "network": ([*RUN, "-m", "t2sda", "--network", "resnet10-deeplabv2"], 2, ["'resnet10", "resnet101"]),
    "weights": ([*RUN, "-m", "source_only", "--set", "network.weights=no.pth"], 1, ["no.pth"]),
    "plugin": ([*RUN, "-m", "t2sda", "--plugin", "nothing.py"], 2, ["nothing.py", "not a Python file"]),
    "config": ([*RUN, "-m", "t2sda", "--config", "nothing.yaml"], 2, ["nothing.yaml"]),
    "classes": (["run", "-m", "t2sda", "-s", "camvid", "-t", "toycity", "--set", "data.classes=x"], 2, ["'x'"]),
    "resume": (["resume", "nothing"], 2, ["nothing", "run folder"]),
    "evaluate": (["evaluate", "nothing"], 2, ["nothing"]),
    "predict": (["predict", "nothing", "nowhere"], 2, ["nowhere"]),
    "show": (["show", "nothing"], 2, ["nothing"]),
    "doctor": (["data", "doctor", "gta55"], 2, ["'gta55'", "'gta5'"]),
    "leaderboard": (["leaderboard", "add", "nothing"], 1, ["nothing"]),
    "new-method": (["new-method", "../x"], 2, ["../x"]),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input(udabench: Call, tmp_path: Path, case: str) -> None:
    arguments, code, parts = CASES[case]
    said = udabench(*arguments)
    assert said.code == code, said.text
    assert "Traceback" not in said.text
    for part in parts:
        assert part in said.text
    assert not list(tmp_path.iterdir()), "something was written"


@pytest.fixture
def run_folder(udabench: Call, tmp_path: Path) -> Path:
    said = udabench(*RUN, "-m", "source_only", *TINY, *OPTIONS)
    assert said.code == 0, said.text
    return next((tmp_path / "runs").glob("*/*"))


def test_a_run_and_what_can_be_wrong_with_it(udabench: Call, run_folder: Path, tmp_path: Path) -> None:
    again = udabench(*RUN, "-m", "source_only", *TINY, *OPTIONS)
    assert again.code == 2
    assert "holds the finished run" in again.text
    for checkpoint in (run_folder / "checkpoints").iterdir():
        weights = checkpoint / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-100])
    said = udabench("evaluate", run_folder)
    assert said.code == 1
    assert "damaged" in said.text
    (run_folder / "record.json").write_text('{"schema_version": 99}')
    said = udabench("leaderboard", "add", run_folder)
    assert said.code == 1
    assert "schema 99" in said.text


def test_pictures_that_are_none(udabench: Call, run_folder: Path, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"no picture")
    Image.new("RGB", (64, 32)).save(pictures / "b.png")
    for style in ("color", "trainids", "cityscapes-server", "overlay"):
        said = udabench("predict", run_folder, pictures, "--format", style)
        assert said.code == 1
        assert "1 of 2 images segmented" in said.text
        assert "a.png" in said.text
        written = list((run_folder / "predictions" / f"pictures-{style}").iterdir())
        assert [p.name for p in written] == ["b.png"]
        with Image.open(written[0]) as picture:
            assert picture.size == (64, 32)


def test_two_processes_on_one_folder(udabench: Call, run_folder: Path) -> None:
    shutil.copytree(run_folder, run_folder.with_name("copy"))
    copy = run_folder.with_name("copy")
    (copy / "record.json").unlink()
    holder = "import sys, time, pathlib; from udabench.engine.folder import RunFolder\n"
    holder += "with RunFolder(pathlib.Path(sys.argv[1])).lock(): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", holder, str(copy)], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"held\n"
            said = udabench("resume", copy)
        finally:
            process.kill()
    assert said.code == 1
    assert "in use by another process" in said.text
