"""A picture of results: image | truth | one prediction a run, a row for each sample, with the classes below."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from udabench.data.doctor import spread
from udabench.data.resize import resize_image, resize_label
from udabench.data.show import GAP, legend, overlay
from udabench.dataset import Dataset, Pixels
from udabench.run.predict import Predictor
from udabench.run.trained import Trained
from udabench.size import Size

TITLE = 22


def panel(runs: Sequence[Trained], dataset: Dataset, count: int = 4, width: int = 360) -> Image.Image:
    """Runs of one task side by side.

    Args:
        runs: their order is the columns'.
        dataset: a labelled split of their target.
        count: samples, evenly spread over the split.
        width: of one picture, in pixels.
    """
    classes = runs[0].plan.task.classes
    lookup = classes.lookup(dataset.label_space)
    predictors = [Predictor(run, "color") for run in runs]
    rows = []
    for index in spread(len(dataset), count):
        image, label = dataset.read_image(dataset.names[index]), lookup[dataset.read_label(dataset.names[index])]
        size = Size(max(1, round(width * image.shape[0] / image.shape[1])), width)
        small = resize_image(image, size)
        maps = [label, *(predictor.labels(image) for predictor in predictors)]
        black = np.zeros_like(small)
        rows.append([small, *(overlay(black, resize_label(m, size), classes, strength=1.0) for m in maps)])
    return _page(rows, ["image", "truth", *(run.plan.config.method for run in runs)], legend(classes, _span(rows)))


def _span(rows: Sequence[Sequence[Pixels]]) -> int:
    return sum(int(picture.shape[1]) + GAP for picture in rows[0]) - GAP


def _page(rows: Sequence[Sequence[Pixels]], titles: Sequence[str], key: Image.Image) -> Image.Image:
    height = sum(row[0].shape[0] + GAP for row in rows)
    page = Image.new("RGB", (_span(rows), TITLE + height + key.height), "white")
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=15)
    top = TITLE
    for row in rows:
        left = 0
        for picture in row:
            page.paste(Image.fromarray(picture), (left, top))
            left += picture.shape[1] + GAP
        top += row[0].shape[0] + GAP
    for column, title in enumerate(titles):
        draw.text((column * (rows[0][0].shape[1] + GAP) + 4, 2), title, fill="black", font=font)
    page.paste(key, (0, top))
    return page
