"""Samples of a Parquet file: one row each, read in small batches.

Takes plain columns, img2dataset's Parquet output (image column named after its encoding) and Hugging Face's image
column (a struct of bytes and path).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.config import Pool
from dfn_ray.errors import StorageError
from dfn_ray.pool.chunking import Group, Wanted
from dfn_ray.pool.samples import LABEL_KEYS, Draft
from dfn_ray.pool.shard import Shard, ShardDamage
from dfn_ray.schema import ShardFault

IMAGE_COLUMNS = ("image", "jpg", "png", "webp", "jpeg")
TEXT_COLUMNS = ("text", "caption", "txt")
KEY_COLUMN = "key"

_BATCH_ROWS = 256
_BATCH_BYTES = 8 * 2**20
"""Rows are decoded in batches of about this size, by the mean of their row group."""
_BUFFER_BYTES = 4 * 2**20
"""Read per column and request, so that memory is bounded by this and a page; Arrow's default (`pre_buffer`) would load
all columns of a row group at once."""


def parquet_groups(file: IO[bytes], shard: Shard, pool: Pool, wanted: Wanted) -> Iterator[Group]:
    """The chunks of a Parquet file, in order; the last one carries the fault of the shard, if it has one.

    Where chunks are skipped, all rows are decoded nevertheless: chunks end by size, and Parquet states no
    sizes per row. Where single rows are wanted, groups hold just those, and row groups without any are not read.
    """
    group = Group(0)
    try:
        source = _Source(file, shard, pool)
        bytes_per_row = shard.size_bytes / max(source.rows, 1)
        for draft in source.drafts(wanted.rows):
            if group.is_full(pool):
                group.bytes_read = int(len(group.drafts) * bytes_per_row)
                yield group
                group = Group(draft.row)
            group.drafts.append(draft)
            group.image_bytes += draft.image_size or 0
    except ShardDamage as damage:
        group.end(damage)
    group.last = True
    yield group


@dataclass(frozen=True, slots=True)
class _Columns:
    """Which column of a file plays which part."""

    image: str
    text: str
    key: str | None
    metadata: tuple[str, ...]

    @property
    def read(self) -> list[str]:
        """Everything that must be read, once."""
        names = (self.image, self.text, *((self.key,) if self.key else ()), *self.metadata)
        return list(dict.fromkeys(names))


def columns_of(schema: pa.Schema, pool: Pool) -> _Columns:
    """The parts that the columns of a file play. Raises ShardDamage when image, caption or uid cannot be had."""
    image = _find(schema, "image", pool.image_column, IMAGE_COLUMNS, _holds_images)
    usual = LABEL_KEYS if pool.caption == "label" else TEXT_COLUMNS
    text = _find(schema, "text", pool.text_column, usual, _HOLDS[pool.caption])
    if (
        "uid" in schema.names
        and pool.uid == "auto"
        and not _holds_strings(schema.field("uid").type)
    ):
        raise ShardDamage(
            ShardFault.MISTYPED_COLUMN,
            f"column 'uid' is {schema.field('uid').type}, not a string; pool.uid = \"derive\" passes it by",
        )
    key = KEY_COLUMN if KEY_COLUMN in schema.names else None
    metadata = tuple(
        field.name
        for field in schema
        if field.name not in (image, text, key) and not _has_binary(field.type)
    )
    return _Columns(image, text, key, metadata)


def _find(
    schema: pa.Schema,
    part: str,
    named: str | None,
    usual: tuple[str, ...],
    fits: Callable[[pa.DataType], bool],
) -> str:
    """The column for one part: the one the recipe names, else the first usual one, of a fitting type if any is."""
    present = [name for name in ((named,) if named else usual) if name in schema.names]
    if not present:
        raise ShardDamage(
            ShardFault.MISSING_COLUMN,
            f"no {part} column: looked for {', '.join((named,) if named else usual)}; "
            f"there are {', '.join(schema.names)}; name it by pool.{part}_column",
        )
    for name in present:
        if fits(schema.field(name).type):
            return name
    raise ShardDamage(
        ShardFault.MISTYPED_COLUMN,
        f"column {present[0]!r} is {schema.field(present[0]).type} and cannot hold the {part}",
    )


class _Source:
    """An open Parquet file; whatever Arrow finds broken in it is raised as ShardDamage."""

    def __init__(self, file: IO[bytes], shard: Shard, pool: Pool) -> None:
        self._file = _Watched(file)
        self._uri = shard.uri
        try:
            self._parquet = pq.ParquetFile(self._file, buffer_size=_BUFFER_BYTES, pre_buffer=False)
            schema = self._parquet.schema_arrow
        except _BROKEN as error:
            raise self._damage(error, "not Parquet") from error
        self._columns = columns_of(schema, pool)

    @property
    def rows(self) -> int:
        """Rows in the file."""
        return self._parquet.metadata.num_rows

    def drafts(self, rows: frozenset[int] | None = None) -> Iterator[Draft]:
        """The samples of the file, or just those at `rows`, in order."""
        first = 0
        for number in range(self._parquet.num_row_groups):
            end = first + self._parquet.metadata.row_group(number).num_rows
            if rows is None or not rows.isdisjoint(range(first, end)):
                for batch in self._batches(number):
                    yield from self._drafts_of(batch, first, rows)
                    first += batch.num_rows
            first = end

    def _batches(self, number: int) -> Iterator[pa.RecordBatch]:
        """The batches of one row group."""
        group = self._parquet.metadata.row_group(number)
        mean_bytes = max(1, group.total_byte_size // max(group.num_rows, 1))
        batches = self._parquet.iter_batches(
            batch_size=max(1, min(_BATCH_ROWS, _BATCH_BYTES // mean_bytes)),
            row_groups=[number],
            columns=self._columns.read,
            use_threads=False,
        )
        try:
            yield from batches
        except _BROKEN as error:
            raise self._damage(error, f"row group {number} is broken") from error

    def _drafts_of(
        self, batch: pa.RecordBatch, first: int, rows: frozenset[int] | None
    ) -> Iterator[Draft]:
        numbers = [
            number
            for number in range(first, first + batch.num_rows)
            if rows is None or number in rows
        ]
        if len(numbers) < batch.num_rows:
            batch = batch.take(pa.array([number - first for number in numbers], pa.int64()))
        columns = self._columns
        images = _image_bytes(batch.column(columns.image))
        captions = _string_bytes(batch.column(columns.text))
        keys = _values(batch.column(columns.key)) if columns.key else [None] * len(numbers)
        metadata = [_values(batch.column(name)) for name in columns.metadata]
        for at, number in enumerate(numbers):
            image, caption, key = images[at], captions[at], keys[at]
            yield Draft(
                row=number,
                key=str(number if key is None else key),
                images=int(image is not None),
                image_size=None if image is None else len(image),
                image=image,
                caption_size=None if caption is None else len(caption),
                caption=caption,
                metadata={
                    name: values[at]
                    for name, values in zip(columns.metadata, metadata, strict=True)
                }
                or None,
            )

    def _damage(self, error: Exception, what: str) -> ShardDamage | StorageError:
        """The store's fault if reading failed, else the file's."""
        if self._file.error is not None:
            return StorageError(f"{self._uri}: cannot read it: {self._file.error}")
        return ShardDamage(ShardFault.UNREADABLE, f"{what}: {str(error).splitlines()[0]}")


_BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError)  # what pyarrow raises on a broken file


class _Watched:
    """A file that remembers that reading failed: pyarrow raises OSError for broken files as well."""

    closed = False

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.error: OSError | None = None

    def read(self, count: int = -1) -> bytes:
        try:
            return self._file.read(count)
        except OSError as error:
            self.error = error
            raise

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        """Left to whoever opened the file."""


def _is_binary(kind: pa.DataType) -> bool:
    return (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_binary_view(kind)
        or pa.types.is_fixed_size_binary(kind)
    )


def _has_binary(kind: pa.DataType) -> bool:
    """True if binary values are anywhere in the type."""
    children = (kind.field(i).type for i in range(kind.num_fields))
    return _is_binary(kind) or any(_has_binary(child) for child in children)


def _is_image_struct(kind: pa.DataType) -> bool:
    return (
        pa.types.is_struct(kind)
        and kind.get_field_index("bytes") >= 0
        and _is_binary(kind.field("bytes").type)
    )


def _holds_images(kind: pa.DataType) -> bool:
    return _is_binary(kind) or _is_image_struct(kind) or pa.types.is_null(kind)


def _holds_strings(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return (
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_null(kind)
    )


def _holds_lines(kind: pa.DataType) -> bool:
    return _holds_strings(kind) or (_is_list(kind) and _holds_strings(kind.value_type))


def _holds_labels(kind: pa.DataType) -> bool:
    return _holds_strings(kind) or pa.types.is_integer(kind)


def _is_list(kind: pa.DataType) -> bool:
    return (
        pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    )


_HOLDS = {"text": _holds_strings, "lines": _holds_lines, "label": _holds_labels}
"""What may hold the caption, by `pool.caption`."""


def _image_bytes(column: pa.Array) -> list[bytes | None]:
    if _is_image_struct(column.type):
        column = column.field("bytes")
    return column.to_pylist()


def _string_bytes(column: pa.Array) -> list[bytes | None]:
    """Strings as bytes: Arrow does not check that strings in a file are UTF-8. A list's strings are its lines."""
    if _is_list(column.type):
        return _joined_lines(column)
    if pa.types.is_integer(column.type):
        column = column.cast(pa.string())
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_null(column.type):
        return column.to_pylist()
    return column.cast(pa.large_binary()).to_pylist()


def _joined_lines(column: pa.Array) -> list[bytes | None]:
    """Each list of strings as one text, a line each; white space inside a string, line ends too, becomes a space."""
    return [
        None
        if not value.is_valid
        else b"\n".join(b" ".join(line.split()) for line in _string_bytes(value.values) if line)
        for value in column
    ]


def _values(column: pa.Array) -> list[Any]:
    """Python values; strings that are not UTF-8 keep what can be read."""
    try:
        return column.to_pylist()
    except UnicodeDecodeError:
        if not _holds_strings(column.type):
            return [None] * len(column)
    return [
        value if value is None else value.decode("utf-8", "replace")
        for value in _string_bytes(column)
    ]
