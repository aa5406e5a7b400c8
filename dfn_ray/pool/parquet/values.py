"""Arrow values as Python's: captions, keys and metadata from columns of any type. Never raises."""

# (pyarrow generates its compute functions at import, where type checkers do not see them)
from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.pool.captions import TEXT, class_label
from dfn_ray.pool.long_names import MAX_NAME_CHARS, abbreviated_name
from dfn_ray.pool.parquet.arrow_types import is_binary, is_image_struct, is_list, is_string
from dfn_ray.pool.parquet.columns import distinct_labels
from dfn_ray.pool.parquet.value_sizes import row_bytes, total_bytes
from dfn_ray.pool.samples import MAX_METADATA_BYTES, json_text

Converted = tuple[Any, bool]
"""A value, and whether it replaces one that JSON or UTF-8 cannot represent."""

_BYTES_AT_ONCE = 4 * 2**20
"""Approximate size of the values converted at a time; one by one takes twice as long."""
_BYTES_A_CHARACTER = 4  # at most, in UTF-8
_CONVERSION_ERRORS = (
    ValueError,
    OverflowError,
    ArithmeticError,
    LookupError,
    TypeError,
    pa.ArrowException,
)
"""Exceptions of pyarrow for values that Python cannot represent: dates outside 1..9999, time zones
unknown on this machine, strings that are not UTF-8, structs with two fields of one name."""


def plain_array(column: pa.Array) -> pa.Array:
    """The values themselves: without dictionary, run-end encoding or extension."""
    while True:
        if isinstance(column, pa.ExtensionArray):
            column = column.storage
        elif pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        elif pa.types.is_run_end_encoded(column.type):
            ends = column.run_ends.to_numpy()
            column = column.values.take(
                pa.array(
                    ends.searchsorted(range(column.offset, column.offset + len(column)), "right")
                )
            )
        else:
            return column


def image_bytes(column: pa.Array) -> Iterator[bytes | None]:
    """The images of a column: bytes, or Hugging Face's structs; None if there are no bytes."""
    column = plain_array(column)
    if is_image_struct(column.type):
        if column.type.get_field_index("bytes") < 0:
            return iter([None] * len(column))
        column = plain_array(column.flatten()[column.type.get_field_index("bytes")])
    return _few_at_once(column)


def _few_at_once(column: pa.Array) -> Iterator[Any]:
    """The values of a column of bytes, of which few are held at a time."""
    rows = max(1, _BYTES_AT_ONCE * len(column) // max(column.nbytes, 1))
    for first in range(0, len(column), rows):
        yield from column.slice(first, rows).to_pylist()


Captions = tuple[int | None, dict[int, bytes | None]]
"""The size of all captions of a row, None for none, and the captions by number: see
`pool.captions`."""


def captions(columns: Sequence[pa.Array], most_bytes: int) -> Iterator[Captions]:
    """The captions of each row: from one column, text or lists, or from several.

    Those of a row with more than `most_bytes` are not held.
    """
    if len(columns) > 1:
        return (
            _held(enumerate(row), most_bytes)
            for row in zip(*map(caption_bytes, columns), strict=True)
        )
    column = plain_array(columns[0])
    if is_list(column.type):
        return (
            _items(value.values, most_bytes) if value.is_valid else (None, {}) for value in column
        )
    return (_one(text, most_bytes) for text in caption_bytes(column))


def caption_bytes(column: pa.Array) -> Iterator[bytes | None]:
    """Captions as bytes: Arrow does not check that strings in a file are UTF-8."""
    column = plain_array(column)
    if is_string(column.type) or is_binary(column.type):
        return _few_at_once(column.cast(pa.large_binary()))
    return (None if label is None else label.encode() for label in map(_label, column))


def _label(value: pa.Scalar) -> str | None:
    return class_label(value.as_py())


def _held(captions: Iterable[tuple[int, bytes | None]], most_bytes: int) -> Captions:
    found = {number: text for number, text in captions if text is not None}
    size = sum(map(len, found.values()))
    return (size if found else None), (found if size <= most_bytes else dict.fromkeys(found))


def _one(text: bytes | None, most_bytes: int) -> Captions:
    if text is None:
        return None, {}
    return len(text), {TEXT: text if len(text) <= most_bytes else None}


def _items(items: pa.Array, most_bytes: int) -> Captions:
    """The non-empty strings of a list; none if they exceed `most_bytes`."""
    items = plain_array(items)
    if not (is_string(items.type) or is_binary(items.type)):
        return 0, {}  # nulls
    items = items.cast(pa.large_binary())
    length = pc.fill_null(pc.binary_length(items), 0)
    size = pc.sum(length).as_py() or 0
    if size > most_bytes:
        return size, {}
    return size, dict(enumerate(items.filter(pc.greater(length, 0)).to_pylist()))


def keys(column: pa.Array) -> Iterator[str | None]:
    """The samples' names as text, from which uids are derived.

    Bytes are decoded as UTF-8 with escapes for the rest, nested values become JSON. Names longer
    than MAX_NAME_CHARS are abbreviated to their ends and a digest.
    """
    column = plain_array(column)
    if is_string(column.type) or is_binary(column.type):
        column = column.cast(pa.large_binary())
    values = None if total_bytes(column) > MAX_METADATA_BYTES else _plain_values(column)
    if values is None:
        values = (
            _converted(value)[0] for value in column
        )  # one by one: all at once may be a gigabyte
    return (None if value is None else _short_key(value) for value in values)


def _short_key(value: Any) -> str:
    if isinstance(value, bytes) and len(value) > _BYTES_A_CHARACTER * MAX_NAME_CHARS:
        return abbreviated_name(value)  # without another copy of it as text
    key = _key(value)
    return (
        key
        if len(key) <= MAX_NAME_CHARS
        else abbreviated_name(key.encode("utf-8", "surrogatepass"))
    )


def _key(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, dict | list | tuple):
        return json_text(value)[0]
    return str(value)


ConvertedRow = tuple[Sequence[Any], bool]
"""The values of a row, and whether one of them replaces a value that JSON or UTF-8 cannot
represent."""


def metadata_rows(columns: Sequence[pa.Array | None], rows: int) -> Iterator[ConvertedRow]:
    """The values of metadata columns, row by row.

    Null are those of columns that were not read, and those with which a row would exceed
    MAX_METADATA_BYTES.
    """
    decoded = [None if column is None else _decoded(column) for column in columns]
    if sum(total_bytes(column) for column in decoded if column is not None) > MAX_METADATA_BYTES:
        return map(_as_row, _large_rows(decoded, rows))
    if not decoded:
        return itertools.repeat(((), False), rows)
    plain = [None if column is None else _plain_values(column) for column in decoded]
    if None not in plain:
        return zip(zip(*plain, strict=True), itertools.repeat(False))
    cells = (
        [(None, True)] * rows
        if column is None
        else map(_converted, column)
        if values is None
        else zip(values, itertools.repeat(False))
        for column, values in zip(decoded, plain, strict=True)
    )
    return map(_as_row, zip(*cells, strict=True))


def _as_row(row: Sequence[Converted]) -> ConvertedRow:
    return [value for value, _ in row], any(replaced for _, replaced in row)


def _large_rows(columns: Sequence[pa.Array | None], rows: int) -> Iterator[list[Converted]]:
    """The rows one by one, without the values that no longer fit."""
    sizes = [None if column is None else row_bytes(column).tolist() for column in columns]
    for at in range(rows):
        left = MAX_METADATA_BYTES
        row: list[Converted] = []
        for column, size in zip(columns, sizes, strict=True):
            if column is None or size is None:
                row.append((None, True))
            elif size[at] > left:
                row.append((None, column[at].is_valid))
            else:
                left -= size[at]
                row.append(_converted(column[at]))
        yield row


def _decoded(column: pa.Array) -> pa.Array:
    """The column without a dictionary or runs, whose sizes are not those of rows."""
    is_plain = not (pa.types.is_dictionary(column.type) or pa.types.is_run_end_encoded(column.type))
    return column if is_plain else plain_array(column)


def _plain_values(column: pa.Array) -> Sequence[Any] | None:
    """All values at once; None if Python cannot represent one of them."""
    try:
        return column.to_pylist()
    except _CONVERSION_ERRORS:
        return None


def _converted(value: pa.Scalar) -> Converted:
    try:
        return value.as_py(), False
    except _CONVERSION_ERRORS:
        return _with_parts_replaced(value), True


def _with_parts_replaced(value: pa.Scalar) -> Any:
    """The value, in which only the parts that Python cannot represent are replaced.

    By text if possible.
    """
    result: Any = None
    if not value.is_valid:
        return result
    if isinstance(value, pa.ExtensionScalar | pa.DictionaryScalar | pa.RunEndEncodedScalar):
        result = _with_parts_replaced(value.value)
    elif isinstance(value, pa.MapScalar):
        result = [
            list(map(_with_parts_replaced, pair))
            for pair in zip(*value.values.flatten(), strict=True)
        ]
    elif is_list(value.type):
        result = [_with_parts_replaced(item) for item in value.values]
    elif isinstance(value, pa.StructScalar):
        names = [field.name for field in value.type]
        result = {
            label: _with_parts_replaced(value[i]) for i, label in enumerate(distinct_labels(names))
        }
    else:
        try:
            result = value.as_py()
        except _CONVERSION_ERRORS:
            result = _arrow_text(value)
    return result


def _arrow_text(value: pa.Scalar) -> str | None:
    """Arrow's text for a single value; times in an unknown zone are in UTC."""
    try:
        if is_string(value.type):
            return value.cast(pa.large_binary()).as_py().decode("utf-8", "replace")
        if pa.types.is_timestamp(value.type) and value.type.tz:
            return (
                str(value.cast(pa.int64()).cast(pa.timestamp(value.type.unit)).cast(pa.string()))
                + "+00:00"
            )
        return value.cast(pa.string()).as_py()
    except _CONVERSION_ERRORS:
        return None
