"""Shards that were not read to their end: waited for, examined, given up where that is allowed, else named."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NoReturn

import pyarrow as pa

from dfn_ray.config import Decode, Pool
from dfn_ray.errors import ShardChangedError, StorageError
from dfn_ray.filtering import stream
from dfn_ray.flow.cells import Cell, Unread
from dfn_ray.flow.datasets import Work
from dfn_ray.run import Ledger, naming
from dfn_ray.schema import SAMPLE_SCHEMA, Chunk, ShardFault

FIRST_PAUSE_S, PAUSE_GROWTH, LONGEST_PAUSE_S = 2.0, 5.0, 60.0
"""Before an attempt at shards that a store did not give: 2 s, 10 s, then 50 s and 60 s. Each request has been retried
already; what is left are faults that last, for all shards alike as a rule."""
MAX_SUSPECTS = 64
"""Shards examined one by one for killing their reader; more than these is not the shards' doing."""
KILLS = 3
"""Times out of as many that reading a shard must kill the process that does it."""


def wait_before(attempt: int) -> None:
    """Wait before the attempt of that number (2, 3, ...) at shards that could not be reached."""
    time.sleep(min(LONGEST_PAUSE_S, FIRST_PAUSE_S * PAUSE_GROWTH ** (attempt - 2)))


def killers(work: Sequence[Work], pool: Pool, decode: Decode) -> Iterator[tuple[Work, str]]:
    """The shards whose mere reading kills a process each time, and by what; none where too many are suspected.

    SIGKILL and SIGTERM come from outside, when memory runs out for instance, and say nothing about a shard.
    """
    if len(work) > MAX_SUSPECTS:
        return
    for item in work:
        verdicts = (stream.examined(item, pool, decode) for _ in range(KILLS))
        deadly = (
            v.signal not in (0, signal.SIGKILL, signal.SIGTERM) and v.signal for v in verdicts
        )
        by = 0
        if all(by := number for number in deadly):
            yield item, f"reading on from here kills the process (signal {by})"


def closing_cell(
    ledger: Ledger, shard: str, fault: ShardFault, detail: str, schema: pa.Schema
) -> Cell | None:
    """A chunk without samples that ends a shard behind its committed chunks; None where these have a gap.

    `schema` is what the samples of the run's other cells have beside `SAMPLE_SCHEMA`.
    """
    first_row = ledger.rows_in_front(shard)
    if first_row is None:
        return None
    chunk = Chunk(shard=shard, first_row=first_row, rows=0, last=True, fault=fault, detail=detail)
    return Cell(chunk=chunk, samples=pa.schema([*SAMPLE_SCHEMA, *schema]).empty_table())


def stop_for(unread: Mapping[str, Unread], *, shards: int, attempts: int) -> NoReturn:
    """Raise ShardChangedError or StorageError, naming the shards that are left of a run for such a reason."""
    changed = [item for item in unread.values() if item.changed]
    if changed:
        raise ShardChangedError(
            f"{len(changed):,} of {shards:,} shards are not the ones that were listed "
            f"({naming([item.shard for item in changed])}), so that nothing more of them is committed. "
            f"{changed[0].message}"
        )
    first = next(iter(unread.values()))
    raise StorageError(
        f"{len(unread):,} of {shards:,} shards could not be read in {attempts} attempts ({naming(list(unread))}): "
        f"{first.message}. All else is committed, these are not; run again to go on, or set "
        f"pool.give_up_unreachable = true to finish without them, as {ShardFault.UNREACHABLE}"
    )
