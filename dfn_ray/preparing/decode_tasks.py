"""Tasks that read and prepare shards on any node, for scorers whose nodes have few CPUs."""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterator, Sequence
from typing import Any, cast

import pyarrow as pa
import ray
from ray.exceptions import WorkerCrashedError

from dfn_ray.config import Decode
from dfn_ray.on_ray.bundles import decode_bundle
from dfn_ray.on_ray.cells import Cell, pack, unpack
from dfn_ray.on_ray.datasets import TASK_RETRIES, ignore_retry_deprecation
from dfn_ray.on_ray.failures import unwrapped_ray_errors
from dfn_ray.on_ray.work import Work, read_cells
from dfn_ray.preparing.processes.messages import Job
from dfn_ray.preparing.remaining import DEATHS, place_of, remaining_works

_LOG = logging.getLogger(__name__)
CHUNKS_AHEAD = 2
"""Chunks that a task prepares before the first of them is taken."""


class DecodeTasks:
    """Reads and prepares shards in tasks; their chunks come through Ray's object store.

    Safe for several threads; each call of `cells` runs one task at a time.
    """

    def __init__(self, job: Job, decode: Decode) -> None:
        self._job = job
        with ignore_retry_deprecation():
            self._task = ray.remote(_prepared).options(
                num_returns="streaming",
                _generator_backpressure_num_objects=CHUNKS_AHEAD,
                max_retries=TASK_RETRIES,
                **decode_bundle(decode).ray_options(),
            )

    def cells(self, works: Sequence[Work]) -> Generator[Cell, None, None]:
        """The prepared chunks of the works, in order; see `WorkerPool.cells`."""
        left, deaths_here = list(works), 0
        while left:
            try:
                with unwrapped_ray_errors():
                    for reference in cast("Any", self._task.remote(self._job, tuple(left))):
                        (cell,) = unpack(ray.get(reference))
                        yield cell
                        left = remaining_works(left, cell.chunk, is_unread=bool(cell.unread))
                        deaths_here = 0
                return
            except WorkerCrashedError as error:
                deaths_here += 1
                _LOG.warning("a decode task ended (%s) at %s", error, place_of(left[0]))
                if deaths_here == DEATHS:
                    left, deaths_here = left[1:], 0


def _prepared(job: Job, works: Sequence[Work]) -> Iterator[pa.Table]:
    for work in works:
        for cell in read_cells(work, job.pool, report_unread=True):
            yield pack([cell if cell.unread else job.stage(cell)])
