"""Shards that could not be read to their end: retried, given up if allowed, else reported."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import NoReturn

import pyarrow as pa

from dfn_ray.errors import ShardChangedError, StorageError
from dfn_ray.on_ray.cells import Cell, UnreadShard
from dfn_ray.on_ray.work import Work
from dfn_ray.run import Ledger, abbreviated
from dfn_ray.schema import SAMPLE_SCHEMA, Chunk, ShardFault

FIRST_PAUSE_S, PAUSE_GROWTH, MAX_PAUSE_S = 2.0, 5.0, 60.0
"""Pauses before retries of shards that a store failed to return: 2 s, 10 s, then 50 s and 60 s.
Each request has been retried already; faults that remain last longer, usually for all shards
alike."""


def wait_before_round(number: int, unread: Iterable[UnreadShard]) -> None:
    """Waits before round `number` (2, 3, ...) unless all unread shards have changed."""
    if any(not item.changed for item in unread):
        time.sleep(min(MAX_PAUSE_S, FIRST_PAUSE_S * PAUSE_GROWTH ** (number - 2)))


def all_changed(work: Iterable[Work], unread: Mapping[str, UnreadShard]) -> bool:
    """True if every shard of the work is no longer the listed one, so that no retry can help."""
    return all(item.shard.uri in unread and unread[item.shard.uri].changed for item in work)


def closing_cell(
    ledger: Ledger, shard: str, fault: ShardFault, detail: str, schema: pa.Schema
) -> Cell | None:
    """A chunk without samples that ends a shard after its committed chunks; None after a gap.

    `schema` has the columns of the run's other cells that are not in `SAMPLE_SCHEMA`.
    """
    first_row = ledger.contiguous_rows(shard)
    if first_row is None:
        return None
    chunk = Chunk(shard=shard, first_row=first_row, rows=0, last=True, fault=fault, detail=detail)
    return Cell(chunk=chunk, samples=pa.schema([*SAMPLE_SCHEMA, *schema]).empty_table())


def raise_for_unread(unread: Mapping[str, UnreadShard], *, shards: int, rounds: int) -> NoReturn:
    """Raises ShardChangedError or StorageError, naming the shards that could not be read."""
    changed = [item for item in unread.values() if item.changed]
    if changed:
        raise ShardChangedError(
            f"{len(changed):,} of {shards:,} shards differ from those that were listed "
            f"({abbreviated([item.shard for item in changed])}), so nothing more is committed from "
            f"them. {changed[0].message}"
        )
    first = next(iter(unread.values()))
    raise StorageError(
        f"{len(unread):,} of {shards:,} shards could not be read, with execution.rounds = {rounds} "
        f"({abbreviated(list(unread))}): {first.message}. All others are committed; run the same "
        "command again to resume, or set execution.give_up_unreachable = true to finish without "
        f"these, recorded as {ShardFault.UNREACHABLE}"
    )
