"""The metadata rules: DataComp's basic filter without its language rule, criterion by criterion."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from dfn_ray.config import Rules
from dfn_ray.schema import Reason


def reject_caption(text: str, rules: Rules) -> Reason | None:
    """The reason to reject a caption, or None.

    Words are counted by `str.split`, characters as code points.
    """
    if rules.min_caption_words is not None and len(text.split()) < rules.min_caption_words:
        return Reason.CAPTION_WORDS
    if rules.min_caption_chars is not None and len(text) < rules.min_caption_chars:
        return Reason.CAPTION_CHARS
    return None


def reject_size(width: int, height: int, rules: Rules) -> Reason | None:
    """The reason to reject an image of this size in pixels, or None."""
    if rules.min_image_side is not None and min(width, height) < rules.min_image_side:
        return Reason.IMAGE_SIDE
    if rules.max_aspect_ratio is not None and max(width, height) > rules.max_aspect_ratio * min(
        width, height
    ):
        return Reason.ASPECT_RATIO
    return None


@dataclass(frozen=True)
class SizeRule:
    """The size rules for samples of a chunk; called with (index, width, height) before decoding.

    DataComp's rule applies to the size of the image on the web, which its pools keep in the
    metadata as `original_width` and `original_height`; the file itself is often a smaller copy.
    """

    rules: Rules
    metadata: list[str | None]

    def __call__(self, index: int, width: int, height: int) -> Reason | None:
        """The reason to reject a sample with an image file of this size, or None."""
        return reject_size(*_original_size(self.metadata[index], width, height), self.rules)


def _original_size(metadata: str | None, width: int, height: int) -> tuple[int, int]:
    if metadata is None or "original_width" not in metadata:
        return width, height
    values = json.loads(metadata)
    original = _side(values.get("original_width")), _side(values.get("original_height"))
    return (original[0], original[1]) if original[0] and original[1] else (width, height)


_TOO_LONG = 10**9
"""Limit in pixels that no real side reaches: larger numbers, or text with as many digits, are
ignored."""
_NUMBER = re.compile(r"\s*[0-9]{1,9}(\.[0-9]*)?\s*")


def _side(value: Any) -> int:
    """A side in pixels, from a number or from text as in CSV tables; 0 for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0
    return int(value) if 0 < value < _TOO_LONG else 0
