"""The Ray Data chains of filtering, and its only module that names Ray operators.

`batch_size=n` on the last stage hands it n chunks, which become one part.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ray.data import Dataset

from dfn_ray.config import Decode, Execution, Pool, Scorers
from dfn_ray.console.progress import Progress
from dfn_ray.errors import RunTakenOverError
from dfn_ray.filtering.scoring.commit import TAKEN_OVER, UNREAD, Committer
from dfn_ray.on_ray.actor_pools import ActorSupervisor, pool_arguments
from dfn_ray.on_ray.bundles import decode_bundle
from dfn_ray.on_ray.cells import Stage, UnreadShard
from dfn_ray.on_ray.datasets import (
    TASK_RETRIES,
    Work,
    ignore_retry_deprecation,
    read_pool,
    rows_of,
    stage_arguments,
)
from dfn_ray.on_ray.ray_metrics import PoolMetrics
from dfn_ray.on_ray.session import configure
from dfn_ray.pool import Shard
from dfn_ray.run import Ledger
from dfn_ray.schema import Chunk

ERRORED_BLOCKS = 64
"""Tasks that may be given up before Ray stops a wave; their shards are tried again, one by one."""
NARROW_PART_CHUNKS = 8
"""Chunks per part while every sample's bytes travel (calibration): a part is built in memory."""
COMMIT_CPUS = 0.25
"""A commit mostly waits for storage."""


@dataclass(frozen=True)
class Committed:
    """A part as its committer reports it to the driver."""

    name: str
    chunks: tuple[Chunk, ...]
    counts: dict[str, int]
    scorers: tuple[str, ...] = ()
    """Which actors scored it."""
    score_buckets: tuple[int, ...] = ()
    """Its scores, as `flow.metrics.score_buckets` counts them."""

    def add_to(self, ledger: Ledger, progress: Progress, metrics: PoolMetrics) -> None:
        """Count the part in the ledger, the progress and the metrics."""
        ledger.add(self.name, self.chunks, self.counts)
        progress.add(
            sum(chunk.rows for chunk in self.chunks),
            sum(chunk.bytes_read for chunk in self.chunks),
            self.counts,
            notes=sum((Counter(chunk.notes) for chunk in self.chunks), Counter()),
            scorers=self.scorers,
        )
        metrics.add(self.chunks, self.counts, self.score_buckets, ledger)


def remaining_work(shards: Sequence[Shard], ledger: Ledger) -> list[Work]:
    """What is left to do of the shards: those that are not complete, without their committed chunks."""
    return [
        Work(
            shard,
            skip=frozenset(ledger.open_chunks(shard.uri)),
            last=ledger.last_chunk(shard.uri),
        )
        for shard in shards
        if not ledger.is_complete(shard.uri)
    ]


def score_stream(
    work: Sequence[Work],
    *,
    pool: Pool,
    decode: Decode,
    prepare: Stage,
    scorer: type,
    scorer_arguments: Mapping[str, Any],
    scorers: Scorers,
    committer: Committer,
    execution: Execution,
    timeout_s: float,
    tolerant: bool = True,
) -> Generator[Committed | UnreadShard, None, None]:
    """Prepare, score and commit the work; yields each part once it is on storage, and each shard that was not read.

    `tolerant` leaves out tasks that keep dying instead of stopping; what they held stays uncommitted. Raises NoProgressError when
    no block moves for `timeout_s`.
    """
    _configure(timeout_s, tolerant)
    supervisor = ActorSupervisor()
    with ignore_retry_deprecation():
        parts = (
            read_pool(work, pool, decode, report=True)
            .map_batches(**stage_arguments(prepare, decode))
            .map_batches(
                scorer,
                fn_constructor_kwargs={**scorer_arguments, "supervisor": supervisor},
                **pool_arguments(scorers, supervisor),
            )
            .map_batches(committer, **_committing(committer, execution, decode))
        )
    return supervisor.kill_actors_after(_committed(parts))


def keep_stream(
    work: Sequence[Work],
    *,
    pool: Pool,
    decode: Decode,
    stage: Stage,
    committer: Committer,
    execution: Execution,
    tolerant: bool = True,
) -> Generator[Committed | UnreadShard, None, None]:
    """Run `stage` on the work, without networks, and commit it; yields what `score_stream` yields.

    Nothing is decoded: of `decode` it is only asked where such tasks run and what they reserve.
    """
    _configure(execution.no_progress_timeout_s, tolerant)
    with ignore_retry_deprecation():
        parts = (
            read_pool(work, pool, decode, report=True)
            .map_batches(**stage_arguments(stage, decode))
            .map_batches(committer, **_committing(committer, execution, decode))
        )
    return _committed(parts)


def _committing(committer: Committer, execution: Execution, decode: Decode) -> dict[str, Any]:
    """The last stage as arguments of map_batches: a part's worth of chunks a call."""
    narrow = committer.bounds.lo == float("-inf")
    chunks = execution.chunks_per_part
    return {
        "batch_size": min(chunks, NARROW_PART_CHUNKS) if narrow else chunks,
        "batch_format": "pyarrow",
        "max_retries": TASK_RETRIES,
        **decode_bundle(replace(decode, cpus=COMMIT_CPUS)).ray_options(),
    }


def _committed(parts: Dataset) -> Generator[Committed | UnreadShard, None, None]:
    for row in rows_of(parts):
        if row[TAKEN_OVER] is not None:
            raise RunTakenOverError(row[TAKEN_OVER])
        if row[UNREAD] is not None:
            yield UnreadShard(**json.loads(row[UNREAD]))
            continue
        yield Committed(
            row["name"],
            tuple(Chunk.from_json(value) for value in json.loads(row["chunks"])),
            json.loads(row["counts"]),
            tuple(json.loads(row["scorers"])),
            tuple(json.loads(row["score_buckets"])),
        )


def _configure(timeout_s: float, tolerant: bool) -> None:
    configure(errored_blocks=ERRORED_BLOCKS if tolerant else 0, no_progress_timeout_s=timeout_s)
