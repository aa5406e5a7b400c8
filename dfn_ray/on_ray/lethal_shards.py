"""Shards whose mere reading kills the process that does it, found by reading them again in fresh processes."""

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
from dfn_ray.on_ray.datasets import TASK_RETRIES, Work
from dfn_ray.on_ray.failures import unwrapped_ray_errors
from dfn_ray.pool.chunking import Wanted
from dfn_ray.pool.examination import Verdict, examine

MAX_SUSPECTS = 64
"""Shards given up at a time, which are examined one by one."""
KILLS = 3
"""Times out of as many that reading a shard must kill the process that does it."""
_FROM_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)
"""When memory runs out for instance; they say nothing about a shard."""
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Killer:
    """What is known of a shard whose reading kills the process."""

    row: int
    """First row of the chunk at which the process dies; what is in front of it can be read."""
    detail: str
    """For people."""


def killers(
    suspects: Mapping[Key, tuple[Work, Pool]], decode: Decode
) -> Iterator[tuple[Key, Killer]]:
    """The first suspects whose reading kills a process each time; the others are for another attempt.

    They are read where `decode` says. Where there are more than MAX_SUSPECTS, one that can be read ends the search: then it
    is not the shards that kill, and reading each would hold up a run for nothing.
    """
    for key, (work, pool) in islice(suspects.items(), MAX_SUSPECTS):
        verdicts: list[Verdict] = []
        while len(verdicts) < KILLS and (not verdicts or _is_deadly(verdicts[-1])):
            verdicts.append(_examined(work, pool, decode))
        if all(map(_is_deadly, verdicts)):
            row = min(verdict.row for verdict in verdicts)
            by = verdicts[-1].signal
            yield key, Killer(row, f"reading on from here kills the process (signal {by})")
        elif len(suspects) > MAX_SUSPECTS:
            return


def _is_deadly(verdict: Verdict) -> bool:
    return verdict.signal not in (0, *_FROM_OUTSIDE)


def _examined(work: Work, pool: Pool, decode: Decode) -> Verdict:
    """What becomes of reading what is left of a shard, in a fresh process on a node that reads."""

    @ray.remote(max_retries=TASK_RETRIES)
    def read_again() -> Verdict:
        return examine(work.shard, pool, Wanted(skip=work.skip))

    try:
        with unwrapped_ray_errors():
            return ray.get(read_again.options(**decode_bundle(decode).ray_options()).remote())
    except StorageError as error:
        return Verdict(error=type(error).__name__, message=str(error), own=True)
