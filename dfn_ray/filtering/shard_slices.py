"""Slices of a pool: shards in a row that one worker scores, one after the other."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from typing import cast

import pyarrow as pa

from dfn_ray.on_ray.work import Work

SLICE_BYTES = 512 * 2**20
"""Size of a slice of small shards: about 10,000 samples of the web, half a minute of decoding."""
SLICES_PER_WORKER = 4
"""Slices that each worker gets at least, if there are as many shards, so that all end together."""


def in_slices(work: Sequence[Work], workers: int) -> Iterator[list[Work]]:
    """The work in slices, for this many workers in all."""
    left_bytes = sum(item.shard.size_bytes for item in work)
    target = min(SLICE_BYTES, left_bytes // (SLICES_PER_WORKER * max(1, workers)))
    current, size = [], 0
    for item in work:
        if current and size + item.shard.size_bytes > target:
            yield current
            current, size = [], 0
        current.append(item)
        size += item.shard.size_bytes
    if current:
        yield current


def slice_block(works: Sequence[Work]) -> pa.Table:
    """A slice as a row of a Ray Dataset."""
    return pa.table({"slice": [pickle.dumps(tuple(works))]})


def works_of(block: pa.Table) -> Sequence[Work]:
    """The works of the slice in a block of one row."""
    return cast("Sequence[Work]", pickle.loads(block["slice"][0].as_py()))
