"""Samples of a run as numbers: that of the shard in the pool listing, and the row in it."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa


def shard_numbers(
    shards: pa.ChunkedArray | pa.Array, index: Mapping[str, int], other: int | None = None
) -> np.ndarray:
    """The number of each row's shard, int64; `other` for shards that the index has not. Raises KeyError where it is None."""
    column = shards.combine_chunks() if isinstance(shards, pa.ChunkedArray) else shards
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names = column.dictionary.to_pylist()
    numbers = np.array(
        [index[uri] if other is None else index.get(uri, other) for uri in names], dtype=np.int64
    )
    return numbers[column.indices.to_numpy(zero_copy_only=False)] if len(column) else numbers[:0]


def sample_position(shard: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(shard, row) as one uint64, 2^32 of each: what names a sample inside a run."""
    return shard.astype(np.uint64) << np.uint64(32) | row.astype(np.uint64)
