"""Picture sizes. Papers and configs write width x height ("1024x512"); tensors are height first."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from pydantic import GetCoreSchemaHandler
from pydantic_core import core_schema


class Size(NamedTuple):
    """A size in pixels, height first as in tensors; parsed from and printed as ``WIDTHxHEIGHT``."""

    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"

    def scaled(self, factor: float) -> Size:
        """Both sides times ``factor``, rounded; at least 1."""
        return Size(max(1, round(self.height * factor)), max(1, round(self.width * factor)))

    @classmethod
    def parse(cls, value: object) -> Size:
        """From ``"1024x512"`` (width first) or a Size. Raises ValueError otherwise."""
        if isinstance(value, Size):
            return value
        match = re.fullmatch(r"(\d+)\s*[xX×]\s*(\d+)", str(value).strip())
        if match is None or not int(match[1]) or not int(match[2]):
            raise ValueError(f"a size is written WIDTHxHEIGHT, such as 1024x512, not {value!r}")
        return cls(height=int(match[2]), width=int(match[1]))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )


def window_corners(image: Size, window: Size, stride: Size) -> Iterator[tuple[int, int]]:
    """Top-left corners of the windows that cover an image, in reading order; the last of a row or column is shifted
    back so that it fits (mmseg)."""
    for top in _starts(image.height, window.height, stride.height):
        for left in _starts(image.width, window.width, stride.width):
            yield top, left


def _starts(length: int, window: int, stride: int) -> list[int]:
    count = max(0, -(-(length - window) // stride)) + 1
    return [min(index * stride, length - window) for index in range(count)]
