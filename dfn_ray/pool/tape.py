"""The bytes of a file from front to back: read, skipped over, counted."""

from __future__ import annotations

import gzip
import zlib
from typing import IO

from dfn_ray.schema import ShardFault

_SKIP_BYTES = 2**20  # a compressed tape is skipped by reading; this much at a time bounds memory


class Tape:
    """A plain file. What is skipped is not read, as far as the store allows."""

    can_jump = True
    """True when `jump` costs no more than a seek."""
    broken: tuple[ShardFault, str] | None = None
    """Why reading stopped before the end of the file, once it did."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size_bytes = file.seek(0, 2)
        """Bytes in the store."""
        file.seek(0)
        self.position = 0
        """Bytes passed so far, after decompression."""

    @property
    def passed_bytes(self) -> int:
        """Bytes in the store that were passed so far."""
        return self.position

    def read(self, count: int) -> bytes:
        """The next `count` bytes; fewer only where the tape ends."""
        data = self._file.read(count)
        self.position += len(data)
        return data

    def skip(self, count: int) -> None:
        """Pass `count` bytes, or as many as there are."""
        self.jump(min(self.position + count, self.size_bytes))

    def jump(self, position: int) -> None:
        """Go on at `position`."""
        if position != self.position:
            self._file.seek(position)
            self.position = position


class GzipTape(Tape):
    """A gzip file, decompressed as it is passed."""

    can_jump = False

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._compressed = file
        self._file = gzip.GzipFile(fileobj=file, mode="rb")

    @property
    def passed_bytes(self) -> int:
        return self._compressed.tell()

    def read(self, count: int) -> bytes:
        try:
            return super().read(count)
        except EOFError:
            self.broken = (ShardFault.TRUNCATED, "the gzip stream ends early")
        except (zlib.error, gzip.BadGzipFile) as error:
            self.broken = (ShardFault.UNREADABLE, f"the gzip stream is broken: {error}")
        return b""

    def skip(self, count: int) -> None:
        while count > 0 and (data := self.read(min(count, _SKIP_BYTES))):
            count -= len(data)

    def jump(self, position: int) -> None:
        self.skip(position - self.position)
