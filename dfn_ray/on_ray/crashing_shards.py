"""Shards that kill the process that reads them, found by reading them again in fresh processes."""

from __future__ import annotations

import signal
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import ray

from dfn_ray.config import Decode, Pool
from dfn_ray.errors import StorageError
from dfn_ray.on_ray.bundles import decode_bundle
from dfn_ray.on_ray.datasets import TASK_RETRIES
from dfn_ray.on_ray.failures import unwrapped_ray_errors
from dfn_ray.on_ray.work import Work
from dfn_ray.pool.chunking import RowSelection
from dfn_ray.pool.examination import ReadOutcome, read_in_fresh_process

MAX_SUSPECTS = 64
"""Shards examined and given up per search, one by one."""
KILLS = 3
"""Reads of a shard, each of which must kill its process."""
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)
"""Signals sent by other processes, for instance when memory runs out; no evidence about a shard."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class CrashSite:
    """The place at which reading a shard kills the process."""

    row: int
    """First row of the chunk at which the process dies; the rows before it can be read."""
    detail: str
    """Description for messages."""


def find_crashing_shards(
    suspects: Mapping[Key, tuple[Work, Pool]], decode: Decode
) -> Iterator[tuple[Key, CrashSite]]:
    """The suspects that kill the process in each of KILLS reads, among the first MAX_SUSPECTS.

    They are read on the nodes that `decode` selects. If there are more than MAX_SUSPECTS, the first
    one that can be read ends the search: then the shards are not the cause, and reading each would
    only delay the run.
    """
    for key, (work, pool) in islice(suspects.items(), MAX_SUSPECTS):
        verdicts: list[ReadOutcome] = []
        while len(verdicts) < KILLS and (not verdicts or _crashes(verdicts[-1])):
            verdicts.append(_examined(work, pool, decode))
        if all(map(_crashes, verdicts)):
            row = min(verdict.row for verdict in verdicts)
            by = verdicts[-1].signal
            yield key, CrashSite(row, f"reading from here on kills the process (signal {by})")
        elif len(suspects) > MAX_SUSPECTS:
            return


def _crashes(verdict: ReadOutcome) -> bool:
    return verdict.signal not in (0, *_FROM_OUTSIDE)


def _examined(work: Work, pool: Pool, decode: Decode) -> ReadOutcome:
    """The outcome of reading the rest of a shard in a fresh process on a node that decodes."""

    @ray.remote(max_retries=TASK_RETRIES)
    def read_again() -> ReadOutcome:
        return read_in_fresh_process(work.shard, pool, RowSelection(skip=work.skip))

    try:
        with unwrapped_ray_errors():
            return ray.get(read_again.options(**decode_bundle(decode).ray_options()).remote())
    except StorageError as error:
        return ReadOutcome(error=type(error).__name__, message=str(error), own=True)
