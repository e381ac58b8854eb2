"""``udabench analyze RUN --pseudo-labels``: what a run has stored, counted and drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from udabench.analysis.stored_labels import look_at
from udabench.cli import cli
from udabench.engine.artefacts import write_value
from udabench.engine.folder import RunFolder
from udabench.engine.metrics import Metrics
from udabench.errors import DataError, UsageError
from udabench.plugins import load_registry
from udabench.run.conduct import describe
from udabench.run.plan import Request, make_plan
from udabench.testing import dataset
from udabench.testing.setup import FAKES, SMALL


def analyze(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["analyze", *map(str, arguments), "--pseudo-labels"], catch_exceptions=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset.write_fake_data(tmp_path_factory.mktemp("data") / "data")


@pytest.fixture
def run(data: Path, tmp_path: Path) -> RunFolder:
    """A run folder without weights: only what it was made from."""
    roots = {f"data.roots.{name}": data / name for name in (dataset.SOURCE, dataset.TARGET)}
    request = Request("source_only", dataset.SOURCE, dataset.TARGET, "quick", {**SMALL, **roots})
    folder = RunFolder(tmp_path / "run")
    folder.update_run(**describe(make_plan(load_registry([FAKES]), request, [FAKES])))
    return folder


def truths(data: Path) -> dict[str, np.ndarray]:
    """The target's training labels at the size of the training (they are stored at it)."""
    folder = data / dataset.TARGET / "labels" / "train"
    return {path.stem: np.array(Image.open(path)) for path in sorted(folder.glob("*.png"))}


def store(run: RunFolder, stage: str, iteration: int, labels: dict[str, np.ndarray], artefact: str = "labels") -> Path:
    folder = run.artefacts / stage / str(iteration) / artefact
    for name, label in labels.items():
        write_value(folder, name, torch.from_numpy(label).long())
    return folder


def test_density_accuracy_and_iou_by_class(run: RunFolder, data: Path) -> None:
    """The upper half is claimed as it is; where that is class 0, every second column is claimed as class 1."""
    claims = {}
    for name, truth in truths(data).items():
        label = truth.copy()
        label[:, ::2][truth[:, ::2] == 0] = 1
        label[len(label) // 2 :] = 255
        claims[name] = label
    store(run, "labels", 0, claims)
    (found,) = look_at(run.path)
    table = found.table().set_index("class")
    label, truth = np.stack(list(claims.values())), np.stack(list(truths(data).values()))
    claimed, known = label != 255, (label != 255) & (truth != 255)
    assert table.loc["all", "share"] == pytest.approx(claimed.mean())
    assert table.loc["all", "accuracy"] == pytest.approx((label == truth)[known].mean())
    assert (table["images"] == len(claims)).all()
    for index, name in enumerate(found.classes.names[:3]):
        mine = (label == index) & known
        assert table.loc[name, "share"] == pytest.approx((label == index).mean())
        if mine.any():
            assert table.loc[name, "accuracy"] == pytest.approx((truth == index)[mine].mean())
        union = mine | ((truth == index) & known)
        if union.any():
            assert table.loc[name, "iou"] == pytest.approx((mine & (truth == index)).sum() / union.sum())
    assert table.loc["road", "iou"] < 1


def test_versions_stand_in_the_order_of_the_passes(run: RunFolder, data: Path) -> None:
    for stage, iteration in (("labels-10", 0), ("labels-2", 0), ("early", 0), ("labels-2", 300), ("labels-2", 1000)):
        store(run, stage, iteration, truths(data))
    metrics = Metrics(run.metrics)
    metrics.open(0)
    metrics.write("early", 0, {"density": 0.5})
    metrics.write("labels-2", 5, {"density": 0.5})
    metrics.close()
    store(
        run, "early", 0, {name: np.full_like(label, 200) for name, label in truths(data).items()}, "labels-confidence"
    )
    store(run, "early", 0, {name: np.full_like(label, 77) for name, label in truths(data).items()}, "levels")
    titles = [found.version.title for found in look_at(run.path)]
    assert titles == [
        "early/0/labels", "labels-2/0/labels", "labels-2/300/labels", "labels-2/1000/labels", "labels-10/0/labels",
    ]  # fmt: skip


def test_the_command_writes_a_table_and_a_picture_of_each_version(run: RunFolder, data: Path) -> None:
    some = dict(list(truths(data).items())[:-1])
    folder = store(run, "labels", 0, some)
    store(run, "labels", 0, {name: np.full_like(label, 128) for name, label in some.items()}, "labels-confidence")
    write_value(folder, "stranger", torch.zeros(4, 4, dtype=torch.long))
    result = analyze(run.path)
    assert result.exit_code == 0, result.output
    assert "labels/0/labels" in result.output
    assert "of no training image: stranger" in result.output
    table = pd.read_csv(run.path / "analysis" / "stored-labels.csv")
    assert set(table["images"]) == {len(some)}
    with Image.open(run.path / "analysis" / "stored-labels" / "labels-0-labels.png") as picture:
        assert picture.size[0] > 1000
    (found,) = look_at(run.path)
    assert list(found.pages[0][1]) == ["image", "label", "truth", "confidence"]
    assert found.pages[0][1]["confidence"].unique().tolist() == pytest.approx([128 / 255])


def test_what_cannot_be_shown_is_said(run: RunFolder, data: Path) -> None:
    with pytest.raises(UsageError, match="has stored no pseudo-labels"):
        look_at(run.path)
    folder = store(run, "labels", 0, truths(data))
    for given in (["--only", "ccd"], ["--split", "val"], ["--features", "logits"], ["--device", "cpu"]):
        result = analyze(run.path, *given)
        assert isinstance(result.exception, UsageError)
        assert f"{given[0]} is for analyses of a network" in str(result.exception)
    name = next(iter(truths(data)))
    write_value(folder, name, torch.zeros(4, 4, dtype=torch.long))
    with pytest.raises(DataError, match=rf"{name}\.png is 4x4, but its image is trained on at"):
        look_at(run.path)
