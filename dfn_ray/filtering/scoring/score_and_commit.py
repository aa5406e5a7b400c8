"""The actor of scoring: from shards on storage to committed parts, on one device.

Worker processes of the actor, or tasks on other nodes, read, apply the rules, decode and tokenize;
the actor's own process runs the networks and commits. Only the record of a committed part goes to
the driver.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Protocol

import pyarrow as pa
import ray

from dfn_ray.filtering.scoring.commit import (
    Committer,
    is_final,
    sign_of_life,
    unread_report,
)
from dfn_ray.filtering.shard_slices import works_of
from dfn_ray.on_ray.actor_pools import ActorSupervisor
from dfn_ray.on_ray.cells import Cell, Stage, table_of_stream, table_to_stream
from dfn_ray.on_ray.work import Work
from dfn_ray.schema import Chunk

COMMITS_AT_ONCE = 4
"""Parts that an actor writes at the same time; they bound its memory."""
SIGN_OF_LIFE_S = 60.0
"""Time after which a slice reports although no part is complete."""
COMMITS_AHEAD = 2
"""Parts of a slice that may wait for storage while the next one is scored."""


class PreparedShards(Protocol):
    """Reads and prepares shards; safe for several threads."""

    def cells(self, works: Sequence[Work]) -> Iterator[Cell]:
        """The prepared chunks of the works, in order, each valid until the next one is taken."""
        ...


@dataclass(frozen=True, kw_only=True)
class ScoringSteps:
    """The steps of a `ScoreAndCommit`, from a shard to its parts."""

    prepare: Callable[[], PreparedShards]
    """Starts what reads and prepares."""
    start: Callable[[], Stage]
    """Builds the scorer on the device."""
    committer: Committer
    rows_per_part: int


class ScoreAndCommit:
    """Actor that scores slices and commits them; several threads may call it, one per slice."""

    def __init__(self, *, steps: ScoringSteps, supervisor: ActorSupervisor) -> None:
        with supervisor.supervised_start():
            # Before the device is touched: worker processes come from one without it.
            self._shards = steps.prepare()
            self._score = steps.start()
        self._committer, self._rows_per_part = steps.committer, steps.rows_per_part
        self._commits = ThreadPoolExecutor(COMMITS_AT_ONCE, "commit")
        self._name = ray.get_runtime_context().get_actor_id() or ""

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        """A report per part of the slice once it is on storage, and per shard that is unreadable.

        In the order of the slice, so that Ray can start it again. A part that takes long is
        preceded by reports without content, so that the driver sees that the slice moves. The slice
        ends when the run was taken over or the store refuses writes.
        """
        under_way: deque[Future[pa.Table]] = deque()
        reported_s = time.monotonic()
        for outcome in self._outcomes(works_of(block)):
            if isinstance(outcome, Cell):
                under_way.append(_finished(unread_report([outcome])))
            elif outcome is not None:
                under_way.append(self._commits.submit(self._committer.report, outcome))
            elif time.monotonic() - reported_s > SIGN_OF_LIFE_S:
                under_way.append(_finished(sign_of_life()))
            while under_way and (under_way[0].done() or len(under_way) > COMMITS_AHEAD):
                report = under_way.popleft().result()
                yield report
                reported_s = time.monotonic()
                if is_final(report):
                    return
        for commit in under_way:
            yield commit.result()

    def _outcomes(self, works: Sequence[Work]) -> Iterator[list[Cell] | Cell | None]:
        """The scored cells of each part, cells of shards that could not be read; None in between.

        None follows each chunk.
        """
        part: list[Cell] = []
        for cell in self._shards.cells(works):
            if part and (cell.unread or not self._share_a_part(part[0].chunk, cell.chunk)):
                yield part
                part = []
            if cell.unread:
                yield _owned(cell)
            else:
                part.append(_owned(self._scored(cell)))
            yield None
        if part:
            yield part

    def _scored(self, cell: Cell) -> Cell:
        return replace(self._score(cell), scorer=self._name)

    def _share_a_part(self, one: Chunk, other: Chunk) -> bool:
        """True for chunks of the same shard and range of rows, so that parts depend on it alone.

        The end of a shard without rows belongs to the rows before it.
        """
        ranges = [chunk.first_row // self._rows_per_part for chunk in (one, other)]
        return one.shard == other.shard and (ranges[0] == ranges[1] or not other.rows)


def _owned(cell: Cell) -> Cell:
    """The cell in memory of its own: that of the workers is overwritten."""
    samples = table_of_stream(table_to_stream(cell.samples))
    return replace(cell, samples=samples, inputs=None)


def _finished(report: pa.Table) -> Future[pa.Table]:
    future: Future[pa.Table] = Future()
    future.set_result(report)
    return future
