"""Where chunks begin and end, and how the samples of one become an Arrow table.

A chunk ends when the next sample begins and it already holds `pool.chunk_rows` samples, or images of
`pool.chunk_bytes` or more by the sizes that the shard states (or, in Parquet, keys of as many characters). So the cut is a function of the shard and of these
two settings, and the last chunk is known to be the last.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import pyarrow as pa

from dfn_ray.config import Pool
from dfn_ray.pool.samples import Draft
from dfn_ray.pool.shard import Shard, ShardDamage
from dfn_ray.schema import SAMPLE_SCHEMA, SEVERAL_CAPTIONS_SCHEMA, Chunk, Note, ShardFault


@dataclass(frozen=True, slots=True)
class Wanted:
    """The rows whose bytes are needed; all others are passed by their headers."""

    skip: frozenset[int] = frozenset()
    """First rows of chunks that are not needed."""
    rows: frozenset[int] | None = None
    """Just these rows; None means all."""

    def has(self, first_row: int, row: int) -> bool:
        """True if `row` of the chunk that begins at `first_row` is needed."""
        return first_row not in self.skip and (self.rows is None or row in self.rows)

    def may_have(self, first_row: int) -> bool:
        """True if rows of the chunk that begins at `first_row` are needed, as far as its first row says."""
        return first_row not in self.skip


@dataclass(slots=True)
class Group:
    """A chunk while its shard is being read."""

    first_row: int
    at: int | None = None
    """Byte at which a reader can enter; see `Chunk.at`."""
    drafts: list[Draft] = field(default_factory=list)
    image_bytes: int = 0
    key_bytes: int = 0
    """Of Parquet, where keys have any length, and one may be that of every row."""
    bytes_read: int = 0
    last: bool = False
    fault: ShardFault | None = None
    detail: str = ""
    notes: Counter[str] = field(default_factory=Counter)
    """By `Note`: complete once the samples are taken."""

    @property
    def next_row(self) -> int:
        """Ordinal of the sample that would come next."""
        return self.first_row + len(self.drafts)

    def is_full(self, pool: Pool) -> bool:
        """True if the next sample belongs to the next chunk."""
        held = max(self.image_bytes, self.key_bytes)
        return len(self.drafts) >= pool.chunk_rows or held >= pool.chunk_bytes

    def end(self, damage: ShardDamage) -> None:
        """Make this the last chunk of a damaged shard."""
        self.last = True
        self.fault = damage.fault
        self.detail = damage.detail

    def chunk(self, shard: Shard) -> Chunk:
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

    def finish(self, shard: Shard, pool: Pool, wanted: Wanted) -> tuple[Chunk, pa.Table]:
        """The finished chunk and its wanted samples, as `take_table` gives them; its notes count those."""
        chunk = self.chunk(shard)
        table = self.take_table(shard, pool, wanted)
        return chunk.with_notes(self.notes), table

    def take_table(self, shard: Shard, pool: Pool, wanted: Wanted) -> pa.Table:
        """The wanted samples as a table with `SAMPLE_SCHEMA`, or that of several captions; the group lets go of their bytes."""
        rows = [
            draft.finish(pool, shard.name)
            for draft in self.drafts
            if wanted.has(self.first_row, draft.row)
        ]
        for note, count in (
            (Note.METADATA_REPLACED, sum(draft.replaced for draft in self.drafts)),
            (Note.SEVERAL_CAPTIONS, sum(draft.looks_several for draft in self.drafts)),
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


def closing(damage: ShardDamage) -> Group:
    """The only group of a shard that cannot be read at all."""
    group = Group(0)
    group.end(damage)
    return group
