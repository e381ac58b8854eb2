"""What source_only adds to supervised training."""

from __future__ import annotations

from typing import Any, Literal

from udabench.config import setting
from udabench.parts.supervised import SupervisedConfig


class SourceOnlyConfig(SupervisedConfig):
    """The baseline of domain generalisation trains on translated images as well."""

    translator: str | None = setting(None, "engine that changes the look of source images, without a target")
    translator_options: dict[str, Any] = setting(dict, "options of the translator")
    translated: Literal["beside", "instead"] = setting(
        "beside", "translated images join the originals (twice the batch) or take their place; with a translator"
    )
