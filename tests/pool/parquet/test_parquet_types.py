"""Every Arrow type in Parquet, as metadata, caption, label and key, compared with DuckDB."""

from __future__ import annotations

import datetime
import decimal
import io
import json
import math
import uuid

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfn_ray.config import Pool
from dfn_ray.pool import derive_uid
from dfn_ray.pool.parquet.columns import Columns, columns_of
from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.schema import Note, ShardFault
from dfn_ray.untrusted.json_text import MAX_DEPTH

REPLACED = {Note.METADATA_REPLACED: 1}
YEAR_10000_US = 253_402_300_800 * 10**6
BROKEN_UTF8 = pa.StringArray.from_buffers(
    1, pa.py_buffer(b"\0\0\0\0\4\0\0\0"), pa.py_buffer(b"caf\xe9")
)


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def with_column(values: pa.Array) -> bytes:
    count = len(values)
    return parquet(pa.table({"image": [b"i"] * count, "text": ["a cat"] * count, "x": values}))


def metadata(result) -> list:
    assert {row["reason"] for row in result.rows} == {None}
    return [json.loads(row["metadata"])["x"] for row in result.rows]


# A value, and what the metadata hold for it; a second value that must come out beside an odd one.
ODD = {
    "date after 9999": (pa.array([2932897, 0], pa.date32()), ["10000-01-01", "1970-01-01"]),
    "date before 1": (pa.array([-719529, 0], pa.date32()), ["-0001-12-31", "1970-01-01"]),
    "time after 9999": (
        pa.array([YEAR_10000_US, 0], pa.timestamp("us")),
        ["10000-01-01 00:00:00.000000", "1970-01-01 00:00:00"],
    ),
    "unknown time zone": (
        pa.array([0, None], pa.timestamp("us", "Mars/Olympus")),
        ["1970-01-01 00:00:00.000000+00:00", None],
    ),
    "NaN in a map": (
        pa.array([[("a", math.nan)], [("a", 1.0)]], pa.map_(pa.string(), pa.float64())),
        [[["a", None]], [["a", 1.0]]],
    ),
    "infinity in a list of structs": (
        pa.array([[{"a": math.inf, "b": 1}], None]),
        [[{"a": None, "b": 1}], None],
    ),
    "half floats": (pa.array(np.array([np.inf, 1.5], np.float16)), [None, 1.5]),
    "UTF-8 in a list": (
        pa.ListArray.from_arrays([0, 2, 3], pa.concat_arrays([BROKEN_UTF8, pa.array(["b", "c"])])),
        [["caf\N{REPLACEMENT CHARACTER}", "b"], ["c"]],
    ),
    "UTF-8 in a struct": (
        pa.StructArray.from_arrays([pa.concat_arrays([BROKEN_UTF8, pa.array(["b"])])], ["a"]),
        [{"a": "caf\N{REPLACEMENT CHARACTER}"}, {"a": "b"}],
    ),
    "far date in a struct in a list": (
        pa.array(
            [[{"d": 2932897, "n": 1}], []],
            pa.list_(pa.struct([("d", pa.int32()), ("n", pa.int8())])),
        ).cast(pa.list_(pa.struct([("d", pa.date32()), ("n", pa.int8())]))),
        [[{"d": "10000-01-01", "n": 1}], []],
    ),
    "more than the metadata may hold": (pa.array(["u" * (2**20 + 1), "v"]), [None, "v"]),
}


@pytest.mark.parametrize("kind", ODD)
def test_a_value_that_json_cannot_hold_costs_itself_and_is_counted(read, kind):
    values, expected = ODD[kind]
    result = read(with_column(values))
    assert metadata(result) == expected
    assert result.last.notes == REPLACED


class Label(pa.ExtensionType):
    """An extension type that any pool may contain."""

    def __init__(self) -> None:
        super().__init__(pa.string(), "tests.label")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized) -> Label:
        return cls()


# A value of every type, and its JSON; `duckdb` if DuckDB's own JSON of the file is the same.
TYPES = {
    "null": (pa.array([None], pa.null()), None, ""),
    "bool": (pa.array([True]), True, "duckdb"),
    **{
        str(kind): (pa.array([limit], kind), limit, "duckdb")
        for kind, limit in {
            pa.int8(): -128,
            pa.int16(): -(2**15),
            pa.int32(): -(2**31),
            pa.int64(): -(2**63),
            pa.uint8(): 255,
            pa.uint16(): 2**16 - 1,
            pa.uint32(): 2**32 - 1,
            pa.uint64(): 2**64 - 1,
        }.items()
    },
    "float16": (pa.array(np.array([1.5], np.float16)), 1.5, ""),
    "float32": (pa.array([0.5], pa.float32()), 0.5, "duckdb"),
    "float64": (pa.array([1e300]), 1e300, "duckdb"),
    "decimal128": (pa.array([decimal.Decimal("-1.50")], pa.decimal128(38, 2)), "-1.50", ""),
    "decimal256": (pa.array([decimal.Decimal("9" * 70)], pa.decimal256(76, 0)), "9" * 70, ""),
    "date32": (pa.array([0], pa.date32()), "1970-01-01", "duckdb"),
    "date64": (pa.array([0], pa.date64()), "1970-01-01", "duckdb"),
    "time32": (pa.array([1], pa.time32("s")), "00:00:01", "duckdb"),
    "time64": (pa.array([1_000_000], pa.time64("us")), "00:00:01", "duckdb"),
    "timestamp[s]": (pa.array([0], pa.timestamp("s")), "1970-01-01 00:00:00", "duckdb"),
    "timestamp[ms]": (pa.array([0], pa.timestamp("ms")), "1970-01-01 00:00:00", "duckdb"),
    "timestamp[ns]": (pa.array([1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001", ""),
    "timestamp[us, UTC]": (
        pa.array([0], pa.timestamp("us", "UTC")),
        "1970-01-01 00:00:00+00:00",
        "",
    ),
    "duration": (pa.array([datetime.timedelta(1)]), "1 day, 0:00:00", ""),
    "string": (pa.array(["ü"]), "ü", "duckdb"),
    "large_string": (pa.array(["ü"], pa.large_string()), "ü", "duckdb"),
    "string_view": (pa.array(["ü"], pa.string_view()), "ü", "duckdb"),
    "dictionary": (pa.array(["ü"]).dictionary_encode(), "ü", "duckdb"),
    "json": (pa.array(['{"a":1}'], pa.json_()), '{"a":1}', ""),
    "uuid": (pa.array([b"\1" * 16], pa.uuid()), str(uuid.UUID(bytes=b"\1" * 16)), "duckdb"),
    "extension": (pa.ExtensionArray.from_storage(Label(), pa.array(["ü"])), "ü", "duckdb"),
    "list": (pa.array([[1, None]]), [1, None], "duckdb"),
    "large_list": (pa.array([["a"]], pa.large_list(pa.string())), ["a"], "duckdb"),
    "list_view": (pa.array([["a"]], pa.list_view(pa.string())), ["a"], "duckdb"),
    "fixed_size_list": (pa.array([[1, 2]], pa.list_(pa.int64(), 2)), [1, 2], "duckdb"),
    "struct": (pa.array([{"a": 1, "b": [{"c": None}]}]), {"a": 1, "b": [{"c": None}]}, ""),
    "map": (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), [["a", 1]], ""),
}


@pytest.mark.parametrize("kind", TYPES)
def test_metadata_of_every_type_hold_what_duckdb_reads(read, tmp_path, kind):
    values, expected, reader = TYPES[kind]
    data = with_column(values)
    result = read(data)
    assert metadata(result) == [expected]
    assert result.last.notes == {}
    if reader:
        (tmp_path / "0.parquet").write_bytes(data)
        query = f"select to_json(x) from read_parquet('{tmp_path / '0.parquet'}')"
        assert json.loads(duckdb.sql(query).fetchall()[0][0]) == expected


@settings(deadline=None, max_examples=30)
@given(data=st.data())
def test_no_value_is_raised_by_whatever_it_is_nested_in(read, data):
    kinds = [pa.date32(), pa.timestamp("us"), pa.timestamp("us", "Nowhere"), pa.duration("us")]
    number = data.draw(st.integers(-(2**62), 2**62))
    kind = data.draw(st.sampled_from(kinds))
    storage = pa.int32() if kind == pa.date32() else pa.int64()
    value = pa.array([number % 2**31 if kind == pa.date32() else number], storage).view(kind)
    for layer in data.draw(st.lists(st.sampled_from(["list", "struct", "map"]), max_size=3)):
        if layer == "list":
            value = pa.ListArray.from_arrays([0, 1], value)
        elif layer == "struct":
            value = pa.StructArray.from_arrays([value], ["a"])
        else:
            value = pa.MapArray.from_arrays([0, 1], pa.array(["k"]), value)
    assert len(metadata(read(with_column(value)))) == 1


def text_kinds() -> dict[str, pa.DataType]:
    plain = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()]
    plain += [pa.binary_view(), pa.binary(5), pa.json_(), Label()]
    return {str(kind): kind for kind in plain}


TEXTS = ["a cat", "a dog", None]


def of_kind(kind: pa.DataType, values: list[str | None]) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values))
    return pa.array([value and value.encode() for value in values], pa.binary()).cast(kind)


@pytest.mark.parametrize("name", text_kinds())
@pytest.mark.parametrize("as_dictionary", [False, True])
def test_captions_of_every_type_that_holds_text_are_read(read, name, as_dictionary):
    column = of_kind(text_kinds()[name], TEXTS)
    if as_dictionary:
        if "view" in name or "extension" in name:
            pytest.skip("no dictionaries of these in pyarrow")
        column = column.dictionary_encode()
    rows = read(parquet(pa.table({"image": [b"i"] * 3, "text": column}))).rows
    assert [row["text"] for row in rows] == TEXTS
    assert [row["reason"] for row in rows] == [None, None, "missing_caption"]


@pytest.mark.parametrize("kind", [pa.string(), pa.string_view(), pa.binary(), pa.binary(5)])
@pytest.mark.parametrize(
    "around", [pa.list_, pa.large_list, lambda kind: pa.list_(kind, 3), pa.list_view]
)
@pytest.mark.parametrize("caption", ["lines", "list"])
def test_lists_of_every_type_that_holds_text_are_captions(read, kind, around, caption):
    value = TEXTS if kind in (pa.string(), pa.string_view()) else [b"a cat", b"a dog", None]
    column = pa.array([value, None], around(kind))
    rows = read(parquet(pa.table({"image": [b"i"] * 2, "text": column})), caption=caption).rows
    assert [row["text"] for row in rows] == [["a cat", "a dog"], None]


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (pa.array([7.0, 7.5, math.nan, None, -1.0, math.inf, 1e12]), "7 ! - - ! ! !"),
        (pa.array([7.0, 7.5], pa.float32()), "7 !"),
        (pa.array(np.array([7], np.float16)), "7"),
        (pa.array([decimal.Decimal("7.00"), decimal.Decimal("7.50"), None]), "7 ! -"),
        (pa.array([7, 255, None], pa.uint8()), "7 255 -"),
        (pa.array([-1, 2**62]), "! !"),
        (pa.array(["7", " 08", "x", None]), "7 8 ! -"),
        (pa.array([b"7", b"\xff"]), "7 ?"),
        (pa.array([7, 7, None]).dictionary_encode(), "7 7 -"),
    ],
)
def test_labels_of_every_type_are_the_number_they_stand_for(read, column, labels):
    rows = read(parquet(pa.table({"image": [b"i"] * len(column), "cls": column})), caption="label")
    marks = {"bad_label": "!", "missing_caption": "-", "caption_not_utf8": "?"}
    assert " ".join(row["text"] or marks[row["reason"]] for row in rows.rows) == labels


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([b"k1", b"caf\xe9"]), ["k1", r"caf\xe9"]),
        (pa.array([b"k1", b"k\xe9"]).dictionary_encode(), ["k1", r"k\xe9"]),
        (pa.array([{"a": 1}, {"a": None}]), ['{"a":1}', '{"a":null}']),
        (pa.array([["a", "ü"], []]), ['["a","ü"]', "[]"]),
        (pa.array([1, None]), ["1", "#1"]),
        (pa.array(["1", None]), ["1", "#1"]),
        (pa.nulls(2), ["#0", "#1"]),
        (pa.array(["ü", ""]), ["ü", ""]),
        (pa.array([2932897, 0], pa.date32()), ["10000-01-01", "1970-01-01"]),
    ],
)
def test_keys_of_every_type_are_text_without_python_in_it(read, column, expected):
    rows = read(parquet(pa.table({"image": [b"i"] * 2, "text": ["a"] * 2, "key": column}))).rows
    assert [row["key"] for row in rows] == expected
    assert [row["uid"] for row in rows] == [derive_uid("00000.tar", key) for key in expected]


@pytest.mark.parametrize(
    "kind",
    [
        pa.binary_view(),
        pa.struct([("bytes", pa.binary_view()), ("path", pa.string_view())]),
        pa.struct([("bytes", pa.large_binary()), ("path", pa.string())]),
        pa.struct([("path", pa.string()), ("bytes", pa.binary())]),
        pa.struct([("bytes", pa.null()), ("path", pa.string())]),
        pa.struct([("path", pa.string())]),
    ],
)
def test_images_of_every_layout_are_read_and_a_path_alone_is_missing(read, kind):
    holds = not pa.types.is_struct(kind) or any(
        field.name == "bytes" and not pa.types.is_null(field.type) for field in kind
    )
    value = {"path": "a.jpg"} | ({"bytes": b"i"} if holds else {})
    images = pa.array([value if pa.types.is_struct(kind) else b"i", None], kind)
    rows = read(parquet(pa.table({"image": images, "text": ["a"] * 2}))).rows
    first = None if holds else "missing_image"
    assert [row["reason"] for row in rows] == [first, "missing_image"]
    assert rows[0]["image"] == (b"i" if holds else None)


def doubled(name: str, extra: pa.Array) -> bytes:
    columns = {"image": pa.array([b"i"] * 2), "text": pa.array(["a"] * 2)}
    names = [*columns, name, *([] if name in columns else [name])]
    return parquet(
        pa.Table.from_arrays([*columns.values(), *[extra] * (len(names) - 2)], names=names)
    )


def test_two_metadata_columns_of_one_name_are_both_kept(read):
    table = pa.Table.from_arrays(
        [
            pa.array([b"i"]),
            pa.array(["a"]),
            pa.array([1]),
            pa.array([b"raw"]),
            pa.array([3]),
            pa.array([4]),
        ],
        names=["image", "text", "width", "width", "width", "width#3"],
    )
    (row,) = read(parquet(table)).rows
    assert json.loads(row["metadata"]) == {"width": 1, "width#3#": 3, "width#3": 4}


@pytest.mark.parametrize("name", ["image", "text", "key", "uid"])
def test_two_columns_of_one_name_are_a_fault_that_says_so_where_one_must_count(read, name):
    extra = pa.array([b"i"] * 2) if name == "image" else pa.array(["a"] * 2)
    result = read(doubled(name, extra))
    assert result.last.fault is ShardFault.MISTYPED_COLUMN
    assert f"2 columns are named {name!r}" in result.last.detail


def test_bytes_are_never_metadata(read):
    columns = {
        "thumbnail": [b"t"],
        "nested": [[{"b": b"t"}]],
        "named": pa.array([b"t"]).dictionary_encode(),
    }
    (row,) = read(parquet(pa.table({"image": [b"i"], "text": ["a"], **columns}))).rows
    assert row["metadata"] is None


def struct_of(*fields: tuple[str, pa.Array]) -> pa.StructArray:
    return pa.StructArray.from_arrays(
        [values for _, values in fields],
        fields=[pa.field(name, values.type) for name, values in fields],
    )


ONES, TWOS, IMAGES = pa.array([1, 1]), pa.array([2, 2]), pa.array([b"i", b"i"])


def test_fields_of_one_name_in_a_struct_are_told_apart_as_columns_are(read):
    twice = struct_of(
        ("a", ONES), ("a", TWOS), ("a#2", ONES), ("b", struct_of(("c", ONES), ("c", TWOS)))
    )
    result = read(with_column(pa.ListArray.from_arrays([0, 1, 2], twice)))
    expected = {"a": 1, "a#2#": 2, "a#2": 1, "b": {"c": 1, "c#2": 2}}
    assert metadata(result) == [[expected], [expected]]
    assert result.last.notes == {Note.METADATA_REPLACED: 2}


def test_keys_that_differ_in_one_of_two_fields_of_one_name_are_two_keys(read):
    key = struct_of(("a", pa.array([1, 2])), ("a", ONES))
    columns = {"image": IMAGES, "text": pa.array(["a", "b"]), "key": key}
    rows = read(parquet(pa.table(columns))).rows
    assert len({row["key"] for row in rows}) == len({row["uid"] for row in rows}) == 2


@pytest.mark.parametrize(
    "image",
    [
        struct_of(("bytes", IMAGES), ("bytes", IMAGES)),
        struct_of(("bytes", IMAGES), ("bytes", IMAGES), ("path", IMAGES)),
        struct_of(("path", IMAGES), ("path", IMAGES)),
    ],
)
def test_images_in_a_struct_with_two_fields_for_them_are_a_fault_of_the_column(read, image):
    result = read(parquet(pa.table({"image": image, "text": ["a", "b"]})))
    assert (result.rows, result.last.fault) == ([], ShardFault.MISTYPED_COLUMN)


NAMES = ("image", "text", "key", "uid", "m", "m.a", "bytes")


@settings(deadline=None, max_examples=60)
@given(names=st.lists(st.sampled_from(NAMES), max_size=5), data=st.data())
def test_no_two_names_that_are_equal_raise(read, names, data):
    def column(name: str) -> pa.Array:
        if name in ("image", "text", "uid", "key") and data.draw(st.booleans()):
            return IMAGES
        inner = data.draw(st.lists(st.sampled_from(("a", "bytes", "path")), min_size=1, max_size=3))
        return struct_of(*((name, data.draw(st.sampled_from((ONES, IMAGES)))) for name in inner))

    names = ["image", "text", *names]
    arrays = [IMAGES, pa.array(["a", "b"]), *map(column, names[2:])]
    result = read(parquet(pa.Table.from_arrays(arrays, names=names)))
    assert len(result.rows) == 2 or result.last.fault == ShardFault.MISTYPED_COLUMN


def nested_type(depth: int) -> pa.DataType:
    kind = pa.int64()
    for level in range(depth - 1):
        kind = pa.list_(kind) if level % 2 else pa.struct([("a", kind)])
    return kind


def test_a_column_nested_too_deeply_ends_its_file_by_a_fault():
    def columns(depth: int) -> Columns:
        fields = {"image": pa.binary(), "text": pa.string(), "m": nested_type(depth)}
        return columns_of(pa.schema(fields), Pool(uri=("x",)))

    assert [column.label for column in columns(MAX_DEPTH).metadata] == ["m"]
    for depth in (MAX_DEPTH + 1, 400):
        with pytest.raises(ShardDamageError, match="nested too deeply"):
            columns(depth)


def test_whatever_depth_arrow_reads_is_metadata_of_a_row_that_is_read_again(read):
    for depth in (40, 60, 90, 99, 120):
        kind = pa.int64()
        for _ in range(depth - 1):
            kind = pa.struct([("a", kind)])
        result = read(with_column(pa.array([None], kind)))
        if result.last.fault is None:
            assert metadata(result) == [None]
        else:
            assert depth >= 99
            assert result.last.fault == ShardFault.UNREADABLE
