"""Data sets whose readers raise whatever they like."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import UnidentifiedImageError

from udabench.data.doctor import diagnose
from udabench.data.files import open_image, open_label
from udabench.errors import DataError
from udabench.testing import FakeSource


def broken(error: Exception | None, ids: np.ndarray) -> FakeSource:
    class Broken(FakeSource):
        def list_names(self) -> list[str]:
            return ["a"]

        def has_label(self, name: str) -> bool:
            return True

        def label_path(self, name: str) -> str:
            return f"label of '{name}'"

        def read_image(self, name: str) -> np.ndarray:
            if error is not None:
                raise error
            return np.zeros((4, 6, 3), np.uint8)

        def read_ids(self, name: str) -> np.ndarray:
            return ids

    return Broken(None, "train")


@pytest.mark.parametrize("error", [OSError("truncated"), UnidentifiedImageError("no picture"), ValueError("odd")])
def test_a_reader_that_raises_is_named(error: Exception) -> None:
    dataset = broken(error, np.zeros((4, 6), np.uint8))
    with pytest.raises(DataError, match="image of 'a' cannot be read"):
        open_image(dataset, "a")
    report = diagnose(dataset)
    assert not report.healthy
    assert "image of 'a' cannot be read" in report.problems[0]


def test_a_coloured_label_is_named() -> None:
    dataset = broken(None, np.zeros((4, 6, 3), np.uint8))
    with pytest.raises(DataError, match="coloured picture"):
        open_label(dataset, "a")
    assert "coloured picture" in diagnose(dataset).problems[0]
