"""Parquet files written to take memory or time, and encrypted ones."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.config import Pool
from dfn_ray.schema import Reason
from dfn_ray.testing.hostile_parquet import encrypted_parquet
from tests.fuzz.case import Case, require
from tests.fuzz.shards import read_file


def hostile_file(rng: Random, pool: Pool) -> Case:
    """A file of valid rows, except long captions; keys may be long, metadata wide."""
    rows = rng.randint(1, 20)
    images = [rng.randbytes(20) for _ in range(rows)]
    caption = rng.choice(("c", "c", "c" * 2**18))
    columns: dict[str, object] = {"image": images, "text": [caption] * rows}
    if rng.random() < 0.3:
        columns["key"] = ["k" * rng.choice((1, 2**20))] * rows
    stem = rng.choice(("feature.{}", "{}", "a{}.b.c", "a" + ".b" * 500 + ".{}"))
    for number in range(rng.choice((0, 100, 800))):
        columns[stem.format(number)] = [number] * rows
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd")
    due = Reason.CAPTION_TOO_LONG if len(caption) > pool.max_caption_bytes else None
    seed = rng.getrandbits(64)

    def check(folder: Path) -> Counter[str]:
        readout = read_file(file.getvalue(), folder, "0.parquet", pool, Random(seed))
        require(readout.last.fault is None, "a hostile file is a bad shard", readout.last.detail)
        require(
            [row["reason"] for row in readout.rows] == [due] * rows, "a row ends otherwise", due
        )
        return readout.outcomes

    note = f"hostile file of {len(columns)} columns, captions of {len(caption)}"
    return Case(valid=False, note=note, files={"0.parquet": file.getvalue()}, check=check)


def encrypted_file(rng: Random, pool: Pool) -> Case:
    """A file with encrypted columns or footer: valid without them, or a bad shard."""
    rows = rng.randint(1, 20)
    columns = {"image": [b"i"] * rows, "text": ["c"] * rows, "a": [1] * rows, "b": [[2]] * rows}
    hidden = rng.sample(["image", "text", "a", "b.list.element"], rng.randint(1, 2))
    plain = rng.random() < 0.7
    order = rng.sample(list(columns), len(columns))
    table = pa.table({name: columns[name] for name in order})
    data = encrypted_parquet(table, hidden, plain_footer=plain)
    seed = rng.getrandbits(64)

    def check(folder: Path) -> Counter[str]:
        readout = read_file(data, folder, "0.parquet", pool, Random(seed))
        if plain and not {"image", "text"}.intersection(hidden):
            require(len(readout.rows) == rows, "rows are lost", readout.last)
            lost = [row["metadata"] for row in readout.rows if "null" not in row["metadata"]]
            require(not lost, "encrypted metadata have values", lost)
        else:
            require("encrypted" in readout.last.detail, "another fault", readout.last.detail)
        return readout.outcomes

    note = f"encrypted {hidden}, plain footer {plain}, of {order}"
    return Case(valid=False, note=note, files={"0.parquet": data}, check=check)


def small_lists(rng: Random, pool: Pool) -> Case:
    """Lists of a million values that take hardly a byte in Arrow: dropped from valid rows."""
    rows, size = rng.randint(1, 4), 2**20
    inner = rng.choice((pa.nulls(rows * size), pa.nulls(rows * size, pa.bool_()).fill_null(True)))
    offsets = pa.array(range(0, len(inner) + 1, size), pa.int32())
    columns = {
        "image": [b"i"] * rows,
        "text": ["c"] * rows,
        "m": pa.ListArray.from_arrays(offsets, inner),
    }
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, compression="zstd")
    seed = rng.getrandbits(64)

    def check(folder: Path) -> Counter[str]:
        readout = read_file(file.getvalue(), folder, "0.parquet", pool, Random(seed))
        found = [row["metadata"] for row in readout.rows]
        require(found == ['{"m":null}'] * rows, "a million values are metadata", len(str(found)))
        return readout.outcomes

    note = f"lists of {size:,} {inner.type}"
    return Case(valid=True, note=note, files={"0.parquet": file.getvalue()}, check=check)
