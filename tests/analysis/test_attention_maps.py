"""What pixels are similar to: maps by hand, which pixel is taken, and what is there without a module."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from analysis_fakes import classes, seen
from torch import Tensor, nn
from torch.testing import assert_close

from udabench.analysis.attention import MAPS, AttentionMaps, AttentionMapsConfig
from udabench.analysis.base import Seen, Subject
from udabench.config import RunConfig
from udabench.errors import UsageError
from udabench.parts.attention import SelfAttention, similarity

# Three classes on 1 x 4 pixels: the first two point the same way, the third is at 60 degrees, the last away from all.
LOGITS = torch.tensor([[2.0, 1, 1, -1], [0, 0, 3**0.5, 0], [0, 0, 0, 0]])[:, None]
LABEL = torch.tensor([[0, 1, 0, 255]])


def maps(*modules: SelfAttention, **values: Any) -> AttentionMaps:
    method: Any = nn.ModuleList(modules)
    return AttentionMaps(AttentionMapsConfig(**values), Subject(method, RunConfig(), classes()))


def image(logits: Tensor = LOGITS, label: Tensor = LABEL) -> Seen:
    return seen(logits, label)


def test_similarity_is_the_positive_cosine() -> None:
    assert_close(similarity(LOGITS[None], (0, 0)), torch.tensor([[[1.0, 1, 0.5, 0]]]))
    assert_close(similarity(LOGITS[None], (0, 2)), torch.tensor([[[0.5, 0.5, 1, 0]]]))


def test_a_row_is_that_of_the_whole_attention() -> None:
    """Of the matrix as it is written, in float64."""
    torch.manual_seed(0)
    module, z = SelfAttention(3, 5).double(), torch.randn(2, 3, 4, 6, dtype=torch.float64)
    unit = nn.functional.normalize(module.query(z).flatten(2), dim=1)
    positive = (unit.mT @ unit).relu()
    whole = positive / positive.sum(2, keepdim=True)
    assert_close(module.row(z, (2, 1)).flatten(1), whole[:, 2 * 6 + 1])
    assert_close(SelfAttention(3, None).row(torch.zeros(1, 3, 2, 2), (0, 0)), torch.zeros(1, 2, 2))


def test_shares_on_the_class_by_hand() -> None:
    analysis = maps(SelfAttention(3, None), classes=["a", "b"])
    analysis.look(image(), 0)
    first, second = analysis.table().to_dict("records")
    # Class a: the surest is the first pixel; pixels 0 and 2 are of the class.
    assert (first["class"], first["row"], first["column"]) == ("a", 0, 0)
    assert first["cells"] == pytest.approx(2 / 4)
    assert first["logits"] == first["attention"] == pytest.approx(1.5 / 2.5)
    # Class b: the third pixel is surest of it, but the second alone shows it.
    assert (second["class"], second["column"]) == ("b", 1)
    assert second["logits"] == pytest.approx(1 / 2.5)


def test_of_a_class_that_the_image_does_not_show_the_surest_pixel_is_taken() -> None:
    analysis = maps(classes=["b"])
    analysis.look(image(label=torch.tensor([[0, 0, 0, 255]])), 0)
    assert list(analysis.table()["column"]) == [2]


def test_classes_are_the_most_frequent_ones() -> None:
    analysis = maps(per_image=1)
    analysis.look(image(), 0)
    assert list(analysis.table()["class"]) == ["a"]


def test_pixels_of_the_input() -> None:
    """16 x 8 input pixels over a grid of 4 x 2; what lies outside is brought to the border."""
    logits = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    label = torch.zeros(8, 16, dtype=torch.int64)
    label[:4] = 255
    analysis = maps(pixels=[[5, 9], [1, 1], [99, 99]])
    analysis.look(image(logits, label), 0)
    table = analysis.table()
    assert list(zip(table["row"], table["column"], table["class"], strict=True)) == [
        (1, 2, "a"), (0, 0, ""), (1, 3, "a")
    ]  # fmt: skip
    assert math.isnan(table["logits"][1])
    assert table["cells"][0] == 0.5


def test_only_the_first_images_are_looked_at() -> None:
    analysis = maps(images=2, per_image=1)
    for _ in range(5):
        analysis.look(image(), 0)
    assert len(analysis.table()) == len(analysis.table().attrs[MAPS]) == 2


def test_scores_before_upsampling_are_the_map() -> None:
    fine = image()
    fine.scores = LOGITS[None, :, :, :2]
    analysis = maps(classes=["a"])
    analysis.look(fine, 0)
    assert analysis.maps[0].logits.shape == (1, 2)


def test_a_module_on_features() -> None:
    """Its channels are not those of the logits; its map comes to their grid."""
    analysis = maps(SelfAttention(5, None), classes=["a"])
    analysis.look(seen(torch.ones(5, 2, 8), LABEL, logits=LOGITS), 0)
    assert_close(torch.from_numpy(analysis.maps[0].attention), torch.full((1, 4), 0.25))


def test_without_a_module_there_are_the_logits_alone() -> None:
    plain, with_module = maps(classes=["a"]), maps(SelfAttention(3, None), classes=["a"])
    for each in (plain, with_module):
        each.look(image(), 0)
    tables = {"plain": plain.table(), "sam": with_module.table()}
    assert math.isnan(tables["plain"]["attention"][0])
    assert AttentionMaps.remarks(tables) == ["plain has no self-attention module: the similarity of its logits alone."]
    # The truth, one map of the first run, two of the second.
    assert len(AttentionMaps.draw(tables, classes()).axes) == 4
    assert list(AttentionMaps.summary(tables).columns) == ["plain", "sam"]


def test_unknown_classes() -> None:
    with pytest.raises(UsageError, match=r"Unknown class 'd'\. .*Known: a, b, c"):
        maps(classes=["d"])
