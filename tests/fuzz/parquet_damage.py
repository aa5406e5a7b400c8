"""Damaged Parquet files: other row groups are complete, rows add up, page checksums are trusted."""

from __future__ import annotations

import functools
import io
from collections import Counter
from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.config import Pool
from tests.fuzz import odd_text
from tests.fuzz.case import Case, require
from tests.fuzz.mutate import mutate
from tests.fuzz.shards import Row, read_file

CODECS = ("none", "snappy", "gzip", "zstd", "brotli", "lz4")
_BOMB_BYTES = 96 * 2**20
"""Size of one image of zeros: above `pool.max_image_bytes`, some KiB in the file."""


def damaged_file(rng: Random, pool: Pool) -> Case:
    """A file of plain columns with one damage, mostly in the pages of one row group."""
    rows, per_group = rng.choice(((12, 3), (20, 5), (6, 1)))
    images = [rng.randbytes(rng.randint(20, 400)) for _ in range(rows)]
    texts = [f"caption {number} {odd_text.word(rng)}" for number in range(rows)]
    table = pa.table({"image": images, "text": texts, "n": list(range(rows)), "unread": images})
    checksum = rng.random() < 0.6
    file = io.BytesIO()
    pq.write_table(
        table,
        file,
        row_group_size=per_group,
        compression=rng.choice(CODECS),
        write_page_checksum=checksum,
        use_dictionary=rng.random() < 0.3,
        data_page_version=rng.choice(("1.0", "2.0")),
        data_page_size=rng.choice((200, 2**20)),
    )
    whole = file.getvalue()
    group, column, region = _pages(rng, whole) if rng.random() < 0.75 else (None, None, None)
    if region is not None and rng.random() < 0.3:
        region = region[0], min(region[0] + 30, region[1])  # the header of a page
    damage = mutate(rng, whole, region)
    if not damage.in_place:
        group = None
    seed = rng.getrandbits(64)

    def check(folder: Path) -> Counter[str]:
        readout = read_file(damage.data, folder, "0.parquet", pool, Random(seed))
        if damage.cut:
            require(readout.last.fault is not None, "a file that is cut off is a good shard")
        if group is not None and column is not None:
            hit = range(group * per_group, (group + 1) * per_group) if column < 3 else range(0)
            require(
                len(readout.rows) == rows,
                "rows of a damaged row group are not accounted for",
                readout.last,
            )
            for row, image, text in zip(readout.rows, images, texts, strict=True):
                _check_beside(row, image, text, hit=row["row"] in hit, checksum=checksum)
        return readout.outcomes

    note = f"damaged row group {group}, column {column}, checksums {checksum}: {damage.note}"
    return Case(valid=False, note=note, files={"0.parquet": damage.data}, check=check)


def _pages(rng: Random, data: bytes) -> tuple[int, int, tuple[int, int]]:
    """A row group, one of its columns, and their range in the file."""
    footer = pq.read_metadata(io.BytesIO(data))
    group, column = rng.randrange(footer.num_row_groups), rng.randrange(4)
    chunk = footer.row_group(group).column(column)
    start = min(
        offset for offset in (chunk.dictionary_page_offset, chunk.data_page_offset) if offset
    )
    return group, column, (start, start + chunk.total_compressed_size)


def _check_beside(row: Row, image: bytes, text: str, *, hit: bool, checksum: bool) -> None:
    """Checks that rows of other row groups are complete.

    With checksums, those of the damaged one are complete too or have a reason.
    """
    if not hit:
        require(row["reason"] is None, "an undamaged row group is lost", row)
    if row["reason"] is None and (checksum or not hit):
        require(
            row["image"] == image,
            "damaged bytes pass a page checksum" if hit else "other bytes",
            row,
        )
        require(
            row["text"] == text,
            "a damaged caption passes a page checksum" if hit else "other text",
            row,
        )


def bomb(pool: Pool) -> Case:
    """One image of zeros that is small only in the file."""

    @functools.cache
    def data() -> bytes:
        file = io.BytesIO()
        table = pa.table(
            {"image": pa.array([b"1", bytes(_BOMB_BYTES), b"3"]), "text": ["a", "b", "c"]}
        )
        pq.write_table(table, file, compression="zstd", use_dictionary=False, row_group_size=1)
        return file.getvalue()

    content = data()

    def check(folder: Path) -> Counter[str]:
        readout = read_file(content, folder, "0.parquet", pool, Random(0))
        require(len(readout.rows) == 3, "rows beside a bomb are lost", readout.last)
        require(readout.rows[1]["reason"], "an image beyond the limit is good")
        require(
            [readout.rows[0]["image"], readout.rows[2]["image"]] == [b"1", b"3"],
            "neighbours of a bomb are lost",
        )
        return readout.outcomes

    return Case(
        valid=True, note="96 MiB of zeros as an image", files={"0.parquet": content}, check=check
    )
