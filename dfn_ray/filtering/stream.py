"""The Ray Data chains, and the only module of `filtering` that names Ray operators.

Facts that this rests on (Ray 2.60): read and decode fuse into one task; a task yields blocks while it
runs; `batch_size=1` never splits a row, and a row is a whole chunk here; `batch_size=n` on the last
stage hands it n chunks, which become one part.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.exceptions import WorkerCrashedError
from ray.util.annotations import RayDeprecationWarning

from dfn_ray.config import Decode, Execution, Pool, Scorers
from dfn_ray.filtering.cells import Cell, Stage, over_cells, pack
from dfn_ray.filtering.commit import Committer
from dfn_ray.manifest import Ledger
from dfn_ray.pool import Shard, iter_chunks
from dfn_ray.schema import Chunk
from dfn_ray.telemetry import Progress

TASK_RETRIES = 3
"""Times Ray runs a task again whose process died. A shard that still fails is taken up again by the wave loop."""
ERRORED_BLOCKS = 64
"""Tasks that may be given up before Ray stops a wave; their shards are tried again, one by one."""
NARROW_PART_CHUNKS = 8
"""Chunks per part while every sample's bytes travel (calibration): a part is built in memory."""
COMMIT_CPUS = 0.25
"""A commit mostly waits for storage."""


@dataclass(frozen=True)
class Work:
    """What to read of a shard: everything but the chunks at `skip`, or only the first rows."""

    shard: Shard
    skip: frozenset[int] = frozenset()
    first_rows: int | None = None


@dataclass(frozen=True)
class Committed:
    """A part as its committer reports it to the driver."""

    name: str
    chunks: tuple[Chunk, ...]
    counts: dict[str, int]
    scorers: tuple[str, ...] = ()
    """Which actors scored it."""

    def enter(self, ledger: Ledger, progress: Progress) -> None:
        """Count the part in the ledger and in the progress."""
        ledger.add(self.name, self.chunks, self.counts)
        progress.add(
            sum(chunk.rows for chunk in self.chunks),
            sum(chunk.bytes_read for chunk in self.chunks),
            self.counts,
            scorers=self.scorers,
        )


def work_left(shards: Sequence[Shard], ledger: Ledger) -> list[Work]:
    """What is left to do of the shards: those that are not complete, without their committed chunks."""
    return [
        Work(shard, skip=frozenset(ledger.open_chunks(shard.uri)))
        for shard in shards
        if not ledger.is_complete(shard.uri)
    ]


def connect() -> None:
    """Connect this process to the cluster that the environment names, else start a local Ray."""
    if not ray.is_initialized():
        # Ray's core reports on every actor pool that its arguments die with the driver. So does the run.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        ray.init(log_to_driver=False, logging_level=logging.ERROR)


def share(networks: Sequence[Any]) -> ray.ObjectRef:
    """The networks in the object store: loaded once here, fetched once by each node."""
    return ray.put(tuple(networks))


def score_stream(
    work: Sequence[Work],
    *,
    pool: Pool,
    decode: Decode,
    prepare: Stage,
    scorer: type,
    scorer_arguments: tuple[Any, ...],
    scorers: Scorers,
    committer: Committer,
    execution: Execution,
    tolerant: bool = True,
) -> Iterator[Committed]:
    """Prepare, score and commit the work; yields each part once it is on storage.

    `tolerant` leaves out tasks that keep dying instead of stopping; what they held stays uncommitted.
    """
    _configure(execution, tolerant)
    with _retry_arguments():
        parts = (
            _read_pool(work, pool, decode)
            .map_batches(**_stage(prepare, decode))
            .map_batches(
                scorer,
                fn_constructor_args=scorer_arguments,
                batch_size=1,
                batch_format="pyarrow",
                num_gpus=scorers.gpus,
                num_cpus=scorers.cpus,
                compute=ActorPoolStrategy(min_size=scorers.min_size, max_size=scorers.max_size),
                max_task_retries=TASK_RETRIES,
            )
            .map_batches(committer, **_committing(committer, execution))
        )
    return _committed(parts)


def keep_stream(
    work: Sequence[Work],
    *,
    pool: Pool,
    stage: Stage,
    committer: Committer,
    execution: Execution,
    tolerant: bool = True,
) -> Iterator[Committed]:
    """Run `stage` on the work, without networks, and commit it; yields each part once it is on storage."""
    _configure(execution, tolerant)
    decode = Decode()
    with _retry_arguments():
        parts = (
            _read_pool(work, pool, decode)
            .map_batches(**_stage(stage, decode))
            .map_batches(committer, **_committing(committer, execution))
        )
    return _committed(parts)


def each(items: Sequence[Any], function: Callable[[Any], None]) -> None:
    """Run an idempotent function on every item, in tasks."""
    if not items:
        return

    def run(batch: pa.Table) -> pa.Table:
        for index in batch["item"].to_pylist():
            function(items[index])
        return batch

    context = DataContext.get_current()
    context.max_errored_blocks = 0
    _be_quiet(context)
    blocks = min(len(items), 1024)
    with _retry_arguments():
        done = ray.data.from_items(
            [{"item": index} for index in range(len(items))], override_num_blocks=blocks
        ).map_batches(run, batch_size=1, batch_format="pyarrow", max_retries=TASK_RETRIES)
    for _ in _rows(done):
        pass


def survives_reading(shard: Shard, pool: Pool) -> bool:
    """False when walking the shard kills the process that does it, three times out of three."""

    @ray.remote(max_retries=2)
    def walk() -> None:
        for _ in iter_chunks(shard, pool):
            pass

    try:
        ray.get(walk.remote())
    except WorkerCrashedError:
        return False
    return True


class _PoolSource(Datasource):
    """One read task per shard, one row per chunk."""

    def __init__(self, work: Sequence[Work], pool: Pool) -> None:
        self._work, self._pool = work, pool

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        return [
            ReadTask(
                partial(_read_shard, work, self._pool),
                BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None),
            )
            for work in self._work
        ]


def _read_shard(work: Work, pool: Pool) -> Iterable[pa.Table]:
    for chunk, samples in iter_chunks(work.shard, pool, skip=work.skip):
        yield pack([Cell(chunk=chunk, samples=samples)])
        if work.first_rows is not None and chunk.first_row + chunk.rows >= work.first_rows:
            return


def _read_pool(work: Sequence[Work], pool: Pool, decode: Decode) -> Dataset:
    """One row per chunk of the work, bytes untouched."""
    with _retry_arguments():
        return ray.data.read_datasource(
            _PoolSource(work, pool),
            override_num_blocks=len(work),
            ray_remote_args={"num_cpus": decode.cpus, "max_retries": TASK_RETRIES},
        )


def _stage(stage: Stage, decode: Decode) -> dict[str, Any]:
    """A stage over cells as arguments of map_batches, so that it fuses with the reading.

    For that it needs the readers' resources and no batch size: a read never fuses with a stage that has one.
    """
    return {
        "fn": partial(over_cells, stage=stage),
        "batch_size": None,
        "batch_format": "pyarrow",
        "num_cpus": decode.cpus,
        "max_retries": TASK_RETRIES,
    }


def _committing(committer: Committer, execution: Execution) -> dict[str, Any]:
    """The last stage as arguments of map_batches: a part's worth of chunks a call."""
    narrow = committer.bounds.lo == float("-inf")
    chunks = execution.chunks_per_part
    return {
        "batch_size": min(chunks, NARROW_PART_CHUNKS) if narrow else chunks,
        "batch_format": "pyarrow",
        "num_cpus": COMMIT_CPUS,
        "max_retries": TASK_RETRIES,
    }


def _committed(parts: Dataset) -> Iterator[Committed]:
    for row in _rows(parts):
        yield Committed(
            row["name"],
            tuple(Chunk.from_json(value) for value in json.loads(row["chunks"])),
            json.loads(row["counts"]),
            tuple(json.loads(row["scorers"])),
        )


@contextmanager
def _retry_arguments() -> Iterator[None]:
    """Without Ray's warning that `max_retries` goes in 2.64: nothing else bounds retries in 2.60."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


def _rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of a small result, each as soon as it is there."""
    blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    for block in cast("Iterator[pa.Table]", blocks):
        yield from block.to_pylist()


def _configure(execution: Execution, tolerant: bool) -> None:
    context = DataContext.get_current()
    context.max_errored_blocks = ERRORED_BLOCKS if tolerant else 0
    context.execution_no_progress_timeout_s = execution.no_progress_timeout_s
    context.raise_original_map_exception = True
    _be_quiet(context)


def _be_quiet(context: DataContext) -> None:
    """Leave progress to dfn_ray's own line: Ray Data's bars count blocks, not samples."""
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
