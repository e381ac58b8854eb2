"""``udabench analyze`` from the command line, on a tiny run."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from udabench.analysis import study
from udabench.cli import cli
from udabench.engine.folder import RunFolder
from udabench.errors import CheckpointError, DataError, UsageError
from udabench.evaluate.metrics import iou
from udabench.labels import CITYSCAPES19
from udabench.plugins import load_registry
from udabench.results import read_matrices
from udabench.run.conduct import start_run
from udabench.run.plan import Request, make_plan
from udabench.testing import dataset
from udabench.testing.setup import FAKES, SMALL

NAMES = ("attention", "calibration", "ccd", "entropy", "pdd", "pseudo-labels", "similarity", "tsne")
TINY = ["--device", "cpu", "--iterations", "4", "--set", "network.weights=none", "--set", "data.workers=0"]
SHORT = ["--set", "data.source_options={length: 4}", "--set", "data.target_options={length: 3}"]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps on toycity."""
    runs = tmp_path_factory.mktemp("toy")
    task = ("-m", "source_only", "-s", "toycity", "-t", "toycity-real")
    assert invoke("run", *task, *TINY, *SHORT, "--runs", runs).exit_code == 0
    return next(runs.glob("*/*/run.json")).parent


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of two methods on the fake data, and one of other classes."""
    folder = tmp_path_factory.mktemp("fakes")
    data = dataset.write_fake_data(folder / "data")
    roots = {f"data.roots.{name}": data / name for name in (dataset.SOURCE, dataset.TARGET)}
    registry = load_registry([FAKES])

    def run(method: str, **values: object) -> Path:
        flags = {**SMALL, **roots, "iterations": 2, **values}
        request = Request(method, dataset.SOURCE, dataset.TARGET, "quick", flags)
        return start_run(make_plan(registry, request, [FAKES]), folder / "runs").folder

    return {
        "source_only": run("source_only"),
        "t2sda": run("t2sda"),
        "synthia16": run("source_only", **{"data.classes": "synthia16"}),
    }


def analyze(*arguments: object) -> Result:
    return invoke("analyze", "--device", "cpu", *arguments)


def test_all_analyses_of_a_tiny_run(toy: Path) -> None:
    result = analyze(toy, "--set", "tsne.per_class=5")
    assert result.exit_code == 0
    folder = toy / "analysis"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}{end}" for name in NAMES for end in (".csv", ".json", ".png")
    )
    for name in NAMES:
        table = pd.read_csv(folder / f"{name}.csv")
        assert set(table["run"]) == {"source_only"}
        with Image.open(folder / f"{name}.png") as picture:
            assert min(picture.size) > 300
        made = json.loads((folder / f"{name}.json").read_text())
        images = made["runs"]["source_only"]["images"]
        place = "adapted" if name == "pseudo-labels" else "target"
        assert images[place]["split"] == ("train" if name == "pseudo-labels" else "val")
        assert images[place]["features (channels, height, width)"][0] > 0
        assert f"{name}\n" in result.output
    ccd = pd.read_csv(folder / "ccd.csv").set_index("class")
    assert list(ccd.index) == [*CITYSCAPES19.names, "mean"]
    assert ccd["ccd"]["road"] > 0


def test_iou_is_that_of_the_evaluation(toy: Path) -> None:
    analyze(toy, "--only", "similarity", "--out", toy / "again")
    found = pd.read_csv(toy / "again" / "similarity.csv")["iou"][:19].to_list()
    record, matrices = read_matrices(toy)
    expected = iou(matrices.by_score[record.evaluations[0].key].sum(0))
    assert found == pytest.approx(expected.tolist(), nan_ok=True)


def test_runs_side_by_side(fakes: dict[str, Path], tmp_path: Path) -> None:
    only = "ccd,entropy,pseudo-labels"
    result = analyze(fakes["t2sda"], fakes["source_only"], "--only", only, "--features", "logits", "--out", tmp_path)
    assert result.exit_code == 0
    assert sorted(path.stem for path in tmp_path.glob("*.csv")) == only.split(",")
    table = pd.read_csv(tmp_path / "ccd.csv")
    assert list(dict.fromkeys(table["run"])) == ["t2sda", "source_only"]
    made = json.loads((tmp_path / "pseudo-labels.json").read_text())
    assert made["features"] == "logits before upsampling"
    runs = {title: run["images"]["adapted"] for title, run in made["runs"].items()}
    assert {title: run["predictor"] for title, run in runs.items()} == {"t2sda": "teacher", "source_only": "student"}
    assert runs["t2sda"]["features (channels, height, width)"][0] == 19
    assert made["runs"]["t2sda"]["threshold"] == 0.968


def test_one_run_gives_the_same_beside_another_and_alone(fakes: dict[str, Path], tmp_path: Path) -> None:
    analyze(fakes["t2sda"], fakes["source_only"], "--only", "ccd", "--out", tmp_path / "both")
    analyze(fakes["source_only"], "--only", "ccd,pdd", "--out", tmp_path / "one")
    both, one = (pd.read_csv(tmp_path / name / "ccd.csv") for name in ("both", "one"))
    pd.testing.assert_frame_equal(both[both["run"] == "source_only"].reset_index(drop=True), one)


def test_choices_reach_the_analysis(fakes: dict[str, Path], tmp_path: Path) -> None:
    run = fakes["t2sda"]
    analyze(run, "--only", "ccd,entropy", "--predictor", "teacher", "--limit", 1, "--split", "train", "--out", tmp_path)
    made = json.loads((tmp_path / "entropy.json").read_text())["runs"]["t2sda"]["images"]["target"]
    assert (made["predictor"], made["images"], made["split"]) == ("teacher", 1, "train")
    assert pd.read_csv(tmp_path / "entropy.csv")["images"].max() == 1


def test_a_training_split_without_labels_still_has_a_density(fakes: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(fakes["source_only"], run)
    data = tmp_path / "data"
    dataset.write_fake_data(data)
    dataset.delete_labels(data / dataset.TARGET)
    stored = RunFolder(run).read_run()
    stored["config"]["data"]["roots"] = {name: str(data / name) for name in (dataset.SOURCE, dataset.TARGET)}
    RunFolder(run).update_run(config=stored["config"])
    analyze(run, "--only", "pseudo-labels", "--set", "pseudo-labels.threshold=0")
    table = pd.read_csv(run / "analysis" / "pseudo-labels.csv").set_index("class")
    assert table["density"]["all"] == 1
    assert math.isnan(table["accuracy"]["all"])
    with pytest.raises(DataError, match="6 of 6 images of FakeTarget 'train' have no label"):
        analyze(run, "--only", "ccd", "--split", "train")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--only", "ccd,pd"], r"Unknown analysis 'pd'. Did you mean 'pdd'\?"),
        (["--only", ","], "--only names no analysis"),
        (["--predictor", "teacher"], "Unknown predictor of .*'teacher'"),
        (["--split", "vall"], "Unknown split of fake-target 'vall'. Did you mean 'val'"),
        (["--set", "ccd.divisr=literal"], "Unknown key of analysis ccd: 'divisr'. Did you mean 'divisor'"),
        (["--set", "ccd.divisor=x"], "ccd.divisor = 'x': input should be 'present' or 'literal'"),
        (["--set", "divisor=literal"], "such as ccd.divisor=literal; not 'divisor'"),
        (["--only", "pdd", "--set", "ccd.divisor=literal"], "analysis 'ccd' is not made"),
        (["{other}"], "is a run of .* \\(synthia16\\), but"),
        (["{same}"], "named twice"),
        (["nowhere"], "There is no run folder or checkpoint nowhere"),
        (["{folder}"], "is no run folder"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(
    fakes: dict[str, Path], tmp_path: Path, arguments: list[str], said: str
) -> None:
    places = {"other": fakes["synthia16"], "same": fakes["source_only"], "folder": tmp_path}
    given = [argument.format(**places) for argument in arguments]
    with pytest.raises(UsageError, match=said):
        analyze(fakes["source_only"], *given, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_runs_on_other_images_do_not_stand_side_by_side(fakes: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(fakes["t2sda"], run)
    stored = RunFolder(run).read_run()
    stored["config"]["evaluate"]["split"] = "train"
    RunFolder(run).update_run(config=stored["config"])
    with pytest.raises(UsageError, match=r"6 images of fake-target 'train', but .* on 2 of 'val'"):
        analyze(fakes["source_only"], run, "--only", "entropy", "--out", tmp_path / "out")
    analyze(fakes["source_only"], run, "--only", "entropy", "--split", "val", "--out", tmp_path / "out")
    assert set(pd.read_csv(tmp_path / "out" / "entropy.csv")["images"]) == {2}


def test_a_run_without_a_checkpoint(fakes: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(fakes["source_only"], run)
    shutil.rmtree(run / "checkpoints")
    with pytest.raises(CheckpointError, match="There is no checkpoint"):
        analyze(run)


def test_missing_data_is_named(fakes: dict[str, Path], tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(fakes["source_only"], run)
    stored = RunFolder(run).read_run()
    stored["config"]["data"]["roots"] = {name: str(tmp_path / "gone") for name in (dataset.SOURCE, dataset.TARGET)}
    RunFolder(run).update_run(config=stored["config"])
    with pytest.raises(DataError, match="gone"):
        analyze(run)
    assert not (run / "analysis").exists()


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "find_spec", lambda module: None)
    catalogue = load_registry().analyses
    with pytest.raises(UsageError, match=r"pip install 'udabench\[analysis\]'"):
        study.choose(catalogue, ["tsne"], {})
    chosen, left_out = study.choose(catalogue, None, {})
    assert sorted(chosen) == [name for name in NAMES if name != "tsne"]
    assert "pip install" in left_out["tsne"]


PLUGIN = '''
import pandas as pd
from udabench import Entry, hookimpl
from udabench.analysis.base import Analysis

class Brightness(Analysis):
    """Mean brightness of the images that the network sees, and its largest feature."""

    bars = {"brightness": "mean"}
    seen = 0

    def look(self, seen, turn):
        self.seen += 1
        self.largest = max(getattr(self, "largest", 0.0), float(seen.features.max()))
        self.brightness = float(seen.samples.image.mean())

    def table(self):
        return pd.DataFrame({"class": self.subject.classes.names, "brightness": self.brightness, "seen": self.seen})

    def notes(self):
        return {"largest feature": self.largest}

@hookimpl
def register_analyses():
    return {"brightness": Entry(Brightness, "of the images")}
'''


def test_a_plugin_brings_an_analysis_in_one_file(fakes: dict[str, Path], tmp_path: Path) -> None:
    plugin = tmp_path / "brightness_plugin.py"
    plugin.write_text(PLUGIN)
    result = analyze(fakes["source_only"], "--plugin", plugin, "--only", "brightness", "--out", tmp_path / "out")
    assert result.exit_code == 0
    table = pd.read_csv(tmp_path / "out" / "brightness.csv")
    assert set(table["seen"]) == {dataset.COUNTS["val"]}
    assert 0 < table["brightness"][0] < 1
    assert (tmp_path / "out" / "brightness.png").is_file()
    assert json.loads((tmp_path / "out" / "brightness.json").read_text())["runs"]["source_only"]["largest feature"] > 0
