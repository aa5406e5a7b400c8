"""Shards that were not read to their end: waited for, given up where that is allowed, else named."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NoReturn

import pyarrow as pa

from dfn_ray.errors import ShardChangedError, StorageError
from dfn_ray.on_ray.cells import Cell, UnreadShard
from dfn_ray.on_ray.datasets import Work
from dfn_ray.run import Ledger, abbreviated
from dfn_ray.schema import SAMPLE_SCHEMA, Chunk, ShardFault

FIRST_PAUSE_S, PAUSE_GROWTH, LONGEST_PAUSE_S = 2.0, 5.0, 60.0
"""Before an attempt at shards that a store did not give: 2 s, 10 s, then 50 s and 60 s. Each request has been retried
already; what is left are faults that last, for all shards alike as a rule."""


def wait_before_attempt(attempt: int, unread: Iterable[UnreadShard]) -> None:
    """Wait before the attempt of that number (2, 3, ...) if shards could not be reached; for changed ones never."""
    if any(not item.changed for item in unread):
        time.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * PAUSE_GROWTH ** (attempt - 2)))


def all_changed(work: Iterable[Work], unread: Mapping[str, UnreadShard]) -> bool:
    """True if every shard of the work has turned out not to be the listed one, so that no attempt can help."""
    return all(item.shard.uri in unread and unread[item.shard.uri].changed for item in work)


def closing_cell(
    ledger: Ledger, shard: str, fault: ShardFault, detail: str, schema: pa.Schema
) -> Cell | None:
    """A chunk without samples that ends a shard behind its committed chunks; None where these have a gap.

    `schema` is what the samples of the run's other cells have beside `SAMPLE_SCHEMA`.
    """
    first_row = ledger.contiguous_rows(shard)
    if first_row is None:
        return None
    chunk = Chunk(shard=shard, first_row=first_row, rows=0, last=True, fault=fault, detail=detail)
    return Cell(chunk=chunk, samples=pa.schema([*SAMPLE_SCHEMA, *schema]).empty_table())


def raise_for_unread(unread: Mapping[str, UnreadShard], *, shards: int, attempts: int) -> NoReturn:
    """Raise ShardChangedError or StorageError, naming the shards that are left of a run for such a reason."""
    changed = [item for item in unread.values() if item.changed]
    if changed:
        raise ShardChangedError(
            f"{len(changed):,} of {shards:,} shards are not the ones that were listed "
            f"({abbreviated([item.shard for item in changed])}), so that nothing more of them is committed. "
            f"{changed[0].message}"
        )
    first = next(iter(unread.values()))
    raise StorageError(
        f"{len(unread):,} of {shards:,} shards could not be read in {attempts} attempts ({abbreviated(list(unread))}): "
        f"{first.message}. All else is committed, these are not; run again to go on, or set "
        f"pool.give_up_unreachable = true to finish without them, as {ShardFault.UNREACHABLE}"
    )
