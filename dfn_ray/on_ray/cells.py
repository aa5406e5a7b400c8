"""A chunk as one row of a Ray Dataset, so that no operator can split or merge it.

Ray Data slices and concatenates blocks and batches between rows, never inside one. A chunk
therefore travels as a *cell*: its description and its Arrow tables, serialized, in one row. Batches
are formed inside the cell, so a score cannot depend on scheduling. The cost is one copy of the
bytes per stage.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np
import pyarrow as pa

from dfn_ray.schema import Chunk


@dataclass(frozen=True, kw_only=True)
class UnreadShard:
    """A shard that could not be read to its end: its store failed, or the shard has changed."""

    shard: str
    """Its URI."""
    changed: bool
    """True when it is not the shard that was listed, so that a retry cannot help."""
    message: str
    """The error message."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A chunk on its way through the stages."""

    chunk: Chunk
    samples: pa.Table
    """One row per sample of the chunk, in order."""
    inputs: pa.Table | None = None
    """One row per sample that the networks must score: `row`, pixels and tokens; None once
    scored."""
    scorer: str = ""
    """ID of the actor that scored it; for progress only."""
    environment: str = ""
    """Digest of device, threads and library versions that it was scored with."""
    unread: UnreadShard | None = None
    """Set if reading failed: the cell is no chunk then, and passes through every stage
    unchanged."""


Stage = Callable[[Cell], Cell]


def pack(cells: list[Cell]) -> pa.Table:
    """The cells as rows of a block."""
    return pa.table(
        {
            "chunk": pa.array([json.dumps(cell.chunk.to_json()) for cell in cells], pa.string()),
            "samples": pa.chunked_array([_to_binary(cell.samples) for cell in cells], _BINARY),
            "inputs": pa.chunked_array([_to_binary(cell.inputs) for cell in cells], _BINARY),
            "scorer": pa.array([cell.scorer for cell in cells], pa.string()),
            "environment": pa.array([cell.environment for cell in cells], pa.string()),
            "unread": pa.array(
                [json.dumps(asdict(cell.unread)) if cell.unread else None for cell in cells],
                pa.string(),
            ),
        }
    )


def unpack(block: pa.Table) -> Iterator[Cell]:
    """The cells of a block, without copying their bytes."""
    texts = block.select(("chunk", "scorer", "environment", "unread")).to_pylist()
    tables = zip(_tables(block["samples"]), _tables(block["inputs"]), strict=True)
    for text, (samples, inputs) in zip(texts, tables, strict=True):
        assert samples is not None, "only inputs may be absent"
        yield Cell(
            chunk=Chunk.from_json(json.loads(text["chunk"])),
            samples=samples,
            inputs=inputs,
            scorer=text["scorer"],
            environment=text["environment"],
            unread=UnreadShard(**json.loads(text["unread"])) if text["unread"] else None,
        )


def map_cells(block: pa.Table, *, stage: Stage) -> pa.Table:
    """The block with `stage` applied to every cell that is a chunk."""
    return pack([cell if cell.unread else stage(cell) for cell in unpack(block)])


def array_column(values: np.ndarray) -> pa.Array:
    """An array of shape (N, ...) as a column of N fixed-size binary values.

    Copied only if it is not contiguous.
    """
    flat = np.ascontiguousarray(values)
    width = flat.itemsize * math.prod(flat.shape[1:])
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(flat), [None, pa.py_buffer(flat)]
    )


def column_array(
    column: pa.ChunkedArray, dtype: np.dtype | type, shape: tuple[int, ...]
) -> np.ndarray:
    """The array of an `array_column`, shape (N, *shape); not copied if it is one Arrow chunk.

    `shape` may be (-1,) for all values of a row.
    """
    array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    width = array.type.byte_width
    octets = np.frombuffer(array.buffers()[1], dtype=np.uint8)
    octets = octets[array.offset * width : (array.offset + len(array)) * width]
    if shape == (-1,):
        shape = (width // np.dtype(dtype).itemsize,)
    return octets.view(dtype).reshape(len(array), *shape)


def table_to_stream(table: pa.Table) -> pa.Buffer:
    """The table as an Arrow stream, in memory of its own."""
    sink = pa.BufferOutputStream()
    write_stream(sink, table)
    return sink.getvalue()


def write_stream(sink: pa.NativeFile, table: pa.Table) -> None:
    """Writes the table as an Arrow stream."""
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def table_of_stream(data: pa.Buffer) -> pa.Table:
    """The table in an Arrow stream, over the same memory."""
    return pa.ipc.open_stream(data).read_all()


_BINARY = pa.large_binary()


def _to_binary(table: pa.Table | None) -> pa.Array:
    if table is None:
        return pa.nulls(1, _BINARY)
    data = table_to_stream(table)
    offsets = pa.py_buffer(np.array([0, data.size], dtype=np.int64))
    return pa.LargeBinaryArray.from_buffers(_BINARY, 1, [None, offsets, data])


def _tables(column: pa.ChunkedArray) -> Iterator[pa.Table | None]:
    """The tables in a column, over its own memory: a scalar of the column would own a copy."""
    for array in column.chunks:
        _, offsets, data = array.buffers()
        valid = array.is_valid().to_pylist()
        ends = np.frombuffer(offsets, np.int64)[array.offset : array.offset + len(array) + 1]
        for index, (start, end) in enumerate(pairwise(ends.tolist())):
            if valid[index]:
                yield table_of_stream(data.slice(start, end - start))
            else:
                yield None
