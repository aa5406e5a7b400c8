"""Samples of a run as numbers: index of the shard in the pool listing, and row in the shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.schema import Chunk


def shard_numbers(
    shards: pa.ChunkedArray | pa.Array, index: Mapping[str, int], other: int | None = None
) -> np.ndarray:
    """The number of each row's shard, int64.

    Shards that are not in the index get `other`, or raise KeyError if that is None.
    """
    column = shards.combine_chunks() if isinstance(shards, pa.ChunkedArray) else shards
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    names = column.dictionary.to_pylist()
    numbers = np.array(
        [index[uri] if other is None else index.get(uri, other) for uri in names], dtype=np.int64
    )
    return numbers[column.indices.to_numpy(zero_copy_only=False)] if len(column) else numbers[:0]


def sample_position(shard: np.ndarray, row: np.ndarray) -> np.ndarray:
    """(shard, row) as one uint64, 32 bits each, which identifies a sample within a run."""
    return shard.astype(np.uint64) << np.uint64(32) | row.astype(np.uint64)


def rows_in_chunks(table: pa.Table, chunks: Sequence[Chunk]) -> np.ndarray:
    """Mask of the rows of a table with `shard` and `row` that are in the chunks, bool (N,)."""
    shards, rows = table["shard"].cast(pa.string()), table["row"].to_numpy()
    inside = np.zeros(len(rows), dtype=bool)
    for chunk in chunks:
        here = (rows >= chunk.first_row) & (rows < chunk.first_row + chunk.rows)
        if here.any():
            inside |= here & pc.equal(shards, chunk.shard).to_numpy()
    return inside
