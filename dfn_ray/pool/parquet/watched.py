"""The file through which Arrow reads Parquet.

It checks pages as they are read, and separates failures of the store from damage of the file.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from typing import IO

import pyarrow as pa

from dfn_ray.errors import DfnRayError, StorageError
from dfn_ray.pool.parquet.pages import Leaf, Limits, Walk
from dfn_ray.pool.parquet.thrift import BrokenHeaderError
from dfn_ray.pool.shard import ShardDamageError
from dfn_ray.schema import ShardFault

BROKEN = (pa.ArrowException, OSError, UnicodeDecodeError, BrokenHeaderError)
"""Exceptions for a broken file: pyarrow's, and those for page headers."""


def first_line(error: Exception) -> str:
    """The first line of an error, or its name."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class WatchedFile:
    """A file for Arrow that checks pages and records failed reads.

    Arrow raises OSError for both.
    """

    closed = False

    def __init__(self, file: IO[bytes], uri: str) -> None:
        self._file = file
        self._uri = uri
        self._at = file.tell()
        self._walks: list[Walk] = []
        """In file order."""
        self._ends: list[int] = []
        self.error: Exception | None = None
        """The failure of the store."""
        self.page_error: Exception | None = None
        """The fault of a page."""

    def watch(self, leaves: Sequence[Leaf], limits: Limits) -> None:
        """Checks the pages of these columns, no two of which share a byte, from now on."""
        self.page_error = None
        in_order = sorted(leaves, key=lambda leaf: leaf.start)
        self._walks = [Walk(leaf, limits, leaf.start) for leaf in in_order]
        self._ends = [leaf.end for leaf in in_order]

    def damage(self, error: Exception, what: str) -> Exception:
        """The cause of a failure in Arrow: the store's if reading failed, else the file's."""
        if isinstance(self.error, DfnRayError):
            return self.error
        if self.error is not None:
            return StorageError(f"{self._uri}: cannot read it: {self.error}")
        return ShardDamageError(ShardFault.UNREADABLE, f"{what}: {first_line(error)}")

    def read(self, count: int = -1) -> bytes:
        """Bytes for Arrow, after the pages that begin in them have been checked."""
        try:
            data = self._file.read(count)
        except Exception as error:
            self.error = error
            raise
        start, self._at = self._at, self._at + len(data)
        try:
            for place in range(bisect_right(self._ends, start), len(self._walks)):
                walk = self._walks[place]
                if walk.leaf.start >= self._at:
                    break
                walk.follow(start, data)
        except Exception as error:
            self.page_error = error
            raise
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Moves to `offset`; returns the new position."""
        self._at = self._file.seek(offset, whence)
        return self._at

    def tell(self) -> int:
        """The position."""
        return self._at

    def close(self) -> None:
        """No effect: whoever opened the file closes it."""
