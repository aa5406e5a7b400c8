"""A function over many items, each in a Ray task of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa
import ray

from dfn_ray.config import Decode
from dfn_ray.on_ray.bundles import decode_bundle
from dfn_ray.on_ray.datasets import TASK_RETRIES, ignore_retry_deprecation, rows_of
from dfn_ray.on_ray.session import configure

TASK_TIMEOUT_S = 7200.0
"""The function of `run_in_tasks` takes less for an item, and nodes for it come sooner."""


def run_in_tasks(
    items: Sequence[str], function: Callable[[str], str], decode: Decode | None = None
) -> Iterator[str]:
    """What an idempotent function gives for every item, run in tasks where `decode` says; in any order."""
    if not items:
        return

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
            max_retries=TASK_RETRIES,
            **decode_bundle(decode or Decode()).ray_options(),
        )
    for row in rows_of(done):
        yield row["found"]
