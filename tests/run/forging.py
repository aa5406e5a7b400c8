"""Forged files of a finished run: other content, with consistent digests and lists."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.run import content_name, parquet_bytes
from dfn_ray.run.sealed_json import json_bytes, names_file


def forge(path: Path, table: pa.Table, **settings: object) -> Path:
    """Replaces a Parquet file of a run by a table; returns its path, as it is named by content."""
    metadata = pq.read_schema(path).metadata
    if path.name.startswith("part-"):
        data = parquet_bytes(table.replace_schema_metadata(metadata), **settings)
        return forge_bytes(path.parents[1], path, data)
    path.write_bytes(parquet_bytes(table.replace_schema_metadata(metadata), path.name, **settings))
    return path


def forge_bytes(run: Path, path: Path, data: bytes) -> Path:
    """Replaces the bytes of a part or a subset file in the same way."""
    kind, ending = ("parts", "") if path.parent.name == "scores" else ("files", ".parquet")
    called = content_name(int(path.name.split("-")[1]), data)
    path.unlink()
    path.with_name(f"{called}.parquet").write_bytes(data)
    selection = json.loads((run / "selection.json").read_bytes())
    del selection["sha256"]
    listed = (run / selection[kind]).read_text().split()
    (run / selection[kind]).unlink()
    listed[listed.index(path.stem + ending)] = called + ending
    selection[kind], lines = names_file(kind, listed)
    (run / selection[kind]).write_bytes(lines)
    (run / "selection.json").write_bytes(json_bytes(selection))
    return path.with_name(f"{called}.parquet")


def with_value(table: pa.Table, name: str, row: int, value: object) -> pa.Table:
    """The table with one value replaced."""
    values = table[name].to_pylist()
    values[row] = value
    at, field = table.schema.get_field_index(name), table.schema.field(name)
    return table.set_column(at, field, pa.array(values, field.type))


def forge_value(path: Path, name: str, row: int, value: object) -> Path:
    """`forge` with one value replaced."""
    return forge(path, with_value(pq.read_table(path), name, row, value))
