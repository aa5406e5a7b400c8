"""One sample: its parts from the shard, checked and turned into a row of `SAMPLE_SCHEMA`."""

from __future__ import annotations

import datetime
import decimal
import json
import math
import uuid
from dataclasses import dataclass, field
from typing import Any

from dfn_ray.config import Pool
from dfn_ray.pool.captions import MAX_PARTS, TEXT, Text, caption_in, looks_like_several
from dfn_ray.pool.members import Role
from dfn_ray.schema import Reason, Status
from dfn_ray.uids.derived import derive_uid, own_uid
from dfn_ray.untrusted.json_text import parse_json

MAX_METADATA_BYTES = 2**20
"""A larger JSON member fails with `broken_json` without being read; img2dataset writes about 1
KiB."""

Row = tuple[str, int, str, bytes | None, Text | None, str | None, str | None, str | None]
"""Values of one row, in the order of `SAMPLE_SCHEMA`."""


@dataclass(slots=True)
class Draft:
    """A sample while its shard is being read. Sizes are None for parts that are absent so far."""

    row: int
    key: str
    fault: Reason | None = None
    """Fault that the reader of the shard found in the sample as a whole."""
    cut: bool = False
    """The shard is truncated right after the known parts of the sample."""
    images: int = 0
    unsupported: bool = False
    """It has an image in a format that is not decoded."""
    image_size: int | None = None
    image: bytes | None = None
    caption_size: int | None = None
    """Of all captions together."""
    captions: dict[int, bytes | None] = field(default_factory=dict)
    """By number, as `pool.captions` has them."""
    json_size: int | None = None
    json: bytes | None = None
    metadata: dict[str, Any] | None = None
    """Set by readers of shards that hold columns instead of JSON."""
    replaced: bool = False
    """A metadata value replaces one that JSON or UTF-8 cannot represent. Set by `finish`."""
    looks_like_several: bool = False
    """The text read as one caption may be several. Set by `finish`."""

    @property
    def has_image(self) -> bool:
        """True once an image of any format has been seen."""
        return self.images > 0 or self.unsupported

    @property
    def is_pair(self) -> bool:
        """True once image and caption, or metadata that may hold one, have been seen."""
        return self.has_image and (self.caption_size is not None or self.json_size is not None)

    def register(self, role: Role, size_bytes: int, pool: Pool, number: int = TEXT) -> bool:
        """Registers a part by its header alone; returns True if its bytes are needed.

        Of several captions with one number, or several JSONs, the first counts.
        """
        if role is Role.IMAGE:
            self.images += 1
            if self.images > 1:
                self.image = None  # no longer needed: the sample fails with `several_images`
                return False
            self.image_size = size_bytes
            return size_bytes <= pool.max_image_bytes
        if role is Role.CAPTION and number not in self.captions:
            if len(self.captions) > MAX_PARTS:
                return False
            self.captions[number] = None
            self.caption_size = (self.caption_size or 0) + size_bytes
            return self.caption_size <= pool.max_caption_bytes
        if role is Role.METADATA and self.json_size is None:
            self.json_size = size_bytes
            return size_bytes <= MAX_METADATA_BYTES
        self.unsupported = self.unsupported or role is Role.UNSUPPORTED
        return False

    def fill(self, role: Role, data: bytes, number: int = TEXT) -> None:
        """Sets the bytes of a part that `note` requested."""
        if role is Role.IMAGE:
            self.image = data
        elif role is Role.CAPTION:
            self.captions[number] = data
        else:
            self.json = data

    def finish(self, pool: Pool, shard_name: str) -> Row:
        """The row of this sample; releases its bytes.

        The first fault found wins, in this order: a fault of the sample as a whole (unsafe_name,
        non_contiguous_key, broken_member, linked_member, truncated_shard, broken_row_group),
        several_images, unsupported_image, missing_image, empty_image, image_too_large, broken_json,
        bad_uid, missing_caption, caption_too_long, caption_not_utf8, empty_caption,
        too_many_captions, bad_label. A part that is missing where the shard is truncated fails with
        truncated_shard too. A failed row keeps its metadata if readable.
        """
        if self.json is not None:
            self.metadata = _json_object(self.json)
        metadata = self._metadata_text()
        text, text_fault = self._text(pool)
        own = self.metadata.get("uid") if self.metadata and pool.uid == "auto" else None
        uid = own_uid(own)
        reason = (
            self.fault
            or self._image_fault(pool)
            or (Reason.BROKEN_JSON if self.json_size is not None and metadata is None else None)
            or (Reason.BAD_UID if own is not None and uid is None else None)
            or text_fault
        )
        if self.cut and reason in (Reason.MISSING_IMAGE, Reason.MISSING_CAPTION):
            reason = Reason.TRUNCATED_SHARD
        uid = uid or derive_uid(shard_name, self.key)
        image = self.image if reason is None else None
        text = text if reason is None else None
        status = None if reason is None else Status.FAILED.value
        self.image = self.json = self.metadata = None
        self.captions = {}
        return uid, self.row, self.key, image, text, metadata, status, reason and reason.value

    def _image_fault(self, pool: Pool) -> Reason | None:
        if self.images > 1:
            return Reason.SEVERAL_IMAGES
        if self.image_size is None:
            return Reason.UNSUPPORTED_IMAGE if self.unsupported else Reason.MISSING_IMAGE
        if self.image_size == 0:
            return Reason.EMPTY_IMAGE
        return Reason.IMAGE_TOO_LARGE if self.image_size > pool.max_image_bytes else None

    def _metadata_text(self) -> str | None:
        if self.metadata is None:
            return None
        text, replaced = json_text(self.metadata)
        self.replaced = self.replaced or replaced
        return text

    def _text(self, pool: Pool) -> tuple[Text | None, Reason | None]:
        """The caption or captions, and the reason to reject them, if any."""
        sidecar = self.metadata if self.json is not None and self.metadata else {}
        text, fault = caption_in(self.captions, self.caption_size, sidecar, pool)
        if pool.caption == "text" and (text is None or isinstance(text, str)):
            self.looks_like_several = looks_like_several(text, sidecar)
        return text, fault


def _json_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object in `data`; None if it is not one, or nested deeper than `MAX_DEPTH`."""
    try:
        value = parse_json(data.decode("utf-8-sig"))
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def json_text(value: Any) -> tuple[str, bool]:
    """JSON text that Arrow and every JSON reader accept, and whether any value was replaced.

    Numbers that JSON cannot represent (NaN, infinities) become null.
    """
    replaced = False
    try:
        text = _JSON.encode(value)
    except ValueError:  # a number that JSON does not have
        text, replaced = _JSON.encode(_finite(value)), True
    try:
        _ = text.isascii() or text.encode()
    except UnicodeEncodeError:  # half a surrogate pair: JSON can escape it, UTF-8 cannot encode it
        text = json.dumps(json.loads(text), separators=(",", ":"))
    return text, replaced


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _json_default(value: Any) -> Any:
    """The replacement for a value of a type that JSON does not have."""
    if isinstance(value, _WRITTEN_AS_TEXT):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    number = float(value) if hasattr(value, "__float__") else None  # half floats are numpy's
    return str(value) if number is None else number if math.isfinite(number) else None


_WRITTEN_AS_TEXT = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal, uuid.UUID)
_JSON = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=_json_default
)
