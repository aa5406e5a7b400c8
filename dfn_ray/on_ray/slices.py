"""A function over slices of many items, side by side in Ray tasks, so that what it finds in each adds up."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

SLICE_ITEMS = 512
"""Items of a task: for parts of a run half a minute of reading, so that neither starts nor results count."""
MIN_SLICED_ITEMS = 8 * SLICE_ITEMS
"""Fewer are read in this process, which takes less than starting a Ray."""
IN_FLIGHT = 256
"""Tasks handed out at a time: their results wait in the object store."""

Found = TypeVar("Found")


def run_in_slices(
    items: Sequence[str],
    function: Callable[[Sequence[str]], Found],
    *,
    slice_items: int = SLICE_ITEMS,
    least_items: int = MIN_SLICED_ITEMS,
) -> Iterator[Found]:
    """What a function finds in slices of the items that cover them all, once each and in any order.

    One slice in this process for few items, else tasks of a CPU each. The function must be the same when it runs twice.
    """
    if len(items) < least_items:
        yield function(items)
        return
    yield from _in_tasks(items, function, slice_items)


def _in_tasks(
    items: Sequence[str], function: Callable[[Sequence[str]], Found], slice_items: int
) -> Iterator[Found]:
    # Small runs are verified, and recipes tried, without Ray.
    import ray  # noqa: PLC0415

    from dfn_ray.on_ray.datasets import TASK_RETRIES  # noqa: PLC0415
    from dfn_ray.on_ray.failures import unwrapped_ray_errors  # noqa: PLC0415
    from dfn_ray.on_ray.session import connect  # noqa: PLC0415

    connect()

    @ray.remote(num_cpus=1, max_retries=TASK_RETRIES, scheduling_strategy="SPREAD")
    def find(some: Sequence[str]) -> Found:
        return function(some)

    slices = (items[start : start + slice_items] for start in range(0, len(items), slice_items))
    running = [find.remote(some) for some in islice(slices, IN_FLIGHT)]
    while running:
        done, running = ray.wait(running, num_returns=1)
        running += [find.remote(some) for some in islice(slices, len(done))]
        with unwrapped_ray_errors():
            yield from ray.get(done)
