"""Parquet files that are written to take memory or time: wide ones, and dictionaries of long values."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.config import Pool
from dfn_ray.schema import Reason
from tests.fuzz.case import Case, require
from tests.fuzz.shards import read_file


def hostile_file(rng: Random, pool: Pool) -> Case:
    """A file whose rows are good, but for long captions; keys may be long, metadata wide."""
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
