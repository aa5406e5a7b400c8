"""Captions of a sample by `pool.caption`: text, or the reason why there is none.

Captions arrive as parts by number, in order: an item of a list, a numbered member or column from 0
on, or a whole text as TEXT. Only a whole text is split.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Mapping
from itertools import islice
from typing import Any

from dfn_ray.config import Pool
from dfn_ray.pool.text import has_visible
from dfn_ray.schema import Reason
from dfn_ray.untrusted.json_text import parse_json

CAPTION_KEYS = ("caption", "text")
"""JSON keys of the caption of a sample whose own caption is absent or empty; the first with text is
used."""
LIST_KEYS = (*CAPTION_KEYS, "captions", "texts")
"""The same for samples with several captions."""
LABEL_KEYS = ("cls", "label")
"""The same for captions that are class numbers; also the Parquet columns that hold them."""

MAX_CAPTIONS = 256
"""A sample with more fails with `too_many_captions`. COCO has 5 per image, Visual Genome about 50
regions."""
MAX_PARTS = 4 * MAX_CAPTIONS
"""The same limit for parts, blank ones included, so that a sample of a tar holds no more of
them."""
TEXT = -1
"""Number of the part that is a text of its own: `.txt`, a column of strings."""

_BOM = "\ufeff"
_MAX_DIGITS = 9  # of a class number: fits int32
_TOO_LARGE_LABEL = 10**_MAX_DIGITS

Text = str | list[str]
"""The text of a row: one caption, or the list of several."""
Found = tuple[Text | None, Reason | None]
_NOTHING = (Reason.MISSING_CAPTION, Reason.EMPTY_CAPTION)


def caption_in(
    parts: Mapping[int, bytes | None], size: int | None, metadata: Mapping[str, Any], pool: Pool
) -> Found:
    """The text of a sample whose own captions are `parts`, `size` bytes in total, None for none.

    If they contain no visible text, the captions in its JSON are used.
    """
    text, fault = _decoded_text(parts, size, pool)
    if fault in _NOTHING and (others := _json_parts(metadata, pool)) is not None:
        text, fault = _decoded_text(others, sum(map(len, others.values())), pool)
    if fault is None and isinstance(text, str) and pool.caption == "label":
        return _class_number(text)
    return text, fault


def _decoded_text(parts: Mapping[int, bytes | None], size: int | None, pool: Pool) -> Found:
    """The text of parts of `size` bytes in total, and the reason to reject it, if any."""
    if size is None:
        return None, Reason.MISSING_CAPTION
    if size > pool.max_caption_bytes:
        return None, Reason.CAPTION_TOO_LONG
    try:
        texts = {
            number: (parts[number] or b"").decode().removeprefix(_BOM) for number in sorted(parts)
        }
    except UnicodeDecodeError:
        return None, Reason.CAPTION_NOT_UTF8
    if pool.several_captions:
        return _list_of(texts, pool)
    text = texts.get(TEXT, "")
    return text, None if has_visible(text) else Reason.EMPTY_CAPTION


def _list_of(texts: Mapping[int, str], pool: Pool) -> Found:
    """The captions with visible text in parts."""
    items = texts.values()
    if pool.caption == "lines" or len(texts) == 1:
        items = (item for number, text in texts.items() for item in _items(number, text, pool))
    captions = list(filter(has_visible, items))
    if not captions:
        return None, Reason.EMPTY_CAPTION
    if len(captions) > MAX_CAPTIONS or len(texts) > MAX_PARTS:
        return None, Reason.TOO_MANY_CAPTIONS
    return (captions, None) if is_encodable(captions) else (None, Reason.CAPTION_NOT_UTF8)


def _items(number: int, text: str, pool: Pool) -> list[str]:
    """The captions of one part."""
    if number != TEXT:
        return [text]
    if pool.caption == "lines":
        return text.splitlines()
    array = _array(text)
    return [text] if array is None else array


def _array(text: str) -> list[str] | None:
    """The strings of a JSON array of strings and nulls; None for any other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        value = parse_json(text)
    except ValueError:
        return None
    if not all(item is None or isinstance(item, str) for item in value):
        return None
    return [item for item in value if item is not None]


def is_encodable(captions: list[str]) -> bool:
    """Returns False for half of a surrogate pair: JSON can escape it, UTF-8 cannot encode it."""
    try:
        "".join(captions).encode()
    except UnicodeEncodeError:
        return False
    return True


def _json_parts(metadata: Mapping[str, Any], pool: Pool) -> dict[int, bytes] | None:
    """The captions in JSON, or None if there are none.

    Those of the first key with visible text are used, else those of the first key. Strings of a
    list count if several captions are requested.
    """
    label, several = pool.caption == "label", pool.several_captions
    found: list[dict[int, str]] = []
    for key in LABEL_KEYS if label else LIST_KEYS if several else CAPTION_KEYS:
        value = class_label(metadata.get(key)) if label else metadata.get(key)
        if isinstance(value, str):
            found.append({TEXT: value})
        elif several and isinstance(value, list):
            # One string above the limit is enough to detect the excess.
            strings = (item for item in value if isinstance(item, str) and has_visible(item))
            found.append(dict(enumerate(islice(strings, MAX_CAPTIONS + 1))))
    if not found:
        return None
    read = next((some for some in found if any(map(has_visible, some.values()))), found[0])
    return {number: text.encode("utf-8", "surrogatepass") for number, text in read.items()}


def looks_like_several(text: str | None, metadata: Mapping[str, Any]) -> bool:
    """True if text read as one caption or none may be several: lines, or a list of strings."""
    if text is None:
        values = (metadata.get(key) for key in LIST_KEYS)
        return any(isinstance(value, list) and _holds_two(value) for value in values)
    if text.startswith("[") and (array := _array(text)) is not None:
        return _holds_two(array)
    return "\n" in text and _holds_two(text.splitlines())


def _holds_two(captions: list[Any]) -> bool:
    visible = (True for caption in captions if isinstance(caption, str) and has_visible(caption))
    return sum(islice(visible, 2)) == 2


def class_label(value: Any) -> str | None:
    """The text of a class number: 7 and 7.0 become `7`. NaN becomes None: a gap.

    Other numbers are kept as text and fail with `bad_label` later.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float | decimal.Decimal):
        return None
    if not -_TOO_LARGE_LABEL < value < _TOO_LARGE_LABEL:  # true for NaN as well
        return None if math.isnan(value) else str(value)
    return str(int(value)) if value == int(value) else str(value)


def _class_number(text: str) -> Found:
    """The digits of a class number as canonical text, and the reason to reject it, if any.

    ` 07` becomes `7`.
    """
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MAX_DIGITS):
        return text, Reason.BAD_LABEL
    return str(int(digits)), None
