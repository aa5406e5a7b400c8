"""A pool as a Ray Dataset of cells, and what every chain over it needs.

Facts that this rests on (Ray 2.60): read and decode fuse into one task; a task yields blocks while it
runs; `batch_size=1` never splits a row, and a row is a whole chunk here.
"""

from __future__ import annotations

import math
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
from ray.util.annotations import RayDeprecationWarning

from dfn_ray.config import Decode, Pool
from dfn_ray.errors import ShardChangedError, StorageError
from dfn_ray.on_ray.bundles import decode_bundle
from dfn_ray.on_ray.cells import Cell, Stage, UnreadShard, map_cells, pack, unpack
from dfn_ray.on_ray.failures import unwrapped_ray_errors
from dfn_ray.pool import Shard, iter_chunks
from dfn_ray.schema import SAMPLE_SCHEMA, Chunk

TASK_RETRIES = 3
"""Times Ray runs a task again whose process died. A shard that still fails is taken up again by the wave loop."""


@dataclass(frozen=True)
class Work:
    """What to read of a shard: everything but the chunks at `skip`, or only the first rows."""

    shard: Shard
    skip: frozenset[int] = frozenset()
    last: int | None = None
    """First row of the chunk of `skip` that ends the shard, None where it is not among them."""
    first_rows: int | None = None


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
    with ignore_retry_deprecation():
        return ray.data.read_datasource(
            _ItemSource(items, read),
            override_num_blocks=len(items),
            ray_remote_args={"max_retries": TASK_RETRIES},
            **decode_bundle(decode).ray_options(),
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
        unread = UnreadShard(shard=work.shard.uri, changed=is_changed, message=str(error))
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
        "fn": partial(map_cells, stage=stage),
        "batch_size": None,
        "batch_format": "pyarrow",
        "max_retries": TASK_RETRIES,
        **decode_bundle(decode).ray_options(),
    }


@contextmanager
def ignore_retry_deprecation() -> Iterator[None]:
    """Without Ray's warning that `max_retries` goes in 2.64: nothing else bounds retries in 2.60."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


def tables_of(dataset: Dataset) -> Iterator[pa.Table]:
    """The blocks of a small result, each as soon as it is there."""
    with unwrapped_ray_errors():
        blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        yield from cast("Iterator[pa.Table]", blocks)


def rows_of(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of a small result, each as soon as it is there."""
    for block in tables_of(dataset):
        yield from block.to_pylist()


def cells_of(dataset: Dataset) -> Iterator[Cell]:
    """The cells that a chain ends in, each as soon as it is there."""
    for block in tables_of(dataset):
        yield from unpack(block)
