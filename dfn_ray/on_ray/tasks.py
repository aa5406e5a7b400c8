"""A function applied to many items, each in a Ray task of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import ray

from dfn_ray.config import Decode
from dfn_ray.on_ray.datasets import TASK_RETRIES, ignore_retry_deprecation, rows_of
from dfn_ray.on_ray.session import configure

TASK_TIMEOUT_S = 7200.0
"""Longer than the function of `run_in_tasks` takes for an item, and than nodes take to start."""


def run_in_tasks(
    items: Sequence[str], function: Callable[[str], str], decode: Decode | None = None
) -> Iterator[str]:
    """The results of an idempotent function for all items, in any order.

    Each is computed in a task that is placed as `decode` says.
    """
    if not items:
        return
    placement = decode or Decode()

    def run(batch: pa.Table) -> pa.Table:
        return pa.table({"found": [function(item) for item in batch["item"].to_pylist()]})

    configure(errored_blocks=0, no_progress_timeout_s=TASK_TIMEOUT_S)
    blocks = min(len(items), 1024)
    with ignore_retry_deprecation():
        done = ray.data.from_items(
            [{"item": item} for item in items], override_num_blocks=blocks
        ).map_batches(
            run,
            batch_size=1,
            batch_format="pyarrow",
            num_cpus=placement.cpus,
            num_gpus=0,
            resources=dict(placement.resources) or None,
            label_selector=dict(placement.labels) or None,
            max_retries=TASK_RETRIES,
        )
    for row in rows_of(done):
        yield row["found"]
