"""The Ray Data chains of filtering; the only module of the package that names Ray operators.

`score_stream` hands slices, runs of whole shards, to actors that do everything else. In
`keep_stream`, which runs no network, `batch_size=n` of the last stage hands it n chunks, which
become one part.

Empty labels and resources are passed as None, and a read fuses with the stage behind it only if
both have the same options and the stage has no batch size.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial

from ray.data import ActorPoolStrategy, Dataset

from dfn_ray.config import Decode, Execution, Pool, Recipe
from dfn_ray.console.progress import Progress
from dfn_ray.errors import RunTakenOverError, StorageAccessError
from dfn_ray.filtering.scoring.commit import REFUSED, TAKEN_OVER, UNREAD, Committer
from dfn_ray.filtering.scoring.score_and_commit import ScoreAndCommit, ScoringSteps
from dfn_ray.filtering.shard_slices import in_slices, slice_block
from dfn_ray.on_ray.actor_pools import ActorSupervisor
from dfn_ray.on_ray.capacity import workers_per_scorer
from dfn_ray.on_ray.cells import Stage, UnreadShard, map_cells
from dfn_ray.on_ray.datasets import (
    TASK_RETRIES,
    ignore_retry_deprecation,
    read_blocks,
    read_pool,
    rows_of,
)
from dfn_ray.on_ray.ray_metrics import PoolMetrics
from dfn_ray.on_ray.session import configure
from dfn_ray.on_ray.work import Work
from dfn_ray.pool import Shard
from dfn_ray.preparing.decode_tasks import DecodeTasks
from dfn_ray.preparing.processes.messages import Job, Preparing
from dfn_ray.preparing.processes.worker_pool import WorkerPool
from dfn_ray.run import Ledger
from dfn_ray.schema import Chunk

ERRORED_BLOCKS = 64
"""Tasks that may fail before Ray stops a round; their shards are retried."""
CALIBRATION_PART_CHUNKS = 8
"""Chunks per part during calibration, when every sample carries its bytes: a part is built in
memory."""
COMMIT_CPUS = 0.25
"""CPUs that a commit reserves; it mostly waits for storage."""


@dataclass(frozen=True)
class Committed:
    """A committed part, as its committer reports it to the driver."""

    name: str
    chunks: tuple[Chunk, ...]
    counts: dict[str, int]
    scorers: tuple[str, ...] = ()
    """IDs of the actors that scored it."""
    score_buckets: tuple[int, ...] = ()
    """Histogram of its scores, see `ray_metrics.score_buckets`."""

    def add_to(self, ledger: Ledger, progress: Progress, metrics: PoolMetrics) -> None:
        """Adds the part to the ledger, the progress line and the metrics."""
        ledger.add(self.name, self.chunks, self.counts)
        progress.add(
            sum(chunk.rows for chunk in self.chunks),
            sum(chunk.bytes_read for chunk in self.chunks),
            self.counts,
            notes=sum((Counter(chunk.notes) for chunk in self.chunks), Counter()),
            scorers=self.scorers,
        )
        metrics.add(self.chunks, self.counts, self.score_buckets, ledger)


Outcome = Committed | UnreadShard | None
"""A committed part or an unread shard; None: a slice is in progress."""


@dataclass(frozen=True, kw_only=True)
class StreamLimits:
    """The limits at which a stream stops."""

    timeout_s: float
    """Time without progress."""
    alone: bool = False
    """True scores one shard at a time in an actor, so that one that kills it costs no other."""
    strict: bool = False
    """True stops at the first task that fails. False skips it; its chunks stay uncommitted."""


def remaining_work(shards: Sequence[Shard], ledger: Ledger) -> list[Work]:
    """The shards that are not complete, without their committed chunks."""
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
    recipe: Recipe,
    *,
    prepare: Preparing,
    start: Callable[[], Stage],
    committer: Committer,
    limits: StreamLimits,
) -> Generator[Outcome, None, None]:
    """Prepares, scores and commits the work; yields each stored part and each unread shard.

    And None from time to time, while a part takes long.

    The pool of scorers grows from `min_size` with its backlog, as far as there are nodes, which it
    also requests from the cluster's autoscaler. Raises NoProgressError when no part is committed
    for the time that `limits` allows.
    """
    _configure(limits, rows_at_once=True)
    supervisor, scorers, decode = ActorSupervisor(), recipe.scorers, recipe.decode
    workers = decode.tasks if decode.placement == "apart" else workers_per_scorer(scorers)
    job = Job(pool=recipe.pool, stage=prepare, timeout_s=decode.timeout_s)
    rows = recipe.pool.chunk_rows * _chunks_per_part(committer, recipe.execution)
    steps = ScoringSteps(
        prepare=partial(DecodeTasks, job, decode)
        if decode.placement == "apart"
        else partial(WorkerPool, workers, job),
        start=start,
        committer=committer,
        rows_per_part=rows,
    )
    # One more call than workers: the last part of a slice is committed while the next one begins.
    calls = 1 if limits.alone else workers + 1
    slices = in_slices(work, len(work) if limits.alone else workers * scorers.max_size)
    with ignore_retry_deprecation():
        parts = read_blocks(partial(map, slice_block, list(slices))).map_batches(
            ScoreAndCommit,
            fn_constructor_kwargs={"steps": steps, "supervisor": supervisor},
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                min_size=scorers.min_size,
                max_size=scorers.max_size,
                max_concurrent_calls_per_actor=calls,
                max_tasks_in_flight_per_actor=calls,
                enable_true_multi_threading=True,
            ),
            num_cpus=scorers.cpus,
            num_gpus=scorers.gpus,
            resources=dict(scorers.resources) or None,
            label_selector=dict(scorers.labels) or None,
            max_task_retries=TASK_RETRIES,
            ray_remote_args_fn=lambda: supervisor.next_actor_options(scorers),
        )
    return supervisor.kill_actors_after(_committed_parts(parts))


def keep_stream(
    work: Sequence[Work],
    *,
    pool: Pool,
    decode: Decode,
    stage: Stage,
    committer: Committer,
    execution: Execution,
    strict: bool = False,
) -> Generator[Outcome, None, None]:
    """Runs `stage` on the work, without networks, and commits it; yields what `score_stream` does.

    Nothing is decoded: `decode` only sets which nodes the tasks run on and what they reserve.
    """
    _configure(StreamLimits(timeout_s=execution.no_progress_timeout_s, strict=strict))
    cells = _mapped(read_pool(work, pool, decode, report_unread=True), stage, decode)
    return _committed_parts(_in_parts(cells, committer, decode, execution))


def _mapped(cells: Dataset, stage: Stage, decode: Decode) -> Dataset:
    """The cells after `stage`, in CPU tasks that fuse with the read."""
    with ignore_retry_deprecation():
        return cells.map_batches(
            partial(map_cells, stage=stage),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=decode.cpus,
            num_gpus=0,
            resources=dict(decode.resources) or None,
            label_selector=dict(decode.labels) or None,
            max_retries=TASK_RETRIES,
        )


def _in_parts(
    cells: Dataset, committer: Committer, decode: Decode, execution: Execution
) -> Dataset:
    """The committer's report on each part that it made of the cells."""
    with ignore_retry_deprecation():
        return cells.map_batches(
            committer,
            batch_size=_chunks_per_part(committer, execution),
            batch_format="pyarrow",
            num_cpus=COMMIT_CPUS,
            num_gpus=0,
            resources=dict(decode.resources) or None,
            label_selector=dict(decode.labels) or None,
            max_retries=TASK_RETRIES,
        )


def _chunks_per_part(committer: Committer, execution: Execution) -> int:
    keeps_all_bytes = committer.bounds.lo == float("-inf")
    chunks = execution.chunks_per_part
    return min(chunks, CALIBRATION_PART_CHUNKS) if keeps_all_bytes else chunks


def _committed_parts(parts: Dataset) -> Generator[Outcome, None, None]:
    for row in rows_of(parts):
        if row[TAKEN_OVER] is not None:
            raise RunTakenOverError(row[TAKEN_OVER])
        if row[REFUSED] is not None:
            raise StorageAccessError(row[REFUSED])
        if row[UNREAD] is not None:
            yield UnreadShard(**json.loads(row[UNREAD]))
            continue
        if row["name"] is None:
            yield None
            continue
        yield Committed(
            row["name"],
            tuple(Chunk.from_json(value) for value in json.loads(row["chunks"])),
            json.loads(row["counts"]),
            tuple(json.loads(row["scorers"])),
            tuple(json.loads(row["score_buckets"])),
        )


def _configure(limits: StreamLimits, *, rows_at_once: bool = False) -> None:
    configure(
        errored_blocks=0 if limits.strict else ERRORED_BLOCKS,
        no_progress_timeout_s=limits.timeout_s,
        rows_at_once=rows_at_once,
    )
