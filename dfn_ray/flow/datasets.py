"""A pool as a Ray Dataset of cells, and what every chain over it needs.

Facts that this rests on (Ray 2.60): read and decode fuse into one task; a task yields blocks while it
runs; `batch_size=1` never splits a row, and a row is a whole chunk here.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import threading
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.data.exceptions import ExecutionTimeoutError
from ray.exceptions import RayError
from ray.util.annotations import RayDeprecationWarning

from dfn_ray.config import Decode, Pool
from dfn_ray.errors import (
    DfnRayError,
    InputError,
    NoProgress,
    ShardChangedError,
    StorageError,
    last_line,
    own_words,
)
from dfn_ray.flow.bundles import decode_bundle
from dfn_ray.flow.cells import Cell, Stage, Unread, over_cells, pack, unpack
from dfn_ray.flow.ray_address import check_ray_reachable
from dfn_ray.flow.ray_logs import shorten_own_errors
from dfn_ray.pool import Shard, iter_chunks
from dfn_ray.schema import SAMPLE_SCHEMA, Chunk
from dfn_ray.storage import shared_environment

TASK_RETRIES = 3
"""Times Ray runs a task again whose process died. A shard that still fails is taken up again by the wave loop."""
ACTOR_DEATHS = 32
"""Actors in a row that may die before they have started. `flow.pools` judges earlier and says more, but for actors
that do not get as far as that: on nodes that lack a package, say."""
EACH_TIMEOUT_S = 7200.0
"""The function of `each` takes less for an item, and nodes for it come sooner."""
GUARD = "dfn_ray.whole_imports.guard_workers"
"""What a worker process calls first. Where someone else called ray.init, the first import of dfn_ray does."""
NODE_ID = "ray.io/node-id"
"""The label that Ray gives to every node."""


@dataclass(frozen=True)
class Work:
    """What to read of a shard: everything but the chunks at `skip`, or only the first rows."""

    shard: Shard
    skip: frozenset[int] = frozenset()
    last: int | None = None
    """First row of the chunk of `skip` that ends the shard, None where it is not among them."""
    first_rows: int | None = None


def connect() -> None:
    """Connect this process to the cluster that the environment names, else start a local Ray.

    Workers get the driver's settings of storage that are no secrets (`dfn_ray.storage.environment`). Raises InputError
    when no cluster answers there, or a local Ray cannot start.
    """
    check_ray_reachable()
    if not ray.is_initialized():
        # Ray's core reports on every actor pool that its arguments die with the driver. So does the run.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        # A local Ray's dashboard is ten processes that nobody looks at; a cluster's head has its own.
        # A submitted job's variables reach the workers as they are, and Ray refuses to be told them again.
        shared = {} if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else shared_environment()
        try:
            with _core_unheard(), _own_sigterm():
                ray.init(
                    log_to_driver=False,
                    logging_level=logging.ERROR,
                    include_dashboard=False,
                    runtime_env={"env_vars": shared, "worker_process_setup_hook": GUARD},
                )
        except (ConnectionError, TimeoutError) as error:
            raise InputError(
                f"no Ray cluster to connect to: {last_line(error)}; start it, set RAY_ADDRESS to another, or unset "
                "it for a local Ray"
            ) from error


@contextmanager
def _core_unheard() -> Iterator[None]:
    """Nothing on the process's own stderr: there Ray's core says which log level it was given, at any level."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """The process's own answer to SIGTERM stays: Ray's core prints a stack and Ray exits with 15."""
    own = signal.getsignal(signal.SIGTERM)
    yield
    if callable(own) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, own)


def drivers_node() -> dict[str, str]:
    """The label selector of the node that this runs on: for actors that must not go with another node."""
    return {NODE_ID: ray.get_runtime_context().get_node_id()}


def share(networks: Sequence[Any]) -> ray.ObjectRef:
    """The networks in the object store: loaded once here, fetched once by each node."""
    return ray.put(tuple(networks))


class _ItemSource(Datasource):
    """One read task per item."""

    def __init__(self, items: Sequence[Any], read: Callable[[Any], Iterable[pa.Table]]) -> None:
        self._items, self._read = items, read

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
                partial(self._read, item),
                BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None),
            )
            for item in self._items
        ]


def read_items(
    items: Sequence[Any], read: Callable[[Any], Iterable[pa.Table]], decode: Decode
) -> Dataset:
    """The tables that `read` yields for each item, one task per item, where and with what `decode` says."""
    with retry_arguments():
        return ray.data.read_datasource(
            _ItemSource(items, read),
            override_num_blocks=len(items),
            ray_remote_args={"max_retries": TASK_RETRIES},
            **decode_bundle(decode).reserved(),
        )


def _read_shard(work: Work, *, pool: Pool, report: bool) -> Iterable[pa.Table]:
    try:
        for chunk, samples in iter_chunks(work.shard, pool, skip=work.skip, last=work.last):
            yield pack([Cell(chunk=chunk, samples=samples)])
            if chunk.first_row + chunk.rows >= (work.first_rows or math.inf):
                return
    except (StorageError, ShardChangedError) as error:
        if not report:
            raise
        # Of what a task raises Ray Data may leave out some, and gives up after a number of them: so it is said in a row.
        is_changed = isinstance(error, ShardChangedError)
        unread = Unread(shard=work.shard.uri, changed=is_changed, message=str(error))
        nothing = Chunk(shard=work.shard.uri, first_row=0, rows=0, last=False)
        yield pack([Cell(chunk=nothing, samples=SAMPLE_SCHEMA.empty_table(), unread=unread)])


def from_cells(cells: Sequence[Cell]) -> Dataset:
    """Cells that are on the driver already as a Ray Dataset, a block each."""
    return ray.data.from_arrow([pack([cell]) for cell in cells])


def read_pool(work: Sequence[Work], pool: Pool, decode: Decode, *, report: bool = False) -> Dataset:
    """One row per chunk of the work, bytes untouched.

    `report` says in a cell of its own (`Cell.unread`) what stopped the reading of a shard, which otherwise is raised.
    """
    return read_items(work, partial(_read_shard, pool=pool, report=report), decode)


def stage_arguments(stage: Stage, decode: Decode) -> dict[str, Any]:
    """A stage over cells as arguments of map_batches, so that it fuses with the reading.

    For that it needs the readers' resources and no batch size: a read never fuses with a stage that has one.
    """
    return {
        "fn": partial(over_cells, stage=stage),
        "batch_size": None,
        "batch_format": "pyarrow",
        "max_retries": TASK_RETRIES,
        **decode_bundle(decode).reserved(),
    }


def each(
    items: Sequence[str], function: Callable[[str], str], decode: Decode | None = None
) -> Iterator[str]:
    """What an idempotent function gives for every item, run in tasks where `decode` says; in any order."""
    if not items:
        return

    def run(batch: pa.Table) -> pa.Table:
        return pa.table({"found": [function(item) for item in batch["item"].to_pylist()]})

    configure(errored_blocks=0, no_progress_timeout_s=EACH_TIMEOUT_S)
    blocks = min(len(items), 1024)
    with retry_arguments():
        done = ray.data.from_items(
            [{"item": item} for item in items], override_num_blocks=blocks
        ).map_batches(
            run,
            batch_size=1,
            batch_format="pyarrow",
            max_retries=TASK_RETRIES,
            **decode_bundle(decode or Decode()).reserved(),
        )
    for row in rows_of(done):
        yield row["found"]


@contextmanager
def retry_arguments() -> Iterator[None]:
    """Without Ray's warning that `max_retries` goes in 2.64: nothing else bounds retries in 2.60."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


def tables_of(dataset: Dataset) -> Iterator[pa.Table]:
    """The blocks of a small result, each as soon as it is there."""
    with own_errors():
        blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        yield from cast("Iterator[pa.Table]", blocks)


@contextmanager
def own_errors() -> Iterator[None]:
    """A DfnRayError that a task raised comes out as itself, without Ray's wrapping and the worker's traceback.

    Ray Data's guard against standstill (`configure`) comes out as NoProgress.
    """
    try:
        yield
    except ExecutionTimeoutError as error:
        waited_s = DataContext.get_current().execution_no_progress_timeout_s
        raise NoProgress(
            f"nothing moved for {waited_s:,.0f} s; are there nodes for what the recipe asks? Run again to go on"
        ) from error
    except Exception as error:
        own = own_error(error)
        if own is None:
            raise
        raise own from error


def own_error(error: BaseException | None) -> DfnRayError | None:
    """The first DfnRayError in a chain of causes that is not one of Ray's copies."""
    while error is not None:
        if isinstance(error, DfnRayError) and not isinstance(error, RayError):
            error.args = (own_words(error),)
            return error
        error = getattr(error, "cause", None) or error.__cause__
    return None


def rows_of(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of a small result, each as soon as it is there."""
    for block in tables_of(dataset):
        yield from block.to_pylist()


def cells_of(dataset: Dataset) -> Iterator[Cell]:
    """The cells that a chain ends in, each as soon as it is there."""
    for block in tables_of(dataset):
        yield from unpack(block)


def configure(*, errored_blocks: int, no_progress_timeout_s: float) -> DataContext:
    """Settings of the chains made from here on: how many tasks may be given up, and how long nothing may move."""
    context = DataContext.get_current()
    context.max_errored_blocks = errored_blocks
    context.execution_no_progress_timeout_s = no_progress_timeout_s
    context.raise_original_map_exception = True
    context.max_consecutive_actor_init_deaths = ACTOR_DEATHS
    # Progress is dfn_ray's own line: Ray Data's bars count blocks, not samples.
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    shorten_own_errors(own_error)
    return context
