"""Boundaries of chunks, and the conversion of a chunk's samples to an Arrow table.

A chunk ends before the next sample if it already holds `pool.chunk_rows` samples, or
`pool.chunk_bytes` or more of images (by the sizes that the shard states), captions, keys and
metadata. So boundaries depend only on the shard and these two settings, and the last chunk is known
to be the last.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa

from dfn_ray.config import Pool
from dfn_ray.pool.samples import Draft
from dfn_ray.pool.shard import Shard, ShardDamageError
from dfn_ray.schema import SAMPLE_SCHEMA, SEVERAL_CAPTIONS_SCHEMA, Chunk, Note, ShardFault


@dataclass(frozen=True, slots=True)
class RowSelection:
    """The rows whose bytes are needed; all others are skipped by their headers."""

    skip: frozenset[int] = frozenset()
    """First rows of chunks that are not needed."""
    rows: frozenset[int] | None = None
    """Only these rows; None means all."""

    def includes(self, first_row: int, row: int) -> bool:
        """True if `row` of the chunk that begins at `first_row` is needed."""
        return first_row not in self.skip and (self.rows is None or row in self.rows)

    def may_include(self, first_row: int) -> bool:
        """True unless the chunk that begins at `first_row` is skipped as a whole."""
        return first_row not in self.skip


@dataclass(slots=True)
class OpenChunk:
    """A chunk under construction, while its shard is being read."""

    first_row: int
    at: int | None = None
    """Byte at which reading can start; see `Chunk.at`."""
    drafts: list[Draft] = field(default_factory=list)
    held_bytes: int = 0
    """Bytes of images, captions, keys and metadata, including images that are too large to be
    read."""
    bytes_read: int = 0
    last: bool = False
    fault: ShardFault | None = None
    detail: str = ""
    notes: Counter[str] = field(default_factory=Counter)
    """Counts by `Note`; complete after `take_table`."""

    @property
    def next_row(self) -> int:
        """Ordinal of the next sample."""
        return self.first_row + len(self.drafts)

    def is_full(self, pool: Pool) -> bool:
        """True if the next sample belongs to the next chunk."""
        return len(self.drafts) >= pool.chunk_rows or self.held_bytes >= pool.chunk_bytes

    def add(self, draft: Draft) -> None:
        """Appends a sample with the parts it has so far."""
        self.drafts.append(draft)
        self.held_bytes += held_bytes(draft)

    def end(self, damage: ShardDamageError) -> None:
        """Marks this as the last chunk of a damaged shard."""
        self.last = True
        self.fault = damage.fault
        self.detail = damage.detail

    def to_chunk(self, shard: Shard) -> Chunk:
        """The finished chunk."""
        return Chunk(
            shard=shard.uri,
            first_row=self.first_row,
            rows=len(self.drafts),
            last=self.last,
            fault=self.fault,
            detail=self.detail,
            bytes_read=self.bytes_read,
            at=self.at,
            notes=dict(self.notes),
        )

    def finish(self, shard: Shard, pool: Pool, selection: RowSelection) -> tuple[Chunk, pa.Table]:
        """The finished chunk, with complete notes, and its selected samples (see `take_table`)."""
        chunk = self.to_chunk(shard)
        table = self.take_table(shard, pool, selection)
        return replace(chunk, notes=dict(self.notes)), table

    def take_table(self, shard: Shard, pool: Pool, selection: RowSelection) -> pa.Table:
        """The selected samples as a table with `SAMPLE_SCHEMA`, or that of several captions.

        Releases the bytes of all samples.
        """
        rows = [
            draft.finish(pool, shard.name)
            for draft in self.drafts
            if selection.includes(self.first_row, draft.row)
        ]
        for note, count in (
            (Note.METADATA_REPLACED, sum(draft.replaced for draft in self.drafts)),
            (Note.SEVERAL_CAPTIONS, sum(draft.looks_like_several for draft in self.drafts)),
        ):
            if count:
                self.notes[note] += count
        self.drafts = []
        schema = SEVERAL_CAPTIONS_SCHEMA if pool.several_captions else SAMPLE_SCHEMA
        columns = zip(*rows, strict=True) if rows else ((),) * len(schema)
        return pa.table(
            [
                pa.array(column, type=field.type)
                for column, field in zip(columns, schema, strict=True)
            ],
            schema=schema,
        )


def unreadable_chunk(damage: ShardDamageError, bytes_read: int) -> OpenChunk:
    """The only chunk of a shard of `bytes_read` bytes that cannot be read at all."""
    chunk = OpenChunk(0, bytes_read=bytes_read)
    chunk.end(damage)
    return chunk


def held_bytes(draft: Draft) -> int:
    """Bytes that a sample adds to its chunk: its image as stated, its other parts as held."""
    others = len(draft.key) + (len(draft.json) if draft.json else 0)
    for caption in draft.captions.values():
        if caption:
            others += len(caption)
    if draft.metadata:
        others += _value_bytes(draft.metadata)
    return others + (draft.image_size or 0)


_NUMBERS = frozenset({bool, int, float})


def _value_bytes(value: Any) -> int:
    """Approximate size of a metadata value: characters, and 16 bytes for any other scalar.

    Depends on the value alone.
    """
    if type(value) in _NUMBERS:
        return 16
    if value is None:
        return 0
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        total = 0
        for key, inner in value.items():
            total += len(key)
            if type(inner) in _NUMBERS:  # inlined: runs for every sample of Parquet
                total += 16
            elif type(inner) is str:
                total += len(inner)
            else:
                total += _value_bytes(inner)
        return total
    if isinstance(value, list | tuple):
        return sum(16 + _value_bytes(inner) for inner in value)
    return 16
