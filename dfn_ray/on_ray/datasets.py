"""A pool as a Ray Dataset of cells, for the chains of every stage.

Relies on these facts (Ray 2.60): read and decode fuse into one task; a task yields blocks while it
runs; `batch_size=1` never splits a row, and a row is a whole chunk here. A read fuses with a stage
only if both have the same options (resources, labels, retries) and the stage has no batch size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, cast

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset, Datasource, ReadTask
from ray.data.block import BlockMetadata
from ray.util.annotations import RayDeprecationWarning

from dfn_ray.config import Decode, Pool
from dfn_ray.on_ray.cells import Cell, pack, unpack
from dfn_ray.on_ray.failures import unwrapped_ray_errors
from dfn_ray.on_ray.work import Work, read_cells

TASK_RETRIES = 3
"""Retries by Ray of a task whose process died. A shard that still fails is retried by the wave
loop."""


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
    """The tables that `read` yields for each item; one task per item, placed as `decode` says."""
    with ignore_retry_deprecation():
        return ray.data.read_datasource(
            _ItemSource(items, read),
            override_num_blocks=len(items),
            num_cpus=decode.cpus,
            num_gpus=0,
            resources=dict(decode.resources) or None,
            label_selector=dict(decode.labels) or None,
            ray_remote_args={"max_retries": TASK_RETRIES},
        )


def read_blocks(read: Callable[[], Iterable[pa.Table]]) -> Dataset:
    """The tables that `read` yields, by one task that reserves nothing."""
    return ray.data.read_datasource(
        _ItemSource([None], lambda _: read()), override_num_blocks=1, num_cpus=0, num_gpus=0
    )


def _read_shard(work: Work, *, pool: Pool, report_unread: bool) -> Iterable[pa.Table]:
    for cell in read_cells(work, pool, report_unread=report_unread):
        yield pack([cell])


def from_cells(cells: Sequence[Cell]) -> Dataset:
    """Cells that the driver holds, as a Ray Dataset with one block per cell."""
    return ray.data.from_arrow([pack([cell]) for cell in cells])


def read_pool(
    work: Sequence[Work], pool: Pool, decode: Decode, *, report_unread: bool = False
) -> Dataset:
    """One row per chunk of the work, bytes untouched.

    `report_unread` yields the error that stopped the reading of a shard as a cell of its own
    (`Cell.unread`) instead of raising it.
    """
    return read_items(work, partial(_read_shard, pool=pool, report_unread=report_unread), decode)


@contextmanager
def ignore_retry_deprecation() -> Iterator[None]:
    """Suppresses Ray's warning that `max_retries` will be removed in 2.64.

    In 2.60 nothing else bounds retries.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)
        yield


def tables_of(dataset: Dataset) -> Iterator[pa.Table]:
    """The blocks of a small result, each as soon as it is produced."""
    with unwrapped_ray_errors():
        blocks = dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
        yield from cast("Iterator[pa.Table]", blocks)


def rows_of(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows of a small result, each as soon as it is produced."""
    for block in tables_of(dataset):
        yield from block.to_pylist()


def cells_of(dataset: Dataset) -> Iterator[Cell]:
    """The cells at the end of a chain, each as soon as it is produced."""
    for block in tables_of(dataset):
        yield from unpack(block)
