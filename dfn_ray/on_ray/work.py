"""The rows of a shard that are left to read, and their chunks as cells. Loads no Ray."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from dfn_ray.config import Pool
from dfn_ray.errors import ShardChangedError, StorageError
from dfn_ray.on_ray.cells import Cell, UnreadShard
from dfn_ray.pool import Shard, iter_chunks
from dfn_ray.schema import SAMPLE_SCHEMA, Chunk


@dataclass(frozen=True)
class Work:
    """A shard to read: everything but the chunks at `skip`, or only the first rows."""

    shard: Shard
    skip: frozenset[int] = frozenset()
    last: int | None = None
    """First row of the chunk in `skip` that ends the shard; None if that chunk is not in `skip`."""
    first_rows: int | None = None
    """Rows to read, rounded up to whole chunks; None reads all."""


def read_cells(work: Work, pool: Pool, *, report_unread: bool) -> Iterator[Cell]:
    """The chunks of the work, in order, bytes untouched.

    `report_unread` yields the error that stopped the reading as a cell of its own (`Cell.unread`)
    instead of raising it.
    """
    try:
        for chunk, samples in iter_chunks(work.shard, pool, skip=work.skip, last=work.last):
            yield Cell(chunk=chunk, samples=samples)
            if chunk.first_row + chunk.rows >= (work.first_rows or math.inf):
                return
    except (StorageError, ShardChangedError) as error:
        if not report_unread:
            raise
        # Not raised: Ray Data may drop errors of tasks, and stops after some number of them.
        is_changed = isinstance(error, ShardChangedError)
        unread = UnreadShard(shard=work.shard.uri, changed=is_changed, message=str(error))
        nothing = Chunk(shard=work.shard.uri, first_row=0, rows=0, last=False)
        yield Cell(chunk=nothing, samples=SAMPLE_SCHEMA.empty_table(), unread=unread)
