"""Domain generalisation: the target's training images are never touched, and missing pictures are told at once."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from udabench.errors import DataError
from udabench.run.conduct import start_run
from udabench.run.opened import open_plan
from udabench.testing import dataset
from udabench.testing.subject import Subject

STYLES = {
    "translator": "choice",
    "translator_options": {"engines": ["fda_style", {"name": "weather"}, "cartoon", "identity"]},
}
T2SDA = {
    "generalize": True, "negative_sampling": "source", "reweight": "none", "feature_distance": 0,
    "queries": 4, "negatives": 8, "projector_width": 6,
}  # fmt: skip


def _plan(method: str, folder: Path, **values: Any) -> Any:
    small = {"engine.device": "cpu", "engine.threads": 1, "iterations": 2}
    return Subject(method, None, folder, {**small, **{f"settings.{key}": value for key, value in values.items()}}).plan


@pytest.mark.parametrize(("method", "values"), [("t2sda", T2SDA), ("source_only", {})])
def test_no_target_image_is_opened_in_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, values: dict[str, Any]
) -> None:
    """Whatever is asked of the target's training split fails, be it only its list of names."""

    def forbid(name: str) -> None:
        usual = getattr(dataset.FakeDataset, name)

        def asked(self: dataset.FakeDataset, *args: Any) -> Any:
            assert not (isinstance(self, dataset.FakeTarget) and self.split == "train"), f"{name} of the target"
            return usual(self, *args)

        monkeypatch.setattr(dataset.FakeDataset, name, asked)

    plan = _plan(method, tmp_path, **values, **STYLES)
    for name in ("list_names", "read_image", "read_ids", "has_label", "label_path"):
        forbid(name)
    target = plan.target_set(tmp_path / "data" / dataset.TARGET, "train")
    with pytest.raises(AssertionError, match="list_names of the target"):
        len(target)
    outcome = start_run(plan, tmp_path / "runs")
    assert list(outcome.record.lists) == ["source"]
    assert outcome.record.cost.images == 2 * plan.config.data.source_batch


@pytest.mark.parametrize(("method", "values"), [("t2sda", T2SDA), ("source_only", {})])
def test_missing_pictures_are_counted_before_the_training(tmp_path: Path, method: str, values: dict[str, Any]) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    options = {"engines": ["weather", {"name": "folder", "path": str(pictures)}]}
    plan = _plan(method, tmp_path, **values, translator="chain", translator_options=options)
    for picture in sorted((tmp_path / "data" / dataset.SOURCE / "images" / "train").iterdir())[2:]:
        shutil.copy(picture, pictures)
    told = "lacks the translated pictures of 2 of 6 training images: 'source_train_000', 'source_train_001'"
    with pytest.raises(DataError, match=told):
        open_plan(plan)
    for picture in (tmp_path / "data" / dataset.SOURCE / "images" / "train").iterdir():
        shutil.copy(picture, pictures)
    open_plan(plan)
