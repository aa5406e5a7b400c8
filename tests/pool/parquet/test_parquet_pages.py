"""Pages that are broken, too large or misdescribed cost at most their row group, and no memory."""

from __future__ import annotations

import io
import random
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.pool import derive_uid
from dfn_ray.pool.parquet.pages import Leaf, Limits, Walk
from dfn_ray.pool.parquet.row_groups import RowGroup
from dfn_ray.pool.parquet.thrift import BrokenHeaderError
from dfn_ray.run import parquet_bytes
from dfn_ray.schema import ShardFault

MIB = 2**20
UID = "0123456789abcdef" * 2
IMAGES = [random.Random(n).randbytes(2000) for n in range(30)]
TEXTS = [f"caption {n}" for n in range(30)]


def parquet(columns: dict[str, object] | pa.Table, **options) -> bytes:
    file = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, file, **options)
    return file.getvalue()


def damaged(data: bytes, what: bytes) -> bytes:
    """The file with 20 bytes zeroed in the middle of `what`."""
    at = data.index(what) + len(what) // 2
    return data[:at] + bytes(20) + data[at + 20 :]


def with_checksums(**more) -> bytes:
    columns = {"image": IMAGES, "text": TEXTS, **more}
    return parquet(columns, row_group_size=10, compression="none", write_page_checksum=True)


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_a_page_that_does_not_match_its_checksum_costs_its_row_group(read, use_dictionary):
    options = {"row_group_size": 10, "compression": "none", "use_dictionary": use_dictionary}
    data = parquet({"image": IMAGES, "text": TEXTS}, write_page_checksum=True, **options)
    result = read(damaged(data, IMAGES[13]), chunk_rows=4)
    assert [row["reason"] for row in result.rows] == (
        [None] * 10 + ["broken_row_group"] * 10 + [None] * 10
    )
    assert result.last.fault is None
    assert [row["image"] for row in result.rows[20:]] == IMAGES[20:]
    assert [row["uid"] for row in result.rows] == [
        derive_uid("00000.tar", str(n)) for n in range(30)
    ]


def test_checksums_are_passed_over_where_the_recipe_says_so(read):
    data = damaged(with_checksums(), IMAGES[13])
    rows = read(data, verify_page_checksums=False).rows
    assert {row["reason"] for row in rows} == {None}
    assert rows[13]["image"] != IMAGES[13]


def test_a_broken_page_header_costs_its_row_group(read):
    data = bytearray(parquet({"image": IMAGES, "text": TEXTS}, row_group_size=10))
    at = data.index(IMAGES[10][:50])
    data[at - 12 : at + 100] = bytes(112)
    result = read(bytes(data), chunk_rows=4)
    reasons = [row["reason"] for row in result.rows]
    assert reasons == [None] * 10 + ["broken_row_group"] * 10 + [None] * 10


def test_a_page_that_states_more_than_its_column_has_left_is_never_made_room_for(read):
    # Both sizes lie alike, so that it does not look like a bomb.
    size = varint(1_765_427_840)
    header = b"\x15\0\x15" + size + b"\x15" + size + b"\x2c\x15\x14\x15\0\x15\x06\x15\x06\0\0"
    data = bytearray(parquet({"image": IMAGES, "text": TEXTS}, row_group_size=10))
    column = pq.read_metadata(io.BytesIO(data)).row_group(1).column(0)
    start = column.dictionary_page_offset or column.data_page_offset
    data[start : start + len(header)] = header
    result = read(bytes(data), chunk_rows=4)
    reasons = [row["reason"] for row in result.rows]
    assert reasons == [None] * 10 + ["broken_row_group"] * 10 + [None] * 10
    leaf = Leaf("image", start, column.total_compressed_size, 10, False, None, "SNAPPY", 0, 1.0)
    walk = Walk(leaf, Limits(10, 1, {}), start)
    with pytest.raises(
        BrokenHeaderError, match=r"states 1,765,427,840 bytes, but 2\d,\d+ are left"
    ):
        walk.follow(start, bytes(data[start:]))


def test_rows_of_a_broken_row_group_keep_their_names_where_those_can_be_read(read):
    keys, uids = [f"k{n:028}" for n in range(30)], [f"{n:032x}" for n in range(30)]
    data = with_checksums(key=keys, uid=uids)
    rows = read(damaged(data, IMAGES[13])).rows
    assert [(row["key"], row["uid"]) for row in rows] == list(zip(keys, uids, strict=True))
    rows = read(damaged(data, keys[13].encode())).rows
    assert [row["key"] for row in rows[9:12]] == [keys[9], "#10", "#11"]
    assert rows[10]["uid"] == derive_uid("00000.tar", "#10")
    assert {row["reason"] for row in rows[10:20]} == {"broken_row_group"}


# What is a valid file of a few KiB, and takes hundreds of MB if it is read as it says.
BOMBS = {
    "one image": ("image_too_large", 1),
    "one caption": ("caption_too_long", 1),
    "one image in a row group of three": ("broken_row_group", 3),
    "one value of a dictionary in every row": ("image_too_large", 40),
    "one caption of a dictionary as every line": ("caption_too_long", 1),
    "one value of a dictionary of photos in every row": (None, 768),
    "a page for each row": ("image_too_large", 20),
    "one metadata value": (None, 3),
    "one metadata list": (None, 1),
}


def repeated(value: object, times: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array([0] * times, pa.int32()), pa.array([value]))


def bomb(name: str) -> pa.Table:
    """The table of a bomb."""
    large = 100 * MIB
    columns = {"image": [b"i"], "text": ["a cat"]}
    match name:
        case "one image":
            columns |= {"image": [bytes(large)]}
        case "one caption":
            columns |= {"text": ["a" * large]}
        case "one image in a row group of three":
            columns = {"image": [b"i", bytes(large), b"j"], "text": ["a"] * 3}
        case "one value of a dictionary in every row":
            columns = {"image": repeated(bytes(20 * MIB), 40), "text": ["a"] * 40}
        case "one value of a dictionary of photos in every row":
            photos = [random.Random(n).randbytes(30_000) for n in range(256)]
            places = pa.array([*range(257), *[256] * 511], pa.int32())
            images = pa.DictionaryArray.from_arrays(places, [*photos, bytes(5 * MIB)])
            columns = {"image": images, "text": ["a"] * len(places)}
        case "one caption of a dictionary as every line":
            lines = pa.ListArray.from_arrays([0, 10_000], repeated("a" * 60_000, 10_000))
            columns |= {"text": lines}
        case "a page for each row":
            columns = {"image": [bytes([n]) * 20 * MIB for n in range(20)], "text": ["a"] * 20}
        case "one metadata value":
            columns = {"image": [b"i"] * 3, "text": ["a"] * 3, "url": ["u" * large, "v", None]}
        case _:
            numbers = pa.array(bytearray(large), pa.uint8()).cast(pa.int32())
            columns |= {"boxes": pa.ListArray.from_arrays([0, large], numbers)}
    return pa.table(columns)


READ_BOMB = """
import resource, sys
from collections import Counter
from dfn_ray.config import Pool
from dfn_ray.pool import Shard, iter_chunks
lines = {"caption": "lines"} if "lines" in sys.argv else {}
pool = Pool(uri=(sys.argv[1],), max_image_bytes=10 * 2**20, **lines)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reasons = Counter()
for chunk, table in iter_chunks(Shard(sys.argv[1], "0.parquet", int(sys.argv[2])), pool):
    reasons.update(map(str, table["reason"].to_pylist()))
    assert chunk.fault is None, chunk
print(dict(reasons), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize("name", BOMBS)
def test_sizes_are_judged_before_anything_is_decompressed(tmp_path, name):
    path = tmp_path / "0.parquet"
    pages = {"use_dictionary": False, "write_batch_size": 1, "data_page_size": 1}
    pq.write_table(
        bomb(name), path, compression="zstd", **(pages if name == "a page for each row" else {})
    )
    arguments = [str(path), str(path.stat().st_size), *(["lines"] if "line" in name else [])]
    done = subprocess.run(
        [sys.executable, "-c", READ_BOMB, *arguments], capture_output=True, text=True, check=True
    )
    reasons, _, peak = done.stdout.strip().rpartition(" ")
    reason, rows = BOMBS[name]
    assert eval(reasons) == {str(reason): rows}
    assert int(peak) < 200, "MB above what the imports take"


def test_a_dictionary_of_photos_costs_no_small_batches(read, monkeypatch):
    photos = [random.Random(n).randbytes(30_000) for n in range(512)]
    data = parquet({"image": photos, "text": [f"caption {n}" for n in range(512)]})
    assert pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0).has_dictionary_page
    sizes = []
    one_pass = RowGroup._pass

    def counted(self, names, batch_rows):
        for batch in one_pass(self, names, batch_rows):
            sizes.append(batch.num_rows)
            yield batch

    monkeypatch.setattr(RowGroup, "_pass", counted)
    assert [row["image"] for row in read(data).rows] == photos
    assert set(sizes) == {256}


def test_a_metadata_page_that_is_too_large_costs_its_column_and_is_counted(read):
    columns = {"image": [b"i"] * 2, "text": ["a"] * 2, "url": ["u" * 70 * MIB, "v"], "n": [1, 2]}
    result = read(parquet(columns, compression="zstd"))
    assert [row["metadata"] for row in result.rows] == [
        '{"url":null,"n":1}',
        '{"url":null,"n":2}',
    ]
    assert result.last.notes == {"metadata_replaced": 2}


def varint(value: int) -> bytes:
    value = value << 1 if value >= 0 else (-value << 1) - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.parametrize("claim", [-1, 30, 10**6, 10**12])
@pytest.mark.parametrize("everywhere", [False, True])
def test_a_footer_that_states_other_numbers_of_rows_costs_the_shard(read, claim, everywhere):
    # 9,999 rows, whose number stands in the footer for the file, the row group and each column.
    data = parquet({"image": [b"i"] * 9999, "text": ["a"] * 9999})
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    footer = data[start:-8].replace(varint(9999), varint(claim), -1 if everywhere else 1)
    result = read(data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    if (claim, everywhere) == (30, True):  # no contradiction in the footer: the pages hold more
        assert [row["reason"] for row in result.rows] == ["broken_row_group"] * 30
    else:
        assert result.last.fault is ShardFault.UNREADABLE
        assert len(result.rows) <= 9999


def test_row_groups_that_share_their_pages_cost_the_shard(read):
    data = parquet({"image": IMAGES[:2], "text": TEXTS[:2]}, row_group_size=1)
    metadata = pq.ParquetFile(io.BytesIO(data)).metadata
    first, second = (metadata.row_group(n).column(0).dictionary_page_offset for n in (0, 1))
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    footer = data[start:-8].replace(varint(second), varint(first))
    result = read(data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    assert (result.rows, result.last.fault) == ([], ShardFault.UNREADABLE)


def test_files_of_our_own_carry_checksums_that_arrow_verifies():
    data = parquet_bytes(pa.table({"image": IMAGES}), compression="none")
    pq.read_table(io.BytesIO(data), page_checksum_verification=True)
    with pytest.raises(OSError, match="CRC"):
        pq.read_table(io.BytesIO(damaged(data, IMAGES[13])), page_checksum_verification=True)
