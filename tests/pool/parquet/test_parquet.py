from __future__ import annotations

import datetime
import decimal
import io
import json
import random
import re
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfn_ray.config import Pool
from dfn_ray.pool import Shard, derive_uid, iter_chunks, read_rows
from dfn_ray.schema import ShardFault

MIB = 2**20
UID = "0123456789abcdef" * 2


def parquet(columns: dict[str, object] | pa.Table, **options) -> bytes:
    file = io.BytesIO()
    table = columns if isinstance(columns, pa.Table) else pa.table(columns)
    pq.write_table(table, file, **options)
    return file.getvalue()


IMAGES = [b"i0", b"i1", b"i2"]
TEXTS = ["c0", "c1", "c2"]
BROKEN_UTF8 = pa.StringArray.from_buffers(
    1, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"caf\xe9")
)


@pytest.mark.parametrize("image", ["image", "jpg", "png", "webp", "jpeg"])
@pytest.mark.parametrize("text", ["text", "caption", "txt"])
def test_usual_columns_are_found(read, image, text):
    result = read(parquet({image: IMAGES, text: TEXTS}))
    assert [(row["image"], row["text"]) for row in result.rows] == list(
        zip(IMAGES, TEXTS, strict=True)
    )
    assert [row["uid"] for row in result.rows] == [
        derive_uid("00000.tar", str(n)) for n in range(3)
    ]
    assert [row["metadata"] for row in result.rows] == [None] * 3


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary(),
        pa.large_binary(),
        pa.binary(2),
        pa.struct([("bytes", pa.binary()), ("path", pa.string())]),
    ],
)
def test_images_may_have_any_binary_type(read, kind):
    values = [{"bytes": b, "path": "p"} for b in IMAGES] if pa.types.is_struct(kind) else IMAGES
    result = read(parquet({"image": pa.array([*values, None], kind), "text": [*TEXTS, "c"]}))
    assert [row["image"] for row in result.rows] == [*IMAGES, None]
    assert [row["reason"] for row in result.rows] == [None, None, None, "missing_image"]
    assert {row["metadata"] for row in result.rows} == {None}


@pytest.mark.parametrize(
    "kind",
    [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
)
def test_captions_may_have_any_string_type(read, kind):
    result = read(parquet({"image": IMAGES, "text": pa.array(TEXTS).cast(kind)}))
    assert [row["text"] for row in result.rows] == TEXTS


def test_a_hugging_face_image_with_a_path_alone_is_missing(read):
    images = [{"bytes": None, "path": "a.jpg"}, {"bytes": b"i", "path": None}]
    result = read(parquet({"image": images, "text": ["a", "b"]}))
    assert [row["reason"] for row in result.rows] == ["missing_image", None]


def test_img2datasets_parquet_output_is_read(read):
    columns = {
        "url": ["u0", "u1", "u2"],
        "key": ["000000000", "000000001", "000000002"],
        "status": ["success", "failed_to_download", "success"],
        "error_message": [None, "404", None],
        "width": pa.array([256, None, 256], pa.int32()),
        "exif": ["{}", None, "{}"],
        "sha256": ["aa", None, "bb"],
        "jpg": [b"i0", None, b"i2"],
        "txt": TEXTS,
    }
    rows = read(parquet(columns)).rows
    assert [row["reason"] for row in rows] == [None, "missing_image", None]
    assert [row["key"] for row in rows] == columns["key"]
    assert rows[0]["uid"] == derive_uid("00000.tar", "000000000")
    assert json.loads(rows[1]["metadata"]) == {
        "url": "u1",
        "status": "failed_to_download",
        "error_message": "404",
        "width": None,
        "exif": None,
        "sha256": None,
    }


def test_named_columns_go_before_usual_ones(read):
    data = parquet({"image": IMAGES, "text": TEXTS, "picture": [b"p"] * 3, "alt": ["a"] * 3})
    rows = read(data, image_column="picture", text_column="alt").rows
    assert {(row["image"], row["text"]) for row in rows} == {(b"p", "a")}


def test_a_null_caption_is_not_replaced_by_another_column(read):
    data = parquet({"image": IMAGES, "text": [*TEXTS[:2], None], "caption": ["other"] * 3})
    assert [row["reason"] for row in read(data).rows] == [None, None, "missing_caption"]


def test_a_usual_column_of_a_fitting_type_goes_before_one_that_does_not_fit(read):
    data = parquet({"image": ["a.jpg"] * 3, "jpg": IMAGES, "text": [1, 2, 3], "caption": TEXTS})
    rows = read(data).rows
    assert [(row["image"], row["text"]) for row in rows] == list(zip(IMAGES, TEXTS, strict=True))


@pytest.mark.parametrize(
    ("columns", "settings", "fault", "told"),
    [
        (
            {"url": TEXTS, "text": TEXTS},
            {},
            ShardFault.MISSING_COLUMN,
            "image, jpg.*found url, text",
        ),
        ({"image": IMAGES, "alt": TEXTS}, {}, ShardFault.MISSING_COLUMN, "found image, alt"),
        (
            {"image": IMAGES, "text": TEXTS},
            {"image_column": "pic"},
            ShardFault.MISSING_COLUMN,
            r"looked for pic; found image, text; set pool\.image_column",
        ),
        ({"image": TEXTS, "text": TEXTS}, {}, ShardFault.MISTYPED_COLUMN, "'image' is string"),
        ({"image": IMAGES, "text": [1, 2, 3]}, {}, ShardFault.MISTYPED_COLUMN, "'text' is int64"),
        (
            {"image": IMAGES, "text": TEXTS, "uid": [1, 2, 3]},
            {},
            ShardFault.MISTYPED_COLUMN,
            "'uid' is int64",
        ),
    ],
)
def test_a_column_that_is_missing_or_mistyped_is_the_fault_of_the_shard(
    read, columns, settings, fault, told
):
    result = read(parquet(columns), **settings)
    assert result.rows == []
    assert result.last.fault is fault
    assert re.search(told, result.last.detail)


def test_every_fault_of_a_row_costs_one_row(read):
    good = {"image": b"i", "text": "c", "uid": None}
    rows = [
        good,
        good | {"image": None},
        good | {"image": b""},
        good | {"image": bytes(1025)},
        good | {"uid": "xyz"},
        good | {"text": None},
        good | {"text": "c" * 101},
        good | {"text": "  "},
        good | {"uid": UID.upper()},
    ]
    result = read(parquet(pa.Table.from_pylist(rows)), max_image_bytes=1024, max_caption_bytes=100)
    assert [row["reason"] for row in result.rows] == [
        None,
        "missing_image",
        "empty_image",
        "image_too_large",
        "bad_uid",
        "missing_caption",
        "caption_too_long",
        "empty_caption",
        None,
    ]
    assert result.rows[-1]["uid"] == UID


def test_strings_that_are_not_utf8_cost_their_row_at_most(read):
    data = parquet(pa.table({"image": [b"i"], "text": BROKEN_UTF8, "url": BROKEN_UTF8}))
    (row,) = read(data).rows
    assert row["reason"] == "caption_not_utf8"
    assert json.loads(row["metadata"]) == {"url": "caf\N{REPLACEMENT CHARACTER}"}
    (row,) = read(parquet(pa.table({"image": [b"i"], "text": ["c"], "key": BROKEN_UTF8}))).rows
    assert (row["key"], row["reason"]) == (r"caf\xe9", None)


def test_metadata_holds_every_other_column_but_binary_ones(read):
    columns = {
        "image": [b"i"],
        "text": ["c"],
        "uid": [UID],
        "score": [float("nan")],
        "boxes": [[[0.5, float("inf")]]],
        "when": [datetime.datetime(2023, 1, 2, tzinfo=datetime.UTC)],
        "price": [decimal.Decimal("1.50")],
        "thumbnail": [b"t"],
        "nested": [[{"b": b"t"}]],
        "a.b": [7],
    }
    (row,) = read(parquet(columns)).rows
    assert json.loads(row["metadata"]) == {
        "uid": UID,
        "score": None,
        "boxes": [[0.5, None]],
        "when": "2023-01-02 00:00:00+00:00",
        "price": "1.50",
        "a.b": 7,
    }


def test_a_parquet_without_rows_is_empty(read):
    data = parquet(
        pa.table({"image": pa.array([], pa.binary()), "text": pa.array([], pa.string())})
    )
    assert read(data).last.fault is ShardFault.EMPTY


def test_columns_of_nulls_fail_row_by_row(read):
    result = read(parquet({"image": pa.nulls(2), "text": pa.nulls(2)}))
    assert [row["reason"] for row in result.rows] == ["missing_image"] * 2
    assert result.last.fault is None


@pytest.mark.parametrize("cut", [4, 100, -1, -9])
def test_a_cut_parquet_is_unreadable(read, cut):
    result = read(parquet({"image": IMAGES, "text": TEXTS})[:cut])
    assert (result.rows, result.last.fault) == ([], ShardFault.UNREADABLE)


@settings(deadline=None, max_examples=40)
@given(
    sizes=st.lists(st.sampled_from([0, 10, 500_000, 700_000]), max_size=12),
    limits=st.tuples(st.integers(1, 5), st.integers(1, 6)),
    data=st.data(),
)
def test_chunks_depend_on_rows_and_bytes_alone(read, put, sizes, limits, data):
    chunk_rows, group_rows = limits
    columns = {
        "image": pa.array([bytes([n]) * size for n, size in enumerate(sizes)], pa.binary()),
        "text": pa.array([str(n) for n in range(len(sizes))], pa.string()),
    }
    shard = put(parquet(columns, row_group_size=group_rows))
    cut = {"chunk_rows": chunk_rows, "chunk_bytes": MIB}
    whole = read(shard, **cut)
    assert [
        row["text"] for row in read(shard, **cut, max_image_bytes=2**30).rows if row["text"]
    ] == [str(n) for n, size in enumerate(sizes) if size]
    for first, rows in whole.boundaries[:-1]:
        assert rows == chunk_rows or sum(sizes[first : first + rows]) >= MIB
    assert sum(chunk.bytes_read for chunk in whole.chunks) == shard.size_bytes
    skip = data.draw(st.sets(st.sampled_from([first for first, _ in whole.boundaries])))
    some = read(shard, **whole.skipping(*skip), **cut)
    assert some.chunks == [chunk for chunk in whole.chunks if chunk.first_row not in skip]


def test_memory_is_bounded_by_a_chunk_not_by_a_row_group(tmp_path):
    path = tmp_path / "0.parquet"
    images = [random.Random(n).randbytes(100_000) for n in range(300)]
    # Arrow holds one page at a time; these are of 16 rows.
    pages = {"row_group_size": 300, "write_batch_size": 16, "use_dictionary": False}
    pq.write_table(pa.table({"image": images, "text": ["c"] * 300}), path, **pages)
    del images
    pool = Pool(uri=(str(path),), chunk_bytes=MIB)
    shard = Shard(str(path), "0.parquet", path.stat().st_size)
    next(iter_chunks(shard, pool))  # whatever is imported at first use does not count
    arrow = pa.default_memory_pool()
    before = arrow.bytes_allocated()
    peak = 0
    tracemalloc.start()
    for _ in iter_chunks(shard, pool):
        peak = max(peak, arrow.bytes_allocated() - before)
    _, python_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * MIB > python_peak


@pytest.mark.parametrize("name", ["flags", "key"])
def test_a_column_that_pyarrow_passes_over_costs_itself(read, name):
    """pyarrow 26 returns no row and no error for some lists that it wrote in tiny pages."""
    count = 4
    flags = pa.array([[True, False]] * count, pa.list_(pa.bool_()))
    columns = {"image": [b"i%d" % n for n in range(count)], "text": ["c"] * count, name: flags}
    columns["width"] = list(range(count))
    small = {"data_page_version": "2.0", "data_page_size": 1, "row_group_size": 1}
    data = parquet(columns, **small)
    alone = pq.ParquetFile(io.BytesIO(data)).iter_batches(columns=[name])
    assert [batch.num_rows for batch in alone] == [], "pyarrow reads it: this test is not needed"
    result = read(data)
    assert result.last.fault is None
    if name == "flags":
        assert [row["image"] for row in result.rows] == columns["image"]
        assert [row["metadata"] for row in result.rows] == [
            f'{{"flags":null,"width":{n}}}' for n in range(count)
        ]
        assert result.last.notes == {"metadata_replaced": count}
    else:  # rows without their names are no samples to keep, and cost no more than their row group
        assert [(row["key"], row["reason"]) for row in result.rows] == [
            (f"#{n}", "broken_row_group") for n in range(count)
        ]


def test_a_struct_that_pyarrow_cannot_put_together_costs_itself(read):
    """The same lists as a field of a struct raise ArrowInvalid."""
    count = 4
    flags = pa.array([[True, False]] * count, pa.list_(pa.bool_()))
    struct = pa.StructArray.from_arrays([pa.array(range(count)), flags], ["n", "flags"])
    columns = {"image": [b"i%d" % n for n in range(count)], "text": ["c"] * count, "about": struct}
    columns["width"] = list(range(count))
    data = parquet(columns, data_page_version="2.0", data_page_size=1, row_group_size=1)
    with pytest.raises(pa.ArrowInvalid):
        list(pq.ParquetFile(io.BytesIO(data)).iter_batches(columns=["about"]))
    result = read(data)
    assert [row["image"] for row in result.rows] == columns["image"]
    assert [row["metadata"] for row in result.rows] == [
        f'{{"about":null,"width":{n}}}' for n in range(count)
    ]
    assert result.last.notes == {"metadata_replaced": count}


def test_reading_rows_again_opens_only_their_row_groups(read, put):
    images = [random.Random(n).randbytes(5000) for n in range(40)]
    data = parquet({"image": images, "text": ["c"] * 40}, row_group_size=10)
    broken = bytearray(data)
    for first in (images[0], images[30]):
        at = data.index(first[:100])
        broken[at - 12 : at + 3000] = bytes(3012)
    shard = put(bytes(broken))
    reasons = [row["reason"] for row in read(shard).rows]
    assert reasons == ["broken_row_group"] * 10 + [None] * 20 + ["broken_row_group"] * 10
    pool = Pool(uri=(shard.uri,))
    rows = [r for table in read_rows(shard, pool, [12, 25]) for r in table.to_pylist()]
    assert [(row["row"], row["image"]) for row in rows] == [(12, images[12]), (25, images[25])]
