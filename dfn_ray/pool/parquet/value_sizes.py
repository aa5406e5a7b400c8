"""Sizes of Arrow values as Python objects and as JSON, computed before they are converted.

Arrow stores some values in hardly a byte: nulls in none, booleans in a bit, those of a dictionary
in an index, however long they are.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.pool.parquet.arrow_types import is_binary, is_list, is_string

_MIN_BYTES = 4
"""Minimum of any value: `255,` in JSON; a pointer in Python takes twice as much."""


def is_flat(kind: pa.DataType) -> bool:
    """True for types whose values take about as many bytes as in Arrow."""
    return not (pa.types.is_nested(kind) or isinstance(kind, pa.BaseExtensionType))


def total_bytes(column: pa.Array) -> int:
    """The size of all values of a column that is not a dictionary itself."""
    return column.nbytes if is_flat(column.type) else int(row_bytes(column).sum())


def row_bytes(column: pa.Array) -> np.ndarray:
    """The size of each row of a column, int64. Depends on each row's value and type alone."""
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        sizes = row_bytes(column.storage)
    elif isinstance(column, pa.DictionaryArray):
        known = np.append(row_bytes(column.dictionary), _MIN_BYTES)  # the last one for nulls
        places = column.indices.cast(pa.int64()).fill_null(-1)
        sizes = known[places.to_numpy(zero_copy_only=False)]
    elif isinstance(column, pa.StructArray):
        sizes = np.full(len(column), sum(len(field.name) for field in kind), np.int64)
        for place in range(kind.num_fields):
            sizes += row_bytes(column.field(place))
    elif is_list(kind) or pa.types.is_map(kind):
        sizes = _of_lists(column)
    elif is_string(kind) or is_binary(kind):
        lengths = pc.call_function("binary_length", [column.cast(pa.large_binary())]).fill_null(0)
        sizes = lengths.to_numpy(zero_copy_only=False)
    else:
        return np.full(len(column), _width(kind), np.int64)
    return sizes + _MIN_BYTES


def _width(kind: pa.DataType) -> int:
    return max(_MIN_BYTES, 0 if pa.types.is_null(kind) else kind.bit_width // 8)


def _of_lists(column: pa.Array) -> np.ndarray:
    """The sum of the sizes of each list's items."""
    if isinstance(column, pa.FixedSizeListArray):
        starts = (np.arange(len(column)) + column.offset) * column.type.list_size
        ends = starts + column.type.list_size
    elif pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
        starts = column.offsets.to_numpy()
        ends = starts + column.sizes.to_numpy()
    else:
        offsets = column.offsets.to_numpy()
        starts, ends = offsets[:-1], offsets[1:]
    if isinstance(column, pa.MapArray):
        inner = row_bytes(column.keys) + row_bytes(column.items)
    elif pa.types.is_primitive(column.values.type) or pa.types.is_null(column.values.type):
        return (ends - starts).astype(np.int64) * _width(column.values.type)  # fast for millions
    else:
        inner = row_bytes(column.values)
    before = np.concatenate([[0], np.cumsum(inner)])
    return before[ends] - before[starts]
