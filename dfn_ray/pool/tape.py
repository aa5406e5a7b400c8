"""The bytes of a file from front to back: read, skipped over, counted."""

from __future__ import annotations

import io
import zlib
from typing import IO, TYPE_CHECKING

from dfn_ray.schema import ShardFault

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

_CHUNK_BYTES = 2**17  # of a compressed file, read and unpacked at a time
_SKIP_BYTES = 2**20  # a compressed tape is skipped by reading; this much at a time bounds memory


class Tape:
    """A plain file. What is skipped is not read, as far as the store allows."""

    can_jump = True
    """True when `jump` costs no more than a seek."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size_bytes = file.seek(0, 2)
        """Bytes in the store."""
        file.seek(0)
        self.position = 0
        """Bytes passed so far, after decompression."""

    @property
    def broken(self) -> tuple[ShardFault, str] | None:
        """Why what follows cannot be read, where the end is not the end of the file."""
        return None

    @property
    def proven(self) -> int:
        """Where the last stream of a compressed file ends whose checksum fitted; position after decompression."""
        return 0

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
        self._streams = _GzipStreams(file)
        self._file = io.BufferedReader(self._streams, _CHUNK_BYTES)

    @property
    def broken(self) -> tuple[ShardFault, str] | None:
        return self._streams.broken

    @property
    def proven(self) -> int:
        return self._streams.proven

    @property
    def passed_bytes(self) -> int:
        return self._compressed.tell()

    def skip(self, count: int) -> None:
        while count > 0 and (data := self.read(min(count, _SKIP_BYTES))):
            count -= len(data)

    def jump(self, position: int) -> None:
        self.skip(position - self.position)


class _GzipStreams(io.RawIOBase):
    """The content of gzip streams that follow each other (RFC 1952, 2.2), with zeros between them or not.

    Unlike `gzip.GzipFile` it says up to where checksums fitted, and gives what stands before the damage.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._packed = b""
        self._stream: zlib._Decompress | None = None
        self._step = _CHUNK_BYTES
        self._given = 0
        self.proven = 0
        self.broken: tuple[ShardFault, str] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        room = memoryview(buffer).cast("B")
        while self.broken is None:
            ended = not self._packed and not self._read()
            if self._stream is None:
                self._packed = self._packed.lstrip(b"\0")
                if ended:
                    return 0
                if not self._packed:
                    continue
                self._stream = zlib.decompressobj(wbits=31)  # gzip's header and checksum
            data = self._unpack(self._stream, len(room))
            if data:
                room[: len(data)] = data
                return len(data)
            if ended and self._stream is not None:
                self.broken = (ShardFault.TRUNCATED, "the gzip stream ends early")
        return 0

    def _read(self) -> bool:
        self._packed = self._file.read(_CHUNK_BYTES)
        return bool(self._packed)

    def _unpack(self, stream: zlib._Decompress, count: int) -> bytes:
        """What comes next in the stream, if its packed bytes suffice.

        zlib keeps nothing of a call that meets damage, so from there on ever smaller steps are taken, down to a byte.
        """
        before = stream.copy()
        try:
            data = stream.decompress(self._packed, min(count, self._step))
        except zlib.error as error:
            if self._step == 1:
                self.broken = (ShardFault.UNREADABLE, f"the gzip stream is broken: {error}")
            self._stream, self._step = before, 512 if self._step > 512 else 1
            return b""
        self._given += len(data)
        self._packed = stream.unconsumed_tail
        if stream.eof:
            self.proven, self._packed, self._stream = self._given, stream.unused_data, None
        return data
