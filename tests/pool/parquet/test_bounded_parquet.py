"""Parquet files written to take memory or time: many columns, and dictionaries of long values."""

from __future__ import annotations

import io
import tracemalloc
from random import Random
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.config import Pool
from dfn_ray.pool import iter_chunks
from dfn_ray.pool.parquet import pages
from dfn_ray.pool.parquet.footer import _selected_leaves
from dfn_ray.pool.parquet.pages import Leaf
from dfn_ray.pool.parquet.row_groups import RowGroup
from dfn_ray.pool.parquet.value_sizes import row_bytes
from tests.fuzz import arrow_values

MIB = 2**20


def parquet(columns: dict[str, object], **options) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table(columns), file, **options)
    return file.getvalue()


def wide(columns: int, rows: int, value: object) -> dict[str, object]:
    """Images and captions beside many columns of metadata."""
    others = {f"feature.{number}": [value] * rows for number in range(columns)}
    return {"image": [b"image"] * rows, "text": ["c"] * rows, **others}


def test_a_read_of_a_wide_file_looks_at_the_columns_that_it_meets(read, monkeypatch):
    columns, looks = 400, [0]

    def end(leaf: Leaf) -> int:
        looks[0] += 1
        return leaf.start + leaf.size

    monkeypatch.setattr(Leaf, "end", property(end))
    result = read(parquet(wide(columns, 2, 7)))
    assert set(result.reasons.values()) == {None}
    assert '"feature.399":7' in result.rows[0]["metadata"]
    assert looks[0] < 40 * columns


class Counted(str):
    """A name that counts its comparisons."""

    __slots__ = ()
    count = 0

    def __format__(self, form: str) -> str:
        Counted.count += 1
        return str(self)


class Schema:
    """The part of a Parquet schema that `_selected_leaves` uses."""

    def __init__(self, paths: list[str]) -> None:
        self._leaves = [SimpleNamespace(path=path) for path in paths]

    def __len__(self) -> int:
        return len(self._leaves)

    def column(self, place: int) -> SimpleNamespace:
        return self._leaves[place]


def test_each_name_is_looked_for_once():
    names = [Counted(f"feature.{number}") for number in range(500)]
    found = _selected_leaves(Schema([str(name) for name in names]), names)
    assert [name for _, name in found] == names
    assert Counted.count == len(names)


words = st.text("ab.-/\0", min_size=1, max_size=6)


@given(st.lists(words, max_size=12), st.lists(words, max_size=12, unique=True))
def test_a_leaf_is_part_of_the_first_name_that_its_path_begins_with(paths, names):
    expected = []
    for place, path in enumerate(paths):
        fits = (name for name in names if path == name or path.startswith(f"{name}."))
        if (name := next(fits, None)) is not None:
            expected.append((place, name))
    assert _selected_leaves(Schema(paths), names) == expected


def test_columns_of_too_large_pages_are_not_left_out_one_by_one_without_end(read, monkeypatch):
    monkeypatch.setattr(pages, "PAGE_BYTES", 10_000)
    passes = [0]
    one_pass = RowGroup._pass

    def counted(self, names, batch_rows):
        passes[0] += 1
        return one_pass(self, names, batch_rows)

    monkeypatch.setattr(RowGroup, "_pass", counted)
    result = read(parquet(wide(60, 2, "x" * 20_000), compression="zstd", use_dictionary=False))
    assert set(result.reasons.values()) == {None}
    assert result.last.notes == {"metadata_replaced": 2}
    assert passes[0] < 60  # of three readings


def test_a_long_caption_in_a_dictionary_is_not_held_for_every_row(put):
    rows = 200
    shard = put(
        parquet({"image": [b"image"] * rows, "text": ["c" * MIB] * rows}, compression="zstd"),
        "0.parquet",
    )
    tracemalloc.start()
    reasons = [
        reason
        for _, table in iter_chunks(shard, Pool(uri=(shard.uri,)))
        for reason in table.column("reason").to_pylist()
    ]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reasons == ["caption_too_long"] * rows
    assert peak < 32 * MIB


def test_a_long_key_in_a_dictionary_is_not_kept_for_every_row(read):
    long = ["k" * (6 * MIB) + str(n) for n in range(2)]
    keys = pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0], pa.int32()), long)
    rows = read(parquet({"image": [b"i"] * 4, "text": ["t"] * 4, "key": keys})).rows
    names = [row["key"] for row in rows]
    assert names[0] == names[3] != names[1]
    assert names[2] == "#2"
    assert all(len(name) < 400 for name in names)
    assert {row["reason"] for row in rows} == {None}


def lists_of(values: pa.Array, rows: int) -> pa.Array:
    size = len(values) // rows
    return pa.ListArray.from_arrays(pa.array(range(0, len(values) + 1, size), pa.int32()), values)


SMALL_IN_ARROW = {
    "booleans": lambda: lists_of(
        pa.array([True]).take(pa.nulls(8 * MIB, pa.int32()).fill_null(0)), 4
    ),
    "nulls": lambda: lists_of(pa.nulls(8 * MIB), 4),
    "dictionary": lambda: lists_of(
        pa.DictionaryArray.from_arrays(pa.nulls(400, pa.int32()).fill_null(0), ["v" * 100_000]), 4
    ),
    "nested booleans": lambda: lists_of(
        lists_of(pa.array([True]).take(pa.nulls(8 * MIB, pa.int32()).fill_null(0)), 64), 4
    ),
}


@pytest.mark.parametrize("kind", SMALL_IN_ARROW)
def test_metadata_count_as_what_they_are_in_json_not_in_arrow(put, kind):
    table = {"image": [b"image"] * 4, "text": ["c"] * 4, "m": SMALL_IN_ARROW[kind]()}
    shard = put(parquet(table, compression="zstd", row_group_size=4), "0.parquet")
    assert shard.size_bytes < MIB
    tracemalloc.start()
    [(chunk, rows)] = iter_chunks(shard, Pool(uri=(shard.uri,)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows.column("metadata").to_pylist() == ['{"m":null}'] * 4
    assert chunk.notes == {"metadata_replaced": 4}
    assert peak < 48 * MIB


def test_keys_of_lists_are_made_one_by_one(put):
    keys = SMALL_IN_ARROW["booleans"]()
    table = {"image": [b"image"] * 4, "text": ["c"] * 4, "key": keys}
    shard = put(parquet(table, compression="zstd"), "0.parquet")
    tracemalloc.start()
    for _, rows in iter_chunks(shard, Pool(uri=(shard.uri,), chunk_rows=1)):
        assert rows["key"][0].as_py().startswith("[true,true,")
        del rows
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 128 * MIB  # of one key: 16 as a list, 10 as JSON, and its pieces


@given(seed=st.integers(0, 2**32), start=st.integers(0, 8), count=st.integers(0, 8))
def test_what_a_row_takes_depends_on_its_own_value(seed, start, count):
    column = arrow_values.column(Random(seed), 9)
    sizes = row_bytes(column)
    assert row_bytes(column.slice(start, count)).tolist() == sizes[start : start + count].tolist()
    assert len(sizes) == 9
    assert min(sizes) >= 4


def test_long_keys_end_a_chunk_as_images_do(read):
    columns = {
        "image": [b"image"] * 600,
        "text": ["c"] * 600,
        "key": [f"{number:04}" * 1000 for number in range(600)],
    }
    result = read(parquet(columns), chunk_bytes=MIB, chunk_rows=1000)
    assert result.boundaries == [(0, 262), (262, 262), (524, 76)]
    assert [row["key"] for row in result.rows] == columns["key"]
