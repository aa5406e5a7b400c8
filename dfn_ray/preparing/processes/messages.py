"""Messages between an owner and its workers, pickled; both run the same code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dfn_ray.config import Pool
from dfn_ray.images.isolation import Workspace
from dfn_ray.on_ray.cells import Cell, UnreadShard
from dfn_ray.on_ray.work import Work
from dfn_ray.schema import Chunk

IDLE, READING, PREPARING, ISOLATING = range(4)
"""States of a worker. `ISOLATING`: it waits for forked children, whose time it limits itself."""


class Preparing(Protocol):
    """A stage that workers apply, `partial(prepare, preparation=...)`."""

    def __call__(self, cell: Cell, *, workspace: Workspace = ...) -> Cell: ...  # noqa: D102


@dataclass(frozen=True, kw_only=True)
class Job:
    """The job of all workers of a pool; the first message to each."""

    pool: Pool
    stage: Preparing
    timeout_s: float
    """CPU time of an item of the stage."""


@dataclass(frozen=True)
class Request:
    """From the owner: read and prepare this work, in order."""

    works: tuple[Work, ...]
    isolated: bool
    """True to prepare the first chunk in forked children."""


@dataclass(frozen=True)
class Free:
    """From the owner: a slot may be overwritten."""

    slot: int


@dataclass(frozen=True)
class NewBlock:
    """From a worker, followed by a descriptor: a block of a slot, which replaces an earlier one."""

    slot: int
    block: int
    size: int


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """From a worker: a prepared chunk, or a shard that could not be read."""

    chunk: Chunk
    slot: int
    samples_bytes: int
    """Length of the samples, an Arrow stream, in the last block of the slot."""
    samples_block: int
    inputs: bytes | None
    """The columns of the inputs that are in no block, as an Arrow stream."""
    blocks: Mapping[str, tuple[int, int, int]]
    """Other columns of the inputs, of fixed-size binary values: block, rows, bytes per value."""
    unread: UnreadShard | None


@dataclass(frozen=True)
class Done:
    """From a worker: the request is finished."""


@dataclass(frozen=True)
class Failed:
    """From a worker: an error that no sample and no store is to blame for."""

    error: Exception


class Progress:
    """The state of a worker and its start, in memory that its owner reads."""

    SIZE = 3 * 8

    def __init__(self, values_3: np.ndarray) -> None:
        self._values_3 = values_3

    def begin(self, state: int, now_s: float) -> None:
        """Records the start of something, at a time of `time.monotonic()`."""
        # The time first, so that the owner never sees a new state with an old time.
        self._values_3[1] = now_s
        self._values_3[0] = state

    def overdue(self, limit_s: float, now_s: float) -> bool:
        """True if the worker has been at one item for longer than this."""
        return self._values_3[0] == PREPARING and now_s - self._values_3[1] > limit_s
