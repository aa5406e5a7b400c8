"""Arrow schemas, and the closed lists of statuses and reasons.

A *chunk* is a run of rows of one shard and the unit of work and of commit. Between stages a chunk
travels as one Arrow table with `SAMPLE_SCHEMA` (plus the columns that the stage adds).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Self

import pyarrow as pa


class Status(StrEnum):
    """Final state of a sample. Every sample of the pool ends in exactly one of these."""

    SCORED = "scored"
    LISTED = "listed"  # in the uid list, when a list and not a network selects
    REJECTED = "rejected"  # by a rule of the recipe
    FAILED = "failed"  # by a fault of the sample


class Reason(StrEnum):
    """Reason for which a sample was rejected or failed, with the status that it leads to."""

    _value_: str
    status: Status
    """REJECTED: by a rule of the recipe. FAILED: by a fault of the sample."""

    def __new__(cls, value: str, status: Status) -> Self:
        """A member; without a default, so that a new reason without a status fails at import."""
        member = str.__new__(cls, value)
        member._value_, member.status = value, status
        return member

    # rejected: rules of the recipe
    CAPTION_WORDS = "caption_words", Status.REJECTED
    CAPTION_CHARS = "caption_chars", Status.REJECTED
    IMAGE_SIDE = "image_side", Status.REJECTED
    ASPECT_RATIO = "aspect_ratio", Status.REJECTED
    NOT_LISTED = "not_listed", Status.REJECTED
    # failed while reading the shard
    MISSING_CAPTION = "missing_caption", Status.FAILED
    EMPTY_CAPTION = "empty_caption", Status.FAILED
    CAPTION_NOT_UTF8 = "caption_not_utf8", Status.FAILED
    CAPTION_TOO_LONG = "caption_too_long", Status.FAILED
    TOO_MANY_CAPTIONS = "too_many_captions", Status.FAILED
    BAD_LABEL = "bad_label", Status.FAILED
    MISSING_IMAGE = "missing_image", Status.FAILED
    EMPTY_IMAGE = "empty_image", Status.FAILED
    SEVERAL_IMAGES = "several_images", Status.FAILED
    IMAGE_TOO_LARGE = "image_too_large", Status.FAILED
    BROKEN_JSON = "broken_json", Status.FAILED
    BAD_UID = "bad_uid", Status.FAILED
    UNSAFE_NAME = "unsafe_name", Status.FAILED
    BROKEN_MEMBER = "broken_member", Status.FAILED  # the tar records a wrong place or name for it
    # a link in a tar, whose bytes are stored under another name
    LINKED_MEMBER = "linked_member", Status.FAILED
    NON_CONTIGUOUS = "non_contiguous_key", Status.FAILED  # its members are too far apart in the tar
    TRUNCATED_SHARD = "truncated_shard", Status.FAILED
    BROKEN_ROW_GROUP = "broken_row_group", Status.FAILED
    # failed while decoding
    NOT_AN_IMAGE = "not_an_image", Status.FAILED
    UNSUPPORTED_IMAGE = "unsupported_image", Status.FAILED  # of a format that is not decoded
    # a decoded format, but values that no rule maps to 8 bits
    UNSUPPORTED_PIXELS = "unsupported_pixels", Status.FAILED
    TOO_MANY_PIXELS = "too_many_pixels", Status.FAILED
    TRUNCATED_IMAGE = "truncated_image", Status.FAILED
    DECODE_ERROR = "decode_error", Status.FAILED
    DECODE_CRASHED = "decode_crashed", Status.FAILED
    DECODE_TIMEOUT = "decode_timeout", Status.FAILED
    # failed in the network
    NAN_SCORE = "nan_score", Status.FAILED


class ShardFault(StrEnum):
    """Reason for which a shard yielded fewer samples than it should have."""

    MISSING = "missing_shard"
    UNFINISHED = "unfinished_shard"
    EMPTY = "empty_shard"
    TRUNCATED = "truncated_shard"
    UNREADABLE = "unreadable_shard"
    MISTYPED_COLUMN = "mistyped_column"
    MISSING_COLUMN = "missing_column"
    CRASHES_READER = "crashes_reader"
    UNREACHABLE = "unreachable_shard"


class Note(StrEnum):
    """An unusual property of a sample or a shard, counted so that it is not overlooked."""

    METADATA_REPLACED = (
        "metadata_replaced"  # a value that JSON or UTF-8 cannot represent became null or a string
    )
    TRUNCATED_SCORED = "truncated_scored"  # a truncated image is scored by its intact part
    DECODED_EXACTLY = "decoded_exactly"  # mode fast, but only the exact way can decode it
    CAPTION_CUT = "caption_cut"  # longer than the part that the tokenizer reads
    # of shards, on the chunk that ends each
    ZEROS_BEFORE_MEMBER = (
        "zeros_before_member"  # tars appended to each other, or samples that were zeroed
    )
    BYTES_AFTER_END = "bytes_after_end"  # of a tar; they are not read
    SEVERAL_CAPTIONS = "several_captions"  # looks like several captions, but is read as one


def status_key(status: str, reason: str | None) -> str:
    """The key of a status and reason in counts: `scored`, `failed/not_an_image`."""
    return f"{status}/{reason}" if reason else status


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """A run of rows of one shard; determined by the pool and `[pool]` in the recipe alone."""

    shard: str
    """URI of the shard."""
    first_row: int
    """Ordinal of the first sample in its shard, from 0."""
    rows: int
    """Number of samples; 0 only for the last chunk of a shard without (further) samples."""
    last: bool
    """True for the chunk that ends its shard."""
    fault: ShardFault | None = None
    """Set on the last chunk if the shard itself is bad."""
    detail: str = ""
    """Description of the shard's fault, for people."""
    bytes_read: int = 0
    """Bytes of the shard that this chunk covers; for progress only."""
    at: int | None = field(default=None, compare=False)
    """Byte of a tar at which reading of the chunk can start; None if it depends on earlier
    bytes."""
    notes: Mapping[str, int] = field(default_factory=dict, compare=False, hash=False)
    """Counts by `Note`: of its samples that were handled in an unusual way, or of its shard's
    oddities."""

    def with_notes(self, notes: Mapping[str, int]) -> Chunk:
        """The chunk with these notes added to its own."""
        return replace(self, notes=dict(Counter(self.notes) + Counter(notes)))

    def to_json(self) -> dict[str, Any]:
        """The chunk as plain JSON values, without defaults and the entry point."""
        values = asdict(self)
        del values["at"]
        return {k: v for k, v in values.items() if v not in (None, "", 0, False, {})}

    @staticmethod
    def from_json(value: dict[str, Any]) -> Chunk:
        """The chunk that `to_json` wrote."""
        fault = value.get("fault")
        return Chunk(
            shard=value["shard"],
            first_row=value.get("first_row", 0),
            rows=value.get("rows", 0),
            last=value.get("last", False),
            fault=ShardFault(fault) if fault else None,
            detail=value.get("detail", ""),
            bytes_read=value.get("bytes_read", 0),
            notes=value.get("notes", {}),
        )


SAMPLE_SCHEMA = pa.schema(
    [
        pa.field("uid", pa.string(), nullable=False),  # 32 lower-case hex digits
        pa.field("row", pa.int64(), nullable=False),  # ordinal in the shard
        pa.field("key", pa.string()),  # the sample's name inside the shard
        pa.field("image", pa.large_binary()),  # original bytes, untouched; null when failed
        pa.field("text", pa.large_string()),  # the caption; null when failed
        pa.field("metadata", pa.large_string()),  # JSON object of everything else, or null
        pa.field("status", pa.string()),  # null while open, else a Status
        pa.field("reason", pa.string()),  # a Reason when rejected or failed
    ]
)
"""The rows that `pool` yields: one per sample, in shard order, good and bad alike."""

SEVERAL_CAPTIONS_SCHEMA = SAMPLE_SCHEMA.set(
    SAMPLE_SCHEMA.get_field_index("text"), pa.field("text", pa.large_list(pa.large_string()))
)
"""The schema of a pool that is read with several captions per sample: one or more, as read."""

BYTE_COLUMNS = ("image", "text", "metadata")
"""Columns that are passed on only where the score can matter."""

SIZE_FIELDS = (pa.field("width", pa.int32()), pa.field("height", pa.int32()))
"""Added by decoding: the original size of the image in pixels, from its header."""


SCORE_PREFIX = "score_"


def score_column(network: str) -> str:
    """The column of scores of `network`: float32 cosine similarity, null if unscored."""
    return f"{SCORE_PREFIX}{network}"


def caption_scores_column(network: str) -> str:
    """The column of kept scores of each caption: list of float32, null if unscored."""
    return f"caption_scores_{network}"


def image_embedding_column(network: str) -> str:
    """The column of kept image embeddings: fixed-size list of float16, L2-normalised."""
    return f"image_embedding_{network}"


def text_embedding_column(network: str) -> str:
    """The column of kept text embeddings: fixed-size list of float16, L2-normalised."""
    return f"text_embedding_{network}"
