"""Segments pictures with a trained run and writes them for people, for training, or for the Cityscapes server."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from udabench.data.whole import whole_images
from udabench.dataset import Pixels
from udabench.errors import DataError, UsageError, unknown
from udabench.evaluate.inference import infer
from udabench.evaluate.prediction import predict_labels
from udabench.labels import CITYSCAPES19, LabelSpace
from udabench.run.evaluated import usual_size
from udabench.run.scoring import chosen_predictors
from udabench.run.trained import Trained
from udabench.size import Size

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
SERVER_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""Cityscapes label ids of the 19 train ids: what the evaluation server reads."""
OVERLAY = 0.55
"""Share of the label's colour in an overlay."""


def find_images(folder: Path) -> list[Path]:
    """All pictures below a folder, sorted. Raises UsageError when there is none."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}.")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise UsageError(f"{folder} holds no pictures ({', '.join(SUFFIXES)}).")
    stems: dict[Path, Path] = {}
    for path in found:
        other = stems.setdefault(path.with_suffix(""), path)
        if other != path:
            raise UsageError(f"{other} and {path} would be written to the same file. Move one to another folder.")
    return found


class Predictor:
    """One run, one output format.

    Args:
        style: ``color``, ``trainids``, ``cityscapes-server`` or ``overlay``.
        name: ``student`` or ``teacher``; None: the paper's choice.
    """

    def __init__(self, trained: Trained, style: str, name: str | None = None) -> None:
        self.trained = trained
        self.style = style
        self.classes = trained.plan.task.classes
        predictors = chosen_predictors(trained.method, trained.plan.config)
        if name is not None and name not in predictors:
            raise unknown("predictor", name, predictors)
        self.predict = predictors[name] if name else next(iter(predictors.values()))
        if style == "cityscapes-server":
            self.server_ids = server_ids(self.classes)

    def labels(self, image: Pixels) -> Pixels:
        """H W 3 RGB -> H W class ids of the task."""
        config = self.trained.plan.config
        size = config.evaluate.size or usual_size(config)
        resized = Image.fromarray(image).resize((size.width, size.height), Image.Resampling.BILINEAR)
        tensor = torch.from_numpy(np.array(resized)).permute(2, 0, 1)[None].to(self.trained.device).float() / 255
        with torch.inference_mode():
            samples = self.trained.method.look(whole_images(tensor))
            logits = infer(self.predict, samples, config.evaluate)
            height, width = image.shape[:2]
            labels = predict_labels(logits, Size(height, width), config.evaluate.align_corners)
        return labels[0].cpu().numpy()

    def write(self, path: Path, into: Path) -> None:
        """Segment a picture and write the result. Raises DataError naming the picture."""
        try:
            with Image.open(path) as opened:
                image = np.array(opened.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{path} cannot be read as a picture: {error}") from error
        picture = self.render(image, self.labels(image))
        into.parent.mkdir(parents=True, exist_ok=True)
        partial = into.with_name(f".{into.name}.partial")
        picture.save(partial, format="PNG")
        partial.replace(into)

    def render(self, image: Pixels, labels: Pixels) -> Image.Image:
        """The picture of a prediction in this format."""
        if self.style == "trainids":
            return Image.fromarray(labels)
        if self.style == "cityscapes-server":
            return Image.fromarray(self.server_ids[labels])
        if self.style == "overlay":
            colors = np.asarray(self.classes.palette, np.float32)[labels]
            return Image.fromarray((OVERLAY * colors + (1 - OVERLAY) * image).astype(np.uint8))
        picture = Image.fromarray(labels).convert("P")
        picture.putpalette([value for color in self.classes.palette for value in color])
        return picture


def server_ids(classes: LabelSpace) -> npt.NDArray[np.uint8]:
    """Label id of each class. Raises UsageError for classes that Cityscapes does not have."""
    try:
        return np.array([SERVER_IDS[CITYSCAPES19.names.index(name)] for name in classes.names], np.uint8)
    except ValueError:
        raise UsageError(
            f"The classes of this run ({classes.name}) are not those of Cityscapes; use --format trainids."
        ) from None
