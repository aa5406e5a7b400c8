"""Properties of every shard, whatever its content, and comparison of the ways to read it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, NoReturn

import pyarrow as pa

from dfn_ray.config import Pool
from dfn_ray.errors import ShardChangedError
from dfn_ray.pool import Shard, derive_uid, iter_chunks, read_chunk, read_rows
from dfn_ray.schema import SAMPLE_SCHEMA, SEVERAL_CAPTIONS_SCHEMA, Chunk, Reason
from tests.fuzz.case import require

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Readout:
    """Everything that reading a shard returned."""

    chunks: list[Chunk]
    rows: list[Row]

    @property
    def last(self) -> Chunk:
        """The chunk that carries the fault of the shard."""
        return self.chunks[-1]

    @property
    def outcomes(self) -> Counter[str]:
        """Counts of valid rows, of failed rows by reason, and of the shard's faults."""
        counts = Counter(row["reason"] or "ok" for row in self.rows)
        if self.last.fault is not None:
            counts[f"shard: {self.last.fault}"] += 1
        return counts

    def by_key(self) -> dict[str, list[Row]]:
        """The rows of each key."""
        rows: dict[str, list[Row]] = {}
        for row in self.rows:
            rows.setdefault(row["key"], []).append(row)
        return rows


def read_file(data: bytes, folder: Path, name: str, pool: Pool, rng: Random) -> Readout:
    """Writes a shard, reads it in every way, and checks the properties of every shard."""
    path = folder / name
    path.write_bytes(data)
    return read_shard(Shard(str(path), name, len(data)), pool, rng)


def read_shard(shard: Shard, pool: Pool, rng: Random) -> Readout:
    """Reads a shard in every way, and checks the properties of every shard."""
    chunks: list[Chunk] = []
    tables: list[pa.Table] = []
    for chunk, table in iter_chunks(shard, pool):
        chunks.append(chunk)
        tables.append(table)
    _check_chunks(shard, pool, chunks, tables)
    for table in tables:
        _check_held(table, pool)
    whole = pa.concat_tables(tables)
    readout = Readout(chunks=chunks, rows=whole.to_pylist())
    for row in readout.rows:
        _check_row(shard, row, pool)
    _check_skipping(shard, pool, rng, chunks, tables)
    _check_single_rows(shard, pool, rng, whole)
    return readout


def _check_chunks(shard: Shard, pool: Pool, chunks: list[Chunk], tables: list[pa.Table]) -> None:
    require(chunks, "no chunk at all")
    lasts = [chunk.last for chunk in chunks]
    require(lasts == [False] * (len(chunks) - 1) + [True], "the last chunk does not say so", lasts)
    due = 0
    for chunk, table in zip(chunks, tables, strict=True):
        require(chunk.shard == shard.uri, "a chunk names another shard", chunk)
        require(chunk.first_row == due, "chunks do not tile the shard", chunk, due)
        schema = SEVERAL_CAPTIONS_SCHEMA if pool.several_captions else SAMPLE_SCHEMA
        require(table.schema == schema, "a table has another schema", table.schema)
        require(table.num_rows == chunk.rows, "a chunk has other rows than it says", chunk)
        numbers = table.column("row").to_pylist()
        require(numbers == list(range(due, due + chunk.rows)), "rows are not 0..n-1", numbers)
        require(chunk.last or (chunk.rows and chunk.fault is None), "a fault amid a shard", chunk)
        require(chunk.fault is None or chunk.detail, "a fault without a word", chunk)
        table.validate(full=True)
        due += chunk.rows
    sizes = [chunk.bytes_read for chunk in chunks]
    require(min(sizes) >= 0, "a chunk has less than no bytes", sizes)
    require(sum(sizes) == shard.size_bytes, "bytes of the chunks do not add up", sizes, shard)


def _check_held(table: pa.Table, pool: Pool) -> None:
    """Checks that a chunk holds at most its share plus its last sample, which may have any size.

    Captions and metadata may exceed the share by a quarter. Metadata is serialised again, where a
    character can take six.
    """
    held = [
        len(row["image"] or b"")
        + sum(map(len, row["text"] or ""))
        + len(row["metadata"] or "") // 6
        for row in table.select(["image", "text", "metadata"]).to_pylist()
    ]
    require(sum(held[:-1]) <= pool.chunk_bytes * 5 // 4, "a chunk holds more than its share", held)


def _check_row(shard: Shard, row: Row, pool: Pool) -> None:
    failed = row["reason"] is not None
    require(not failed or row["reason"] in tuple(Reason), "an undeclared reason", row["reason"])
    require(row["status"] == ("failed" if failed else None), "status and reason disagree", row)
    require((row["image"] is None) == failed, "an image where there is a reason, or neither", row)
    require((row["text"] is None) == failed, "a caption where there is a reason, or neither", row)
    texts = row["text"] if pool.several_captions and not failed else [row["text"]]
    require(failed or (row["image"] and texts), "a good row is empty", row)
    require(failed or all(text.strip() for text in texts), "a caption is empty", row)
    require(isinstance(row["key"], str), "a row without a key", row)
    row["key"].encode()
    if pool.uid == "derive":
        require(row["uid"] == derive_uid(shard.name, row["key"]), "another uid than derived", row)
    require(
        len(row["uid"]) == 32 and not set(row["uid"]) - set("0123456789abcdef"), "a bad uid", row
    )
    if row["metadata"] is not None:
        metadata = json.loads(row["metadata"], parse_constant=_no_json)
        require(isinstance(metadata, dict), "metadata is no JSON object", row["metadata"])


def _no_json(constant: str) -> NoReturn:
    require(False, "metadata holds what is not JSON", constant)
    raise AssertionError


def _check_skipping(
    shard: Shard, pool: Pool, rng: Random, chunks: list[Chunk], tables: list[pa.Table]
) -> None:
    """Checks that skipping chunks changes no other, and that a single chunk reads the same."""
    skip = {chunk.first_row for chunk in chunks if rng.random() < 0.5}
    kept = [
        (chunk, table)
        for chunk, table in zip(chunks, tables, strict=True)
        if chunk.first_row not in skip
    ]
    last = chunks[-1].first_row if chunks[-1].first_row in skip else None
    again = list(iter_chunks(shard, pool, skip=skip, last=last))
    require(
        [chunk for chunk, _ in again] == [chunk for chunk, _ in kept],
        "skipping changes chunks",
        skip,
    )
    for (_, table), (chunk, other) in zip(again, kept, strict=True):
        require(table.equals(other), "skipping changes rows", skip, chunk)
    for chunk, table in rng.sample(list(zip(chunks, tables, strict=True)), min(4, len(chunks))):
        if chunk.rows:
            require(
                read_chunk(shard, pool, chunk).equals(table), "a chunk by itself differs", chunk
            )


def _check_single_rows(shard: Shard, pool: Pool, rng: Random, whole: pa.Table) -> None:
    """Checks that single rows equal those of a full read, and that absent rows raise."""
    wanted = sorted(rng.sample(range(whole.num_rows), rng.randint(0, whole.num_rows)))
    if wanted:
        got = pa.concat_tables(read_rows(shard, pool, wanted))
        require(got.equals(whole.take(wanted)), "rows by themselves differ", wanted)
    try:
        list(read_rows(shard, pool, [whole.num_rows]))
    except ShardChangedError:
        return
    require(False, "a row that is not there is read", whole.num_rows)
