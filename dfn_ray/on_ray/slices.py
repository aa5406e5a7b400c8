"""A function applied to slices of many items, in parallel Ray tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

SLICE_ITEMS = 512
"""Items per task: half a minute of reading for parts of a run, so that task starts and results cost
little."""
MIN_SLICED_ITEMS = 8 * SLICE_ITEMS
"""Fewer items are processed in this process, which takes less time than starting Ray."""
IN_FLIGHT = 256
"""Tasks submitted at a time: their results wait in the object store."""

Found = TypeVar("Found")


def run_in_slices(
    items: Sequence[str],
    function: Callable[[Sequence[str]], Found],
    *,
    slice_items: int = SLICE_ITEMS,
    least_items: int = MIN_SLICED_ITEMS,
    in_order: bool = False,
) -> Iterator[Found]:
    """The results of an idempotent function for slices that together cover all items.

    In any order, or in that of the items. Few items are one slice in this process; more are tasks
    of one CPU each.
    """
    if len(items) < least_items:
        yield function(items)
        return
    yield from _in_tasks(items, function, slice_items, in_order=in_order)


def _in_tasks(
    items: Sequence[str],
    function: Callable[[Sequence[str]], Found],
    slice_items: int,
    *,
    in_order: bool,
) -> Iterator[Found]:
    # Small runs are verified, and recipes are tried, without loading Ray.
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
        done, running = (running[:1], running[1:]) if in_order else ray.wait(running, num_returns=1)
        running += [find.remote(some) for some in islice(slices, len(done))]
        with unwrapped_ray_errors():
            yield from ray.get(done)
