"""The footers of the parts of a run of any size, in Ray tasks if there are many."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from dfn_ray.on_ray.slices import MIN_SLICED_ITEMS, SLICE_ITEMS, run_in_slices
from dfn_ray.run import Part, read_parts
from dfn_ray.storage import Store


def read_many_parts(
    store: Store,
    names: Sequence[str],
    *,
    slice_items: int = SLICE_ITEMS,
    least_items: int = MIN_SLICED_ITEMS,
) -> Iterator[Part]:
    """The named parts in that order; the footers of many are read in parallel Ray tasks.

    One process takes milliseconds of CPU time for each request to an object store, which is hours
    for a million parts. Raises as `read_parts`.
    """
    if len(names) < least_items:
        yield from read_parts(store, names)  # without holding all of them
        return
    read = partial(_read_some, store)
    for some in run_in_slices(
        names, read, slice_items=slice_items, least_items=least_items, in_order=True
    ):
        yield from some


def _read_some(store: Store, names: Sequence[str]) -> list[Part]:
    return list(read_parts(store, names))
