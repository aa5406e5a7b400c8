"""The index of a training run: the chunks of its sources, and the samples of each in a pass.

The sources are read once per run to build it; then any chunk can be read by itself, in any order. A
chunk takes about 40 bytes: 160 MB for 10^9 samples in chunks of 256. One additional row per shard
contains the counts of samples read, failed and rejected (`source_counts`): about 60 bytes before
compression.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.config import Source
from dfn_ray.errors import InputError
from dfn_ray.on_ray.crashing_shards import CrashSite
from dfn_ray.pool import Shard, iter_chunks
from dfn_ray.schema import Chunk, ShardFault
from dfn_ray.training.data.group_samples import copies_of
from dfn_ray.training.data.read_counts import SourceCounts, shard_counts

INDEX_SCHEMA = pa.schema(
    [
        pa.field("source", pa.int16()),  # position in the recipe
        pa.field("shard", pa.int32()),  # position among the source's shards
        pa.field("first_row", pa.int64()),
        pa.field("rows", pa.int32()),  # in the chunk, usable or not
        pa.field("at", pa.int64()),  # see Chunk.at
        pa.field("samples", pa.int32()),  # in a pass, copies included; 0 in rows with `read`
        pa.field("read", pa.string()),  # counts of a shard as JSON, in one row per shard
    ]
)
_NUMBERS = tuple(name for name in INDEX_SCHEMA.names if name != "read")


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
        """Number of samples in one pass."""
        return int(self.samples.sum())

    def chunk(self, number: int) -> tuple[Shard, Chunk]:
        """Returns the shard and the chunk with this number."""
        shard, at = self.shards[self.shard[number]], int(self.at[number])
        return shard, Chunk(
            shard=shard.uri,
            first_row=int(self.first_row[number]),
            rows=int(self.rows[number]),
            last=False,
            at=None if at < 0 else at,
        )


def index_shard(
    source: Source, number: int, shard: Shard, place: int, crash: CrashSite | None = None
) -> pa.Table:
    """Returns the chunks of a shard with usable samples and, last, its counts (`INDEX_SCHEMA`).

    A shard with a `crash` is read up to its row, and gets it as its fault.
    """
    rows: list[tuple[int | str | None, ...]] = []
    counts, notes, fault = Counter[str](), Counter[str](), {}
    if crash is not None:
        fault = {"fault": ShardFault.CRASHES_READER.value, "detail": crash.detail}
    for chunk, samples in _chunks(shard, source, crash):
        copies = copies_of(samples, source)
        if taken := int(copies.sum()):
            rows.append((number, place, chunk.first_row, chunk.rows, chunk.at, taken, None))
        counts += shard_counts(samples, copies)
        notes.update(chunk.notes)
        if chunk.fault is not None:
            fault = {"fault": chunk.fault.value, "detail": chunk.detail}
    read = json.dumps({"counts": counts, "notes": notes, **fault})
    rows.append((number, place, 0, 0, None, 0, read))
    return pa.Table.from_pylist(
        [dict(zip(INDEX_SCHEMA.names, row, strict=True)) for row in rows], INDEX_SCHEMA
    )


def _chunks(
    shard: Shard, source: Source, crash: CrashSite | None
) -> Iterator[tuple[Chunk, pa.Table]]:
    """The chunks of a shard; with a crash, only those before its row."""
    if crash is not None and crash.row == 0:
        return
    for chunk, samples in iter_chunks(shard, source.pool):
        yield chunk, samples
        if crash is not None and chunk.first_row + chunk.rows >= crash.row:
            return


def indexed_shards(table: pa.Table) -> set[tuple[int, int]]:
    """Returns the shards in an index, by source and place."""
    rows = table.filter(pc.is_valid(table["read"]))
    return set(zip(rows["source"].to_pylist(), rows["shard"].to_pylist(), strict=True))


def source_counts(
    table: pa.Table, sources: Sequence[Source], shards: Sequence[Sequence[Shard]]
) -> tuple[SourceCounts, ...]:
    """Returns the counts of samples read, failed and rejected in indexing, for each source."""
    rows = table.filter(pc.is_valid(table["read"])).sort_by([("shard", "ascending")])
    found: list[SourceCounts] = []
    for number, source in enumerate(sources):
        own = rows.filter(pc.equal(rows["source"], number))
        counts, notes, faults = Counter[str](), Counter[str](), {}
        for place, read in zip(own["shard"].to_pylist(), own["read"].to_pylist(), strict=True):
            value = json.loads(read)
            counts.update(value["counts"])
            notes.update(value["notes"])
            if "fault" in value:
                uri = shards[number][place].uri
                faults[uri] = ShardFault(value["fault"]), value["detail"]
        found.append(
            SourceCounts(
                name=source.name,
                shards=len(shards[number]),
                counts=counts,
                notes=notes,
                faults=faults,
                per_pass=source.sample_count or _samples(table, number),
            )
        )
    return tuple(found)


def _samples(table: pa.Table, source: int) -> int:
    return pc.sum(table.filter(pc.equal(table["source"], source))["samples"]).as_py() or 0


def split_index(
    table: pa.Table, sources: Sequence[Source], shards: Sequence[Sequence[Shard]]
) -> tuple[ChunkIndex, ...]:
    """Returns the index of each source. Raises InputError if one has no usable sample."""
    table = table.filter(pc.greater(table["samples"], 0))
    table = table.sort_by([(name, "ascending") for name in ("source", "shard", "first_row")])
    columns = {name: table[name].fill_null(-1).to_numpy() for name in _NUMBERS}
    found: list[ChunkIndex] = []
    for number, source in enumerate(sources):
        own = columns["source"] == number
        index = ChunkIndex(tuple(shards[number]), *(columns[name][own] for name in _NUMBERS[1:]))
        if not index.total:
            raise InputError(
                f"sources.{number} ({source.name}): no usable sample in "
                f"{', '.join(source.pool.uri)}; check it with dfn-ray inspect"
            )
        found.append(index)
    return tuple(found)


def drawn_counts(index: ChunkIndex, count: int, seed: Sequence[int]) -> np.ndarray:
    """Returns the samples drawn per chunk: `count` in all, every sample with equal probability.

    Raises InputError if there are fewer.
    """
    if count > index.total:
        raise InputError(
            f"sample_count: need at most {index.total:,}, the number of samples, got {count:,}"
        )
    rng = np.random.default_rng(seed)
    return rng.multivariate_hypergeometric(
        index.samples.astype(np.int64), count, method="marginals"
    )
