"""Parquet files of strangers: none runs code or ends the process, and no import changes them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.config import Pool
from dfn_ray.pool import Shard
from dfn_ray.pool.chunking import RowSelection
from dfn_ray.pool.examination import ReadOutcome, read_in_fresh_process
from dfn_ray.report.subgroups import read_subgroups
from dfn_ray.run.sealed_parquet import opened_parquet as opened_part
from dfn_ray.run.sealed_parquet import parquet_bytes, verified_parquet
from dfn_ray.schema import ShardFault
from dfn_ray.testing.hostile_parquet import (
    LethalType,
    encrypted_parquet,
    lethal_array,
    lethal_type_registered,
)
from dfn_ray.untrusted.parquet_files import open_parquet, read_footer

ROWS = 2


@pytest.fixture(autouse=True)
def known_to_arrow():
    with lethal_type_registered():
        yield


def lethal() -> pa.Array:
    return lethal_array(pa.array([b"\x80\x04.", b"x"]))


def lists() -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), lethal())


AROUND = {
    "none": lethal,
    "list": lists,
    "large_list": lambda: pa.LargeListArray.from_arrays(pa.array([0, 1, 2]), lethal()),
    "fixed_size_list": lambda: pa.FixedSizeListArray.from_arrays(lethal(), 1),
    "struct": lambda: pa.StructArray.from_arrays([lethal()], ["a"]),
    "map": lambda: pa.MapArray.from_arrays([0, 1, 2], pa.array(["a", "b"]), lethal()),
    "map_key": lambda: pa.MapArray.from_arrays([0, 1, 2], lethal(), pa.array([1, 2])),
    "list_in_struct": lambda: pa.StructArray.from_arrays([lists()], ["a"]),
    "extension_of_list": lambda: lethal_array(lists()),
}


def file_of(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


def table_with(**columns: object) -> pa.Table:
    return pa.table({"image": [b"a", b"b"], "text": ["x", "y"]} | columns)


@pytest.mark.parametrize("name", ["key", "emb", "image", "text", "uid"])
@pytest.mark.parametrize("around", AROUND)
def test_no_registered_type_is_built_wherever_it_stands(read, name, around):
    read(file_of(table_with(**{name: AROUND[around]()})))
    assert not LethalType.built


def test_values_of_a_registered_type_are_those_that_are_stored(read):
    tensors = lethal_array(pa.array([[1.0, 2.0], [3.0, 4.0]]))
    keys = lethal_array(pa.array(["k", "l"]))
    result = read(file_of(table_with(emb=tensors, key=keys, pickled=lethal())))
    assert set(result.reasons.values()) == {None}
    assert [row["key"] for row in result.rows] == ["k", "l"]
    found = [json.loads(row["metadata"]) for row in result.rows]
    assert found == [{"emb": [1.0, 2.0]}, {"emb": [3.0, 4.0]}]


def in_a_fresh_process(data: bytes, folder: Path) -> ReadOutcome:
    """The outcome of reading a file in a process that registers no types, and that may die."""
    path = folder / "0.parquet"
    path.write_bytes(data)
    return read_in_fresh_process(
        Shard(str(path), path.name, len(data)), Pool(uri=(str(path),)), RowSelection()
    )


def test_a_fresh_process_reads_the_same_types(read, tmp_path):
    data = file_of(table_with(emb=lethal_array(pa.array([[1.0], [2.0]]))))
    verdict = in_a_fresh_process(data, tmp_path)
    assert (verdict.row, verdict.error) == (len(read(data).rows), "")


def test_parquets_own_types_stay_what_they_are(read):
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"a" * 16, None], pa.binary(16)))
    zoned = pa.array([0, 1], pa.timestamp("ms", "Asia/Tokyo"))
    others = {"u": uuids, "t": zoned, "d": pa.array(["v", "w"]).dictionary_encode()}
    rows = read(file_of(table_with(**others, lethal=lethal()))).rows
    assert [json.loads(row["metadata"]) for row in rows] == [
        {"u": "61616161-6161-6161-6161-616161616161", "t": "1970-01-01 09:00:00+09:00", "d": "v"},
        {"u": None, "t": "1970-01-01 09:00:00.001000+09:00", "d": "w"},
    ]


KEY = b"\x18\x0cARROW:schema"
"""The first field of a pair: binary, 12 bytes."""
ODD_KEYS = {
    "long form": b"\x08\x02\x0cARROW:schema",
    "65537 as 16 bits": b"\x08\x82\x80\x08\x0cARROW:schema",
    "long varint": b"\x18\x8c\x80\x00ARROW:schema",
    "another key before": b"\x18\x01x\x08\x02\x0cARROW:schema",
    "another key behind": b"\x18\x0cARROW:schema\x08\x02\x01x",
    "an unknown field before": b"\x09\x12\x1c\x16\x02\x16\x04\x00\x08\x02\x0cARROW:schema",
}


def with_footer(data: bytes, old: bytes, new: bytes) -> bytes:
    length = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - length : -8]
    assert footer.count(old) == 1
    footer = footer.replace(old, new)
    return data[: -8 - length] + footer + len(footer).to_bytes(4, "little") + b"PAR1"


@pytest.mark.parametrize("name", ODD_KEYS)
def test_no_spelling_of_a_footer_gets_a_type_past(name):
    data = with_footer(file_of(table_with(emb=lethal())), KEY, ODD_KEYS[name])
    try:
        taken_by_arrow = isinstance(pq.read_schema(io.BytesIO(data)).field("emb").type, LethalType)
    except (pa.ArrowException, OSError):
        taken_by_arrow = False
    LethalType.built = 0
    assert open_parquet(io.BytesIO(data)).schema_arrow.field("emb").type == pa.binary()
    assert not LethalType.built
    assert taken_by_arrow == (name != "another key behind")


def test_a_schema_that_is_not_plain_base64_is_not_read():
    data = file_of(table_with(emb=lethal(), took=pa.array([0, 1], pa.duration("s"))))
    schema = pq.read_metadata(io.BytesIO(data)).metadata[b"ARROW:schema"]
    data = data.replace(schema, schema[:-4] + b"\n" + schema[-3:])
    LethalType.built = 0
    file = open_parquet(io.BytesIO(data))
    assert file.schema_arrow.field("took").type == pa.int64()
    assert not LethalType.built


@pytest.mark.parametrize("size", [0, 3, 11, 12])
def test_a_file_without_a_whole_footer_is_said_to_be_broken(size):
    data = b"PAR1" * 2 + (1000).to_bytes(4, "little") + b"PAR1"
    with pytest.raises(pa.ArrowInvalid, match="it"):
        read_footer(io.BytesIO(data[-size:] if size else b""))


def test_files_of_runs_and_subgroups_build_no_type_either(tmp_path):
    table = pa.table({"uid": pa.array(["0" * 32] * 2), "group": lethal_array(pa.array(["a", "b"]))})
    part = parquet_bytes(table, "0.parquet")
    assert opened_part(io.BytesIO(part), "0.parquet", is_sealed=True).read().num_rows == ROWS
    assert verified_parquet(io.BytesIO(part), "0.parquet", is_sealed=True).read().num_rows == ROWS
    (tmp_path / "groups.parquet").write_bytes(file_of(table))
    groups = read_subgroups(str(tmp_path / "groups.parquet"))
    assert groups["group"].to_pylist() == ["a", "b"]
    assert not LethalType.built


@pytest.fixture
def encrypted(read, tmp_path):
    """The content of a file with one encrypted column, first read in a process that may die."""

    def encrypted(column: str, **options: bool) -> Any:
        data = encrypted_parquet(
            table_with(key=["k", "l"], uid=["0" * 32, "1" * 32], secret=[1, 2], open=[3, 4]),
            [column],
            **options,
        )
        verdict = in_a_fresh_process(data, tmp_path)
        assert (verdict.signal, verdict.error) == (0, "")
        return read(data)

    return encrypted


def test_encrypted_metadata_are_left_out_and_counted(encrypted):
    result = encrypted("secret")
    assert [json.loads(row["metadata"])["secret"] for row in result.rows] == [None, None]
    assert [json.loads(row["metadata"])["open"] for row in result.rows] == [3, 4]
    assert set(result.reasons.values()) == {None}
    assert result.last.notes == {"metadata_replaced": ROWS}


@pytest.mark.parametrize("column", ["image", "text", "key", "uid"])
def test_an_encrypted_part_of_samples_is_a_fault_that_says_so(encrypted, column):
    last = encrypted(column).last
    assert last.fault == ShardFault.UNREADABLE
    assert f"column '{column}' is encrypted" in last.detail


def test_an_encrypted_footer_is_a_fault_that_says_so(encrypted):
    last = encrypted("secret", plain_footer=False).last
    assert last.fault == ShardFault.UNREADABLE
    assert "its footer is encrypted" in last.detail
