"""One sample: what its shard says of it, judged and turned into a row of `SAMPLE_SCHEMA`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from dfn_ray.config import Pool
from dfn_ray.pool.members import Role
from dfn_ray.pool.uid import derive_uid, own_uid
from dfn_ray.schema import Reason, Status

MAX_METADATA_BYTES = 2**20
"""A larger JSON member fails with `broken_json` without being read; img2dataset writes about 1 KiB."""

CAPTION_KEYS = ("caption", "text")
"""Where JSON holds the caption of a sample without a caption of its own; the first one present counts."""

LABEL_KEYS = ("cls", "label")
"""The same where captions are class numbers; also the columns of Parquet that hold them."""

_MOST_DIGITS = 9  # of a class number: fits int32

Row = tuple[str, int, str, bytes | None, str | None, str | None, str | None, str | None]
"""Values of one row, in the order of `SAMPLE_SCHEMA`."""


@dataclass(slots=True)
class Draft:
    """A sample while its shard is being read. Sizes are None while there is no such part."""

    row: int
    key: str
    fault: Reason | None = None
    """What the reader of the shard found wrong with the sample as a whole."""
    cut: bool = False
    """The shard is cut off right after what is known of the sample."""
    images: int = 0
    unsupported: bool = False
    """An image is there in a format that is not decoded."""
    image_size: int | None = None
    image: bytes | None = None
    caption_size: int | None = None
    caption: bytes | None = None
    json_size: int | None = None
    json: bytes | None = None
    metadata: dict[str, Any] | None = None
    """Given by shards that hold columns instead of JSON."""

    @property
    def has_image(self) -> bool:
        """True once an image of any format has been seen."""
        return self.images > 0 or self.unsupported

    @property
    def is_pair(self) -> bool:
        """True once image and caption, or metadata that may hold one, have been seen."""
        return self.has_image and (self.caption_size is not None or self.json_size is not None)

    def note(self, role: Role, size_bytes: int, pool: Pool) -> bool:
        """Take note of a part from its header alone; True if its bytes are wanted.

        Of several captions or several JSONs the first counts.
        """
        if role is Role.IMAGE:
            self.images += 1
            if self.images > 1:
                self.image = None  # no longer wanted: the sample fails with `several_images`
                return False
            self.image_size = size_bytes
            return size_bytes <= pool.max_image_bytes
        if role is Role.CAPTION and self.caption_size is None:
            self.caption_size = size_bytes
            return size_bytes <= pool.max_caption_bytes
        if role is Role.METADATA and self.json_size is None:
            self.json_size = size_bytes
            return size_bytes <= MAX_METADATA_BYTES
        self.unsupported = self.unsupported or role is Role.UNSUPPORTED
        return False

    def fill(self, role: Role, data: bytes) -> None:
        """Take the bytes of a part that `note` wanted."""
        if role is Role.IMAGE:
            self.image = data
        elif role is Role.CAPTION:
            self.caption = data
        else:
            self.json = data

    def finish(self, pool: Pool, shard_name: str) -> Row:
        """The row of this sample, which lets go of its bytes. The first fault found wins, in this order:

        a fault of the sample as a whole (unsafe_name, non_contiguous_key, broken_member, truncated_shard),
        several_images, unsupported_image, missing_image, empty_image, image_too_large, broken_json, bad_uid, missing_caption,
        caption_too_long, caption_not_utf8, empty_caption, bad_label. What is missing where the shard is cut off is
        truncated_shard as well. A failed row keeps its metadata if readable.
        """
        if self.json is not None:
            self.metadata = _json_object(self.json)
        metadata = None if self.metadata is None else _compact(self.metadata)
        text, text_fault = self._caption(pool)
        brought = self.metadata.get("uid") if self.metadata and pool.uid == "auto" else None
        uid = own_uid(brought)
        reason = (
            self.fault
            or self._image_fault(pool)
            or (Reason.BROKEN_JSON if self.json_size is not None and metadata is None else None)
            or (Reason.BAD_UID if brought is not None and uid is None else None)
            or text_fault
        )
        if self.cut and reason in (Reason.MISSING_IMAGE, Reason.MISSING_CAPTION):
            reason = Reason.TRUNCATED_SHARD
        uid = uid or derive_uid(shard_name, self.key)
        image = self.image if reason is None else None
        text = text if reason is None else None
        status = None if reason is None else Status.FAILED.value
        self.image = self.caption = self.json = self.metadata = None
        return uid, self.row, self.key, image, text, metadata, status, reason and reason.value

    def _image_fault(self, pool: Pool) -> Reason | None:
        if self.images > 1:
            return Reason.SEVERAL_IMAGES
        if self.image_size is None:
            return Reason.UNSUPPORTED_IMAGE if self.unsupported else Reason.MISSING_IMAGE
        if self.image_size == 0:
            return Reason.EMPTY_IMAGE
        return Reason.IMAGE_TOO_LARGE if self.image_size > pool.max_image_bytes else None

    def _caption(self, pool: Pool) -> tuple[str | None, Reason | None]:
        """The caption and what is wrong with it."""
        caption, size = self.caption, self.caption_size
        if size is None:
            metadata = (self.json is not None and self.metadata) or {}
            keys = LABEL_KEYS if pool.caption == "label" else CAPTION_KEYS
            value = next((metadata[key] for key in keys if key in metadata), None)
            if pool.caption == "label" and type(value) is int:
                value = str(value)
            if not isinstance(value, str):
                return None, Reason.MISSING_CAPTION
            caption = value.encode("utf-8", "surrogatepass")
            size = len(caption)
        if size > pool.max_caption_bytes:
            return None, Reason.CAPTION_TOO_LONG
        try:
            text = (caption or b"").decode("utf-8-sig")
        except UnicodeDecodeError:
            return None, Reason.CAPTION_NOT_UTF8
        if not text.strip():
            return text, Reason.EMPTY_CAPTION
        return _class_number(text) if pool.caption == "label" else (text, None)


def _class_number(text: str) -> tuple[str, Reason | None]:
    """The digits of a class number as everybody writes them (`7`, not ` 07`), and what is wrong with it."""
    digits = text.strip()
    if not (digits.isascii() and digits.isdecimal() and len(digits) <= _MOST_DIGITS):
        return text, Reason.BAD_LABEL
    return str(int(digits)), None


def _json_object(data: bytes) -> dict[str, Any] | None:
    """The JSON object in `data`, or None when it is not one."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _compact(metadata: dict[str, Any]) -> str | None:
    """`metadata` as JSON text that Arrow and every JSON reader take; None when nested too deeply.

    Numbers that JSON does not have (NaN, infinities) become null.
    """
    try:
        text = _dumps(metadata)
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair: JSON can escape it, UTF-8 cannot hold it
        return _dumps(metadata, ascii_only=True)
    except RecursionError:
        return None
    return text


def _dumps(value: dict[str, Any], *, ascii_only: bool = False) -> str:
    options: dict[str, Any] = {
        "ensure_ascii": ascii_only,
        "allow_nan": False,
        "separators": (",", ":"),
        "default": str,
    }
    try:
        return json.dumps(value, **options)
    except ValueError as error:
        if isinstance(error, UnicodeError):
            raise
        return json.dumps(_finite(value), **options)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
