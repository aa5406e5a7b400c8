"""The sorted uid list of a subset, `subset_uids.npy`, in bounded memory.

DataComp-XL's is 30 GB: it is written bucket by bucket of the leading 16 bits, each sorted in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from dfn_ray.filtering.selection import BINS
from dfn_ray.storage import Store
from dfn_ray.uids import UID_DTYPE, npy_header

UID_LIST = "subset_uids.npy"
BUCKET_UIDS = 1 << 25
"""Uids sorted in memory at a time: 512 MiB."""

Uids = Callable[[], Iterable[np.ndarray]]
"""Gives all uids, as UID_DTYPE arrays in any order and grouping; called once per bucket."""


def write_uid_list(store: Store, uids: Uids, count: int) -> int:
    """Write the sorted list of `count` uids to a store; returns how many of them repeat another one."""
    repeated = 0

    def pieces() -> Iterator[bytes | memoryview]:
        nonlocal repeated
        yield npy_header(count)
        for low, high in _buckets(uids, count):
            bucket = np.concatenate([np.empty(0, UID_DTYPE), *_between(uids, low, high)])
            bucket = bucket[np.lexsort((bucket["f1"], bucket["f0"]))]
            repeated += int((bucket[1:] == bucket[:-1]).sum())
            yield bucket.tobytes()

    store.write_stream(UID_LIST, pieces())
    return repeated


def _buckets(uids: Uids, count: int) -> Iterator[tuple[int, int]]:
    """Ranges [low, high) of the leading 16 bits that hold at most BUCKET_UIDS uids each, in order."""
    if count <= BUCKET_UIDS:
        yield 0, BINS
        return
    counts = np.zeros(BINS, dtype=np.int64)
    for some in uids():
        counts += np.bincount(_leading(some), minlength=BINS)
    low, held = 0, 0
    for digit, here in enumerate(counts.tolist()):
        if held and held + here > BUCKET_UIDS:
            yield low, digit
            low, held = digit, 0
        held += here
    yield low, BINS


def _between(uids: Uids, low: int, high: int) -> Iterator[np.ndarray]:
    for some in uids():
        leading = _leading(some)
        yield some[(leading >= low) & (leading < high)]


def _leading(uids: np.ndarray) -> np.ndarray:
    return (uids["f0"] >> np.uint64(48)).astype(np.int64)
