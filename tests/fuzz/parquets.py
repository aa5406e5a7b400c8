"""Target: Parquet files. Valid values match DuckDB; for damaged files see parquet_damage.py."""

from __future__ import annotations

import functools
import io
import json
import math
import os
import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.config import Pool
from dfn_ray.schema import Reason, ShardFault
from dfn_ray.testing.hostile_parquet import LethalType, lethal_type_registered
from tests.fuzz import arrow_values, odd_text
from tests.fuzz.case import Case, Target, require
from tests.fuzz.hostile_parquets import encrypted_file, hostile_file, small_lists
from tests.fuzz.parquet_damage import CODECS, bomb, damaged_file
from tests.fuzz.shards import Readout, Row, read_file


@dataclass(kw_only=True)
class Table:
    """A table with the known facts about its samples."""

    names: list[str] = field(default_factory=list)
    columns: list[pa.Array] = field(default_factory=list)
    images: list[bytes | None] = field(default_factory=list)
    texts: list[bytes | None] = field(default_factory=list)
    numbered: bool = False
    """Keys are distinct numbers, or null."""
    plain: list[str] = field(default_factory=list)
    """Columns of metadata that every reader reads alike."""
    fault: ShardFault | None = None
    """The fault of such a file as a shard."""
    may_fail: bool = False
    """Either read, or rejected with `fault`."""
    note: str = ""

    def add(self, name: str, column: pa.Array) -> None:
        """Appends a column."""
        self.names.append(name)
        self.columns.append(column)

    def arrow(self) -> pa.Table:
        """The columns as an Arrow table; names may repeat."""
        return pa.Table.from_arrays(self.columns, names=self.names)


def make(rng: Random) -> Case:
    """A valid file, a damaged one or a hostile one."""
    pool = Pool(uri=("x",), chunk_rows=rng.choice((1, 3, 8, 256)))
    pick = rng.random()
    if pick < 0.02:
        return bomb(pool)
    if pick < 0.08:
        return rng.choice((hostile_file, hostile_file, encrypted_file, small_lists))(rng, pool)
    return _valid(rng, pool) if pick < 0.55 else damaged_file(rng, pool)


def _valid(rng: Random, pool: Pool) -> Case:
    table = _table(rng, rng.choice((0, 1, 2, 7, 30)))
    data, options = _by_duckdb(table) if rng.random() < 0.1 else _written(rng, table.arrow())
    seed = rng.getrandbits(64)

    def check(folder: Path) -> Counter[str]:
        with lethal_type_registered():
            readout = read_file(data, folder, "0.parquet", pool, Random(seed))
            require(not LethalType.built, "a registered extension type is built", LethalType.built)
        _check_valid(readout, table, folder / "0.parquet")
        return readout.outcomes

    kinds = ", ".join(
        f"{name!r} {column.type}" for name, column in zip(table.names, table.columns, strict=True)
    )
    return Case(
        valid=True, note=f"{options}: {kinds}"[:2000], files={"0.parquet": data}, check=check
    )


def _table(rng: Random, rows: int) -> Table:
    """A table with every part of a sample in any of its types, and metadata columns of any type."""
    table = Table()
    table.images = [
        rng.choice((None, b"", *[rng.randbytes(rng.randint(1, 300))] * 8)) for _ in range(rows)
    ]
    texts = (None, "", " \t", *[odd_text.text(rng, rng.randint(1, 6)) + "a"] * 9)
    table.texts = [
        None if text is None else text.encode("utf-8", "replace")
        for text in rng.choices(texts, k=rows)
    ]
    _add_images(rng, table)
    _add_texts(rng, table)
    if rng.random() < 0.4:
        table.numbered = rng.random() < 0.3
        maker = _numbers if table.numbered else rng.choice((arrow_values.column, _keys))
        table.add("key", maker(rng, rows))
    if rng.random() < 0.2:
        uids = [f"{rng.getrandbits(128):032x}" for _ in range(rows)]
        table.add("uid", pa.array(uids, rng.choice((pa.string(), pa.large_string()))))
    for at in range(rng.randint(0, 3)):
        name = rng.choice(("width", "é", "a.b", "", "x", "status", "list", "bytes")) + str(at)
        if rng.random() < 0.3:
            table.plain.append(name)
            table.add(name, arrow_values.plain_column(rng, rows))
        else:
            table.add(name, arrow_values.column(rng, rows))
    if rng.random() < 0.05:  # as a join without suffixes writes them
        for _ in range(2):
            table.add("twice", arrow_values.column(rng, rows))
    if rng.random() < 0.03:
        table.add(table.names[1], table.columns[1])
        table.fault = ShardFault.MISTYPED_COLUMN
    order = rng.sample(range(len(table.names)), len(table.names))
    table.names = [table.names[at] for at in order]
    table.columns = [table.columns[at] for at in order]
    return table


def _keys(rng: Random, rows: int) -> pa.Array:
    return pa.array([odd_text.file_name(rng) for _ in range(rows)])


def _numbers(rng: Random, rows: int) -> pa.Array:
    """Distinct numbers, as integers or text, some of them null."""
    numbers = [None if rng.random() < 0.3 else number for number in rng.sample(range(rows), rows)]
    column = pa.array(numbers, pa.int64())
    return rng.choice((column, column.cast(pa.string())))


def _add_images(rng: Random, table: Table) -> None:
    kind = rng.choice(
        ("binary", "binary", "large", "view", "fixed", "struct", "struct", "dictionary", "null")
    )
    if kind == "fixed":
        table.images = [(image.ljust(8, b".")[:8] if image else None) for image in table.images]
    if kind == "null":
        table.images = [None] * len(table.images)
    types = {
        "large": pa.large_binary(),
        "view": pa.binary_view(),
        "fixed": pa.binary(8),
        "null": pa.null(),
        "struct": pa.struct(
            [("bytes", rng.choice((pa.binary(), pa.large_binary()))), ("path", pa.string())]
        ),
    }
    values: list[Any] = table.images
    if kind == "struct":  # as Hugging Face's datasets write images
        values = [
            rng.choice((None, {"bytes": None, "path": "x"}))
            if image is None
            else {"bytes": image, "path": None}
            for image in table.images
        ]
    column = pa.array(values, types.get(kind, pa.binary()))
    if kind == "dictionary":
        column, table.fault, table.may_fail = (
            column.dictionary_encode(),
            ShardFault.MISTYPED_COLUMN,
            True,
        )
    table.add(rng.choice(("image", "jpg", "png", "webp", "jpeg")), column)


def _add_texts(rng: Random, table: Table) -> None:
    kind = rng.choice(("string", "string", "large", "view", "dictionary", "binary", "broken"))
    if kind == "broken" and table.texts:
        table.texts[0] = b"caf\xe9"
    column = pa.array(table.texts, pa.binary())
    if kind == "large":
        column = column.cast(pa.large_binary()).view(pa.large_string())
    elif kind == "view":
        column = column.view(pa.string()).cast(pa.string_view())
    elif kind != "binary":
        column = column.view(pa.string())
    if kind == "dictionary":
        column = column.dictionary_encode()
    table.add(rng.choice(("text", "caption", "txt")), column)


def _written(rng: Random, table: pa.Table) -> tuple[bytes, str]:
    """A Parquet file with any of the options that writers have."""
    options: dict[str, Any] = {
        "row_group_size": rng.choice((1, 2, 5, 1000)),
        "compression": rng.choice(CODECS),
        "data_page_version": rng.choice(("1.0", "2.0")),
        "version": rng.choice(("1.0", "2.4", "2.6")),
        "use_dictionary": rng.random() < 0.5,
        "write_page_checksum": rng.random() < 0.5,
        "write_statistics": rng.random() < 0.7,
        "write_page_index": rng.random() < 0.3,
        "store_schema": rng.random() < 0.7,
        "data_page_size": rng.choice((1, 100, 2**20)),
    }
    if not options["use_dictionary"] and rng.random() < 0.4:
        options["column_encoding"] = {
            name: encoding
            for name, kind in zip(table.schema.names, table.schema.types, strict=True)
            if (encoding := _encoding(rng, kind))
        }
    file = io.BytesIO()
    try:
        pq.write_table(table, file, **options)
        if _loses_a_column(file):
            options["data_page_size"] = 2**20
            file = io.BytesIO()
            pq.write_table(table, file, **options)
    except (pa.ArrowException, OSError, ValueError):  # not every type goes with every option
        file, options = io.BytesIO(), {"compression": "zstd"}
        pq.write_table(table, file, compression="zstd")
    return file.getvalue(), ", ".join(f"{name}={value}" for name, value in options.items())


def _loses_a_column(file: io.BytesIO) -> bool:
    """True if pyarrow returns no row of a column that it wrote, like some lists in tiny pages."""
    parquet = pq.ParquetFile(file)
    try:
        parquet.read()
    except pa.ArrowInvalid as error:
        return "expected length" in str(error)
    except (pa.ArrowException, OSError):
        return False
    return False


def _by_duckdb(table: Table) -> tuple[bytes, str]:
    """The plain columns in a file written by DuckDB: an independent writer."""
    texts = [
        None if text is None else text.decode("utf-8", "replace").replace("\0", "")
        for text in table.texts
    ]
    table.texts = [None if text is None else text.encode() for text in texts]
    table.names, table.columns, table.plain, table.fault = ["image", "text"], [], [], None
    table.columns = [pa.array(table.images, pa.binary()), pa.array(texts, pa.string())]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "0.parquet"
        connection = _connection(os.getpid())
        connection.register("written", table.arrow())
        connection.execute(f"COPY written TO '{path}' (FORMAT parquet)")
        connection.unregister("written")
        return path.read_bytes(), "by DuckDB"


def _encoding(rng: Random, kind: pa.DataType) -> str | None:
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return rng.choice(("PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"))
    if kind in (pa.int32(), pa.int64()):
        return rng.choice(("PLAIN", "DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"))
    return "BYTE_STREAM_SPLIT" if pa.types.is_float64(kind) else None


def _check_valid(readout: Readout, table: Table, path: Path) -> None:
    fault = readout.last.fault
    if table.fault is not None and fault is not None:
        due = (table.fault,) if table.images else (table.fault, ShardFault.EMPTY)
        require(fault in due, "a Parquet file has another fault", fault, readout.last.detail)
        return
    require(
        table.fault is None or table.may_fail, "a faulty Parquet file is a good shard", table.fault
    )
    if not table.images:
        require(
            fault in (None, ShardFault.EMPTY), "a valid file is a bad shard", readout.last.detail
        )
        return
    require(fault is None, "a valid file is a bad shard", readout.last.detail)
    require(len(readout.rows) == len(table.images), "rows are lost", len(readout.rows))
    for row, image, text in zip(readout.rows, table.images, table.texts, strict=True):
        _check_row(row, image, text)
    if table.numbered and "key" in table.names:  # DuckDB's have none
        require(len(readout.by_key()) == len(readout.rows), "two samples have one name")
    _compare(readout.rows, table, path)


def _check_row(row: Row, image: bytes | None, text: bytes | None) -> None:
    """Checks that the row has the values written, or a matching reason."""
    faults: set[str] = set()
    if image is None:
        faults.add(Reason.MISSING_IMAGE)
    elif not image:
        faults.add(Reason.EMPTY_IMAGE)
    caption = None
    if text is None:
        faults.add(Reason.MISSING_CAPTION)
    else:
        try:
            caption = text.decode("utf-8-sig")
        except UnicodeDecodeError:
            faults.add(Reason.CAPTION_NOT_UTF8)
        else:
            faults |= set() if caption.strip() else {Reason.EMPTY_CAPTION}
    if row["reason"] is not None:
        require(row["reason"] in faults, "a row fails with another reason", row["reason"], faults)
        return
    require(not faults, "a faulty row is good", faults, row)
    require(row["image"] == image, "an image has other bytes", row)
    require(row["text"] == caption, "another caption", row, caption)


def _compare(rows: list[Row], table: Table, path: Path) -> None:
    """Compares images, captions and plain metadata with DuckDB; skips types that it cannot read."""
    image = next(name for name in table.names if name in ("image", "jpg", "png", "webp", "jpeg"))
    text = next(name for name in table.names if name in ("text", "caption", "txt"))
    is_struct = pa.types.is_struct(table.columns[table.names.index(image)].type)
    if table.names.count(text) > 1:
        return
    for name, part in (
        (f'"{image}"."bytes"' if is_struct else f'"{image}"', "image"),
        (f'"{text}"', "text"),
    ):
        values = _duckdb(path, f"{name}::BLOB")
        for row, value in zip(rows, values or (), strict=False):
            if row["reason"] is None and value is not None:
                mine = row[part] if part == "image" else row[part].encode()
                due = value if part == "image" else value.removeprefix(b"\xef\xbb\xbf")
                require(mine == due, f"DuckDB reads another {part}", row, due)
    for name in table.plain:
        if pq.read_table(path, columns=[name]).num_rows < len(rows):
            continue  # pyarrow skips some lists in tiny pages; the reader marks them replaced
        values = _duckdb(path, f'"{name}"')
        for row, value in zip(rows, values or (), strict=False):
            mine = json.loads(row["metadata"] or "{}").get(name)
            due = None if isinstance(value, float) and not math.isfinite(value) else value
            require(mine == due, "DuckDB reads other metadata", name, mine, due)


def _duckdb(path: Path, expression: str) -> list[Any] | None:
    """The values of an expression over a file; None if DuckDB cannot read the type."""
    try:
        found = _connection(os.getpid()).execute(
            f"SELECT {expression} FROM read_parquet(?)", [str(path)]
        )
        return [value for (value,) in found.fetchall()]
    except (duckdb.Error, UnicodeDecodeError):  # its own message may hold what is no text
        return None


@functools.cache
def _connection(pid: int) -> duckdb.DuckDBPyConnection:
    """One connection per process: DuckDB does not survive a fork."""
    del pid
    return duckdb.connect(
        config={"threads": 1, "memory_limit": "512MB", "enable_external_file_cache": False}
    )


TARGET = Target("parquet", 5, make)
