"""The index of a training run: which chunks its sources have, and how many samples each gives in a pass.

One walk over the sources, once per run; then any chunk can be read by itself, in any order. About 40 bytes a
chunk: 10^9 samples in chunks of 256 are 160 MB.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from dfn_ray.config import Source
from dfn_ray.errors import InputError
from dfn_ray.pool import Shard, iter_chunks
from dfn_ray.schema import Chunk
from dfn_ray.training.samples import copies_of

INDEX_SCHEMA = pa.schema(
    [
        pa.field("source", pa.int16()),  # position in the recipe
        pa.field("shard", pa.int32()),  # position among the source's shards
        pa.field("first_row", pa.int64()),
        pa.field("rows", pa.int32()),  # in the chunk, usable or not
        pa.field("at", pa.int64()),  # see Chunk.at
        pa.field("samples", pa.int32()),  # that it gives in a pass, copies counted
    ]
)


@dataclass(frozen=True)
class ChunkIndex:
    """The chunks of one source, in order of shard and row."""

    shards: tuple[Shard, ...]
    shard: np.ndarray
    first_row: np.ndarray
    rows: np.ndarray
    at: np.ndarray
    """-1 for none."""
    samples: np.ndarray

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def total(self) -> int:
        """Samples of one pass."""
        return int(self.samples.sum())

    def chunk(self, number: int) -> tuple[Shard, Chunk]:
        """The shard and the chunk with that number."""
        shard, at = self.shards[self.shard[number]], int(self.at[number])
        return shard, Chunk(
            shard=shard.uri,
            first_row=int(self.first_row[number]),
            rows=int(self.rows[number]),
            last=False,
            at=None if at < 0 else at,
        )


def index_shard(source: Source, number: int, shard: Shard, place: int) -> pa.Table:
    """The chunks of a shard with usable samples, as a table with `INDEX_SCHEMA`."""
    chunks = [
        (
            number,
            place,
            chunk.first_row,
            chunk.rows,
            chunk.at,
            int(copies_of(samples, source).sum()),
        )
        for chunk, samples in iter_chunks(shard, source.pool)
    ]
    rows = [dict(zip(INDEX_SCHEMA.names, row, strict=True)) for row in chunks if row[-1]]
    return pa.Table.from_pylist(rows, INDEX_SCHEMA)


def split_index(
    table: pa.Table, sources: Sequence[Source], shards: Sequence[Sequence[Shard]]
) -> tuple[ChunkIndex, ...]:
    """The index of each source. Raises InputError when one has no usable sample."""
    table = table.sort_by([(name, "ascending") for name in ("source", "shard", "first_row")])
    columns = {
        name: table[name].fill_null(-1).to_numpy()  # pyright: ignore[reportAttributeAccessIssue]
        for name in INDEX_SCHEMA.names
    }
    found = []
    for number, source in enumerate(sources):
        own = columns["source"] == number
        index = ChunkIndex(
            tuple(shards[number]), *(columns[name][own] for name in INDEX_SCHEMA.names[1:])
        )
        if not index.total:
            raise InputError(
                f"sources.{number} ({source.name}): no usable sample in {', '.join(source.pool.uri)}; "
                "look with dfn-ray inspect"
            )
        found.append(index)
    return tuple(found)


def drawn_counts(index: ChunkIndex, count: int, seed: Sequence[int]) -> np.ndarray:
    """How many samples of each chunk are drawn so that exactly `count` of all are, each sample equally likely.

    Raises InputError when there are fewer.
    """
    if count > index.total:
        raise InputError(
            f"sample_count: need at most the {index.total:,} samples there are, got {count:,}"
        )
    rng = np.random.default_rng(seed)
    return rng.multivariate_hypergeometric(
        index.samples.astype(np.int64), count, method="marginals"
    )
