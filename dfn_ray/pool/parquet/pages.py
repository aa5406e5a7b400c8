"""Checks of page headers on their way to Arrow, before it decompresses the pages.

Arrow reads each column in order through a file. `WatchedFile` is that file: it sees every page
header before Arrow does, without extra requests, and rejects a page that would take too much
memory. Arrow holds one page of each column and one batch of rows; both are bounded:

* A page may be as large as its limit, or `FAIR_RATIO` times its size in the file: images hardly
  compress.
* A batch may add `BATCH_BYTES`. A value of a dictionary, or one that shares a prefix with the value
  before it, costs its full length in every row, so such a page may expand. Then the row group is
  read in smaller batches.

Arrow itself rejects a page that decompresses to another size than its header states.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from dfn_ray.pool.parquet.thrift import (
    DATA_PAGE,
    DATA_PAGE_V2,
    DICTIONARY_PAGE,
    BrokenHeaderError,
    PageHeader,
    page_header,
)

FAIR_RATIO = 8
"""Uncompressed / compressed size up to which a page of any size is read: memory is then bounded by
the file. Text compresses 3 to 4 times, a photograph not at all; the bombs of zeros that were tried,
13,000 to 33,000 times."""
PAGE_BYTES = 64 * 2**20
"""Limit of pages that compress better; for all metadata columns together. Writers close pages at 1
MiB, or pyarrow after 1024 values."""
BATCH_BYTES = 64 * 2**20
NESTED_BYTES = 256 * 2**20
"""Limit of the decoded lists of one column and row group, unless its size in the file accounts for
more: a row may contain any number of values, which RLE stores in a few bytes."""
_SMALL_DICTIONARY = 2 * 2**20
"""Dictionaries up to this size are searched for their longest value. Writers close them at 1 MiB,
or after 1024 values."""
_LARGE_DICTIONARY, _LARGE_DICTIONARY_VALUES = 128 * 2**20, 2**16
"""So are dictionaries up to this size with at most this many values: pyarrow by default builds one
of the first 1024 images of a row group. For any other, its size is taken as that of its longest
value."""
_UNCOUNTED_BYTES = 100
"""Size of a dictionary's header, which early versions of parquet-mr omitted from a column's size
(PARQUET-816)."""
_LENGTH = struct.Struct("<I")
"""Prefix of each value in a dictionary of byte arrays."""
_VALUE_OVERHEAD = 8  # bytes of an offset, or of the levels of a value
_DICTIONARY_ENCODINGS = (2, 8)  # PLAIN_DICTIONARY, RLE_DICTIONARY (parquet.thrift, Encoding)
_DELTA_BYTE_ARRAY = 7


class PageTooLargeError(Exception):
    """A page would take more memory than a sample may. Never leaves `pool`."""

    def __init__(self, column: str, header: PageHeader, values_before: int | None) -> None:
        super().__init__(
            f"a page of column {column!r} states {header.uncompressed:,} bytes in "
            f"{header.compressed:,}"
        )
        self.column = column
        self.size_bytes = header.uncompressed
        self.row = values_before if header.values == 1 and header.kind != DICTIONARY_PAGE else None
        """The row within the row group, if the page contains exactly one."""


class BatchTooLargeError(Exception):
    """Batches must have at most `rows` rows. Never leaves `pool`."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"batches of more than {rows} rows may take too much memory")
        self.rows = rows


@dataclass(frozen=True, slots=True)
class Leaf:
    """A primitive column of one row group."""

    column: str
    """The column of the file that it is (part of)."""
    start: int
    size: int
    """Compressed bytes, including headers."""
    values: int
    repeated: bool
    """It is within lists: a row may contain any number of values."""
    width: int | None
    """Bytes of a value; None if they vary."""
    codec: str
    ahead: int
    """Bytes before the first data page: the dictionary's, including its header."""
    ratio: float
    """Uncompressed / compressed size, as the footer states it."""

    @property
    def dictionary_bytes(self) -> int:
        """The approximate size of its dictionary, if that is too large to be searched."""
        size = int(self.ahead * self.ratio) if self.width is None else 0
        return size if size > _LARGE_DICTIONARY else 0

    @property
    def end(self) -> int:
        """First byte after it."""
        return self.start + self.size


@dataclass(slots=True)
class Limits:
    """Memory limits of the pages of one row group, for one pass over it."""

    batch_rows: int
    columns: int
    """Number of leaves that are read."""
    pages: Mapping[str, int]
    """Largest page by column; all other columns share PAGE_BYTES."""
    held: dict[Leaf, int] = field(default_factory=dict)
    """Largest page so far of columns that share the limit."""
    held_bytes: int = 0
    """Sum of `held`."""
    weights: dict[Leaf, float] = field(default_factory=dict)
    """Maximum of bytes that one more row in a batch may add."""
    row_bytes: float = 0
    """Sum of `weights`."""

    def is_harmless(self, value_bytes: int) -> bool:
        """True if batches stay small for any number of values of this size in each column."""
        return value_bytes * self.batch_rows * self.columns <= BATCH_BYTES

    def require_page(self, leaf: Leaf, header: PageHeader, values_before: int) -> None:
        """Raises PageTooLargeError if the page must not be decompressed."""
        size = header.uncompressed
        if size <= FAIR_RATIO * header.compressed:
            return
        limit = self.pages.get(leaf.column)
        if limit is None:
            before = self.held.get(leaf, 0)
            held = max(size, before)
            size, limit = self.held_bytes - before + held, PAGE_BYTES
            if size <= limit:
                self.held[leaf], self.held_bytes = held, size
        if size > limit:
            raise PageTooLargeError(leaf.column, header, None if leaf.repeated else values_before)

    def require_batch(self, leaf: Leaf, bytes_per_row: float) -> None:
        """Raises BatchTooLargeError if rows of this column may be too large for the batch size."""
        before = self.weights.get(leaf, 0)
        if bytes_per_row <= before:
            return
        self.weights[leaf] = bytes_per_row
        self.row_bytes += bytes_per_row - before
        if self.batch_rows > 1 and self.batch_rows * self.row_bytes > BATCH_BYTES:
            raise BatchTooLargeError(max(1, int(BATCH_BYTES / self.row_bytes)))


@dataclass(slots=True)
class Walk:
    """Follows the page headers of one column through the bytes that are read."""

    leaf: Leaf
    limits: Limits
    at: int
    """Position of the next header."""
    pending: bytearray = field(default_factory=bytearray)
    """The part of it read so far."""
    values: int = 0
    """Values in the data pages so far."""
    longest: int = 0
    """Upper bound on the length of the dictionary's values."""
    nested_bytes: int = 0
    nested_read: int = 0

    def follow(self, start: int, data: bytes) -> None:
        """Checks the pages whose headers end in `data`, which begins at `start` in the file."""
        known = self.at + len(self.pending)
        if start + len(data) <= known or self.values >= self.leaf.values:
            return  # seen before, or after the last page: Arrow stops there too
        if start > known:
            raise pa.ArrowInvalid(f"pages of column {self.leaf.column!r} are read out of order")
        view = memoryview(data)[known - start :]
        if self.pending:
            self.pending += view
            view = memoryview(self.pending)
            self.pending = bytearray()
        while view and self.values < self.leaf.values:
            header = page_header(view)
            if header is None:
                break
            length = header.size + header.compressed
            if self.at + length > self.leaf.end + _UNCOUNTED_BYTES:
                raise BrokenHeaderError(
                    f"a page of column {self.leaf.column!r} states {header.compressed:,} bytes, "
                    f"but {self.leaf.end - self.at:,} are left"
                )
            if not self._check_page(header, view[header.size :]):
                break
            self.at += length
            view = view[length:]
        else:
            view = view[:0]
        self.pending = bytearray(view)

    def _check_page(self, header: PageHeader, body: memoryview) -> bool:
        """Checks one page; returns False if more of its body is needed for that."""
        leaf = self.leaf
        self.limits.require_page(leaf, header, self.values)
        if header.kind == DICTIONARY_PAGE:
            if leaf.width is None:
                self.longest = header.uncompressed
                harmless = self.limits.is_harmless(header.uncompressed) and not leaf.repeated
                if not harmless and _is_searched(header):
                    if len(body) < header.compressed:
                        return False
                    self.longest = _longest_value(leaf.codec, header, body)
        elif header.kind in (DATA_PAGE, DATA_PAGE_V2):
            self._check_values(header)
            self.values += header.values
            if self.values > leaf.values:
                raise BrokenHeaderError(
                    f"pages of column {leaf.column!r} contain at least {self.values:,} values, the "
                    f"footer states {leaf.values:,}"
                )
        return True

    def _check_values(self, header: PageHeader) -> None:
        longest = 0
        if self.leaf.width is None and header.encoding in _DICTIONARY_ENCODINGS:
            longest = self.longest
        elif header.encoding == _DELTA_BYTE_ARRAY:
            longest = header.uncompressed
        if not self.leaf.repeated:
            plain = header.uncompressed / max(header.values, 1)
            self.limits.require_batch(
                self.leaf, longest or (plain if header.values < self.limits.batch_rows else 0)
            )
            return
        width = longest or self.leaf.width or 0
        self.nested_bytes += header.uncompressed + header.values * (width + _VALUE_OVERHEAD)
        self.nested_read += header.compressed
        if self.nested_bytes > max(NESTED_BYTES, FAIR_RATIO * self.nested_read):
            raise PageTooLargeError(
                self.leaf.column, header._replace(uncompressed=self.nested_bytes), None
            )


def _is_searched(header: PageHeader) -> bool:
    most = _LARGE_DICTIONARY if header.values <= _LARGE_DICTIONARY_VALUES else _SMALL_DICTIONARY
    return max(header.uncompressed, header.compressed) <= most


def _longest_value(codec: str, header: PageHeader, body: memoryview) -> int:
    """The length of the dictionary's longest value; its own size if it cannot be searched."""
    size = header.uncompressed
    try:
        data: Any = body[: header.compressed]
        if codec != "UNCOMPRESSED":
            data = pa.decompress(data, decompressed_size=size, codec=codec.lower())
    except (pa.ArrowException, OSError, ValueError):
        return size  # Arrow reports whether it is broken
    longest = at = 0
    for _ in range(header.values):
        if at + _LENGTH.size > size:
            break
        (length,) = _LENGTH.unpack_from(data, at)
        longest = max(longest, length)
        at += _LENGTH.size + length
    return min(longest, size)
