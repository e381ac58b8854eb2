"""Records: what is written comes back, and what is damaged is refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from udabench.engine import files
from udabench.errors import RecordError, UserError
from udabench.plugins import import_file
from udabench.results import Matrices, read_matrices, read_record, recompute, write_record

made = import_file(Path(__file__).with_name("experiments.py"))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run folder with its record."""
    write_record(tmp_path, *made.experiment(teacher=62, best=64))
    return tmp_path


def change(run: Path, /, **values: object) -> None:
    path = run / "record.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_roundtrip(run: Path) -> None:
    record, matrices = made.experiment(teacher=62, best=64)
    assert read_record(run) == record
    assert read_record(run / "record.json") == record
    stored = read_matrices(run)[1]
    assert stored.names == ("image_0", "image_1")
    for key, matrix in matrices.by_score.items():
        np.testing.assert_array_equal(stored.by_score[key], matrix)
        assert stored.by_score[key].dtype == np.int64


def test_content(run: Path) -> None:
    record = read_record(run)
    assert record.headline.predictor == "student"
    assert record.headline.checkpoint == "last"
    assert record.headline.iou == {"road": 0.6, "sky": 0.6, "car": 0.6}
    assert record.headline.means == {"mIoU3": pytest.approx(0.6), "mIoU2*": pytest.approx(0.6)}
    assert [score.key for score in record.evaluations] == ["student.last", "teacher.last", "student.best"]
    assert record.flags.oracle_selection
    assert record.protocol_hash == made.PROTOCOL.hash
    assert record.config["data.crop"] == "512x512"
    assert record.origins["method"] == "command line"
    assert record.network.reports[0].coverage == 1.0
    assert record.network.reports[0].unexpected == 1
    assert {"python", "torch", "udabench"} <= set(record.versions)


def test_folders_of_this_machine_stay_out(tmp_path: Path) -> None:
    place = str(tmp_path / "secret")
    record, _ = made.experiment(values={"data.roots.street": place, "data.store": place})
    assert "secret" not in record.model_dump_json()
    assert record.config_hash == made.experiment()[0].config_hash


def test_recompute_without_the_model(run: Path) -> None:
    found = recompute(run)
    assert found["student.last"].iou["road"] == pytest.approx(0.6)
    assert found["teacher.last"].means["mIoU3"] == pytest.approx(0.62)
    # 3 x 60 right, 3 x 20 wrong
    assert found["student.last"].pixel_accuracy == pytest.approx(180 / 240)
    assert found["student.last"].matrix.tolist() == [[60, 20, 0], [0, 60, 20], [20, 0, 60]]


def test_undefined_class_is_null_and_nan(tmp_path: Path) -> None:
    matrices = np.zeros((2, 3, 3), np.int64)
    matrices[:, 0, 0] = 5
    write_record(tmp_path, *made.experiment(matrices=matrices))
    assert json.loads((tmp_path / "record.json").read_text())["evaluations"][0]["iou"]["sky"] is None
    record = read_record(tmp_path)
    assert math.isnan(record.headline.iou["sky"])
    assert record.headline.means["mIoU3"] == 1.0
    recompute(tmp_path)


def test_counts_beyond_32_bits(tmp_path: Path) -> None:
    matrices = made.uniform(60)
    matrices[0, 0, 0] = 2**40
    write_record(tmp_path, *made.experiment(matrices=matrices))
    assert read_matrices(tmp_path)[1].by_score["student.last"][0, 0, 0] == 2**40


def test_newer_schema_is_refused_kindly(run: Path) -> None:
    change(run, schema_version=2, surprise=1)
    with pytest.raises(RecordError, match=r"schema 2; this udabench reads up to 1. Update udabench"):
        read_record(run)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is damaged"),
        ("", "is damaged"),
        ("[1]", "holds no JSON object"),
        ("{}", "states no schema_version"),
        ('{"schema_version": "1"}', "states no schema_version"),
        ('{"schema_version": 1}', "run: Field required"),
    ],
)
def test_damaged_json(run: Path, text: str, message: str) -> None:
    (run / "record.json").write_text(text)
    with pytest.raises(RecordError, match=message):
        read_record(run)


def test_binary_rubbish(run: Path) -> None:
    (run / "record.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecordError, match="is damaged"):
        read_record(run)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="There is no record"):
        read_record(tmp_path)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"run": "../x"}, "run: String should match"),
        ({"run": "a/b"}, "run: String should match"),
        ({"run": ".."}, "run: String should match"),
        ({"evaluations": []}, "evaluations"),
        ({"protocol_hash": "0" * 12}, "does not have the stored protocol_hash"),
        ({"extra": 1}, "extra: Extra inputs"),
        ({"seed": "zero"}, "seed: Input should be a valid integer"),
        ({"matrices": "12"}, "matrices: String should match"),
    ],
)
def test_invalid_content(run: Path, values: dict[str, object], message: str) -> None:
    change(run, **values)
    with pytest.raises(RecordError, match=message):
        read_record(run)


def test_scores_must_be_those_of_the_task(run: Path) -> None:
    scores = json.loads((run / "record.json").read_text())["evaluations"]
    del scores[0]["iou"]["sky"]
    change(run, evaluations=scores)
    with pytest.raises(RecordError, match=r"classes or averages of student.last"):
        read_record(run)


def test_altered_number_is_found(run: Path) -> None:
    scores = json.loads((run / "record.json").read_text())["evaluations"]
    scores[0]["means"]["mIoU3"] = 0.7
    change(run, evaluations=scores)
    with pytest.raises(RecordError, match=r"student.last are not those of its matrices"):
        recompute(run)


@pytest.mark.parametrize("cut", [0, 10, 200])
def test_truncated_matrices(run: Path, cut: int) -> None:
    path = run / "record.matrices"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(RecordError, match=r"record.matrices is damaged"):
        read_matrices(run)


def test_any_flipped_byte_is_found_or_harmless(run: Path) -> None:
    path = run / "record.matrices"
    whole = path.read_bytes()
    truth = Matrices.read(path).digest
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        try:
            found = read_matrices(run)[1]
        except RecordError:
            continue
        assert found.digest == truth


def test_missing_matrices(run: Path) -> None:
    (run / "record.matrices").unlink()
    with pytest.raises(RecordError, match="belong beside their record"):
        read_matrices(run)


def test_matrices_of_another_run(run: Path) -> None:
    made.experiment(percent=80, teacher=62, best=64)[1].write(run / "record.matrices")
    with pytest.raises(RecordError, match="one of the two was altered"):
        read_matrices(run)


def test_pickles_are_not_read(run: Path) -> None:
    with (run / "record.matrices").open("wb") as file:
        np.savez(file, names=np.array([{"a": 1}], dtype=object))
    with pytest.raises(RecordError, match="is damaged"):
        read_matrices(run)


def test_wrong_matrices_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(RecordError):
        write_record(tmp_path, made.experiment()[0], made.experiment(percent=80)[1])
    assert not list(tmp_path.iterdir())


def test_full_disk_keeps_the_old_record(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> None:
        raise OSError(28, "No space left on device")

    before = {path.name: path.read_bytes() for path in run.iterdir()}
    monkeypatch.setattr(files, "sync", full)
    with pytest.raises(UserError, match="No space is left"):
        write_record(run, *made.experiment(percent=80))
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_outcome_of_a_resumed_run() -> None:
    straight, _ = made.experiment()
    resumed, _ = made.experiment(resumed=2, wall=9000.0, step=0.5)
    assert straight != resumed
    assert straight.outcome_digest == resumed.outcome_digest
    for other in (made.experiment(percent=62), made.experiment(seed=1), made.experiment(collapse=["road"])):
        assert other[0].outcome_digest != straight.outcome_digest


def test_digest_sees_names_and_keys() -> None:
    matrices = made.experiment()[1]
    renamed = replace(matrices, names=("image_0", "image_2"))
    rekeyed = replace(matrices, by_score={"teacher.last": matrices.by_score["student.last"]})
    assert len({matrices.digest, renamed.digest, rekeyed.digest}) == 3


def test_flags_are_described() -> None:
    record, _ = made.experiment(target_labels=True, collapse=["sky vanished"], resumed=1, values={"evaluate.limit": 2})
    said = record.flags.described()
    assert said[:4] == [
        "trained on the target's labels: an upper bound, not adaptation",
        "evaluated on the first 2 images only",
        "collapse: sky vanished",
        "resumed 1 time",
    ]


def test_passes_come_back_and_older_records_have_none(tmp_path: Path) -> None:
    passes = [("labels-1", 225, {"pseudo_label/density": 0.25, "probe/pseudo_label/accuracy": 0.9})]
    write_record(tmp_path, *made.experiment(passes=passes))
    (told,) = read_record(tmp_path).passes
    assert (told.stage, told.iteration, told.values) == passes[0]
    # No part of the outcome: a pass that skips what was done before a kill has seen less.
    assert read_record(tmp_path).outcome_digest == made.experiment()[0].outcome_digest
    stored = json.loads((tmp_path / "record.json").read_text())
    del stored["passes"]
    (tmp_path / "record.json").write_text(json.dumps(stored))
    assert read_record(tmp_path).passes == ()
