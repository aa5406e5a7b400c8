"""The bytes of a file from front to back: read, skipped, counted."""

from __future__ import annotations

import zlib
from typing import IO

from dfn_ray.schema import ShardFault

_CHUNK_BYTES = 2**17  # of a compressed file, read and unpacked at a time
_SKIP_BYTES = 2**20  # a compressed tape is skipped by reading; this much at a time bounds memory


class Tape:
    """A plain file. Skipped bytes are not read, as far as the store allows."""

    can_jump = True
    """True if `jump` costs no more than a seek."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.size_bytes = file.seek(0, 2)
        """Bytes in the store."""
        file.seek(0)
        self.position = 0
        """Bytes passed so far, after decompression."""

    @property
    def broken(self) -> tuple[ShardFault, str] | None:
        """The reason why the rest cannot be read, if the tape ends before the end of the file."""
        return None

    @property
    def verified(self) -> int:
        """Position after the last compressed stream whose checksum matched.

        After decompression.
        """
        return 0

    def stored_at(self, position: int) -> int:
        """The position in the store of a position just passed; approximate if compressed."""
        return position

    def read(self, count: int) -> bytes:
        """The next `count` bytes; fewer only at the end of the tape."""
        data = self._file.read(count)
        self.position += len(data)
        return data

    def skip(self, count: int) -> None:
        """Skips `count` bytes, or as many as there are."""
        self.jump(min(self.position + count, self.size_bytes))

    def jump(self, position: int) -> None:
        """Moves to `position`."""
        if position != self.position:
            self._file.seek(position)
            self.position = position


class GzipTape(Tape):
    """A gzip file, decompressed as it is read."""

    can_jump = False

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self._compressed = file
        self._streams = _GzipStreams(file)
        self._piece, self._at = b"", 0

    @property
    def broken(self) -> tuple[ShardFault, str] | None:
        """Damage of the gzip streams, if any."""
        return self._streams.broken

    @property
    def verified(self) -> int:
        """Position after the last stream whose checksum matched, after decompression."""
        return self._streams.verified

    def stored_at(self, position: int) -> int:
        """The position in the compressed file, approximately."""
        return self._compressed.tell()

    def read(self, count: int) -> bytes:
        """The next `count` bytes after decompression; fewer only at the end or at damage."""
        # Pieces have one size whatever the request, so that the position in the store depends on
        # the position after decompression alone.
        data = self._taken(count)
        if len(data) < count:
            pieces = [data]
            missing = count - len(data)
            while missing and (piece := self._next(missing)):
                pieces.append(piece)
                missing -= len(piece)
            data = b"".join(pieces)
        self.position += len(data)
        return data

    def _next(self, count: int) -> bytes:
        self._piece, self._at = self._streams.next_piece(), 0
        return self._taken(count)

    def _taken(self, count: int) -> bytes:
        data = self._piece[self._at : self._at + count]
        self._at += len(data)
        return data

    def skip(self, count: int) -> None:
        """Skips `count` bytes by decompressing them."""
        while count > 0 and (data := self.read(min(count, _SKIP_BYTES))):
            count -= len(data)

    def jump(self, position: int) -> None:
        """Moves forward to `position`."""
        self.skip(position - self.position)


class _GzipStreams:
    """The content of consecutive gzip streams (RFC 1952, 2.2), with or without zeros between them.

    Unlike `gzip.GzipFile` it records how far checksums matched, and returns the content before
    damage.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._packed = b""
        self._stream: zlib._Decompress | None = None
        self._step = _CHUNK_BYTES
        self._given = 0
        self.verified = 0
        self.broken: tuple[ShardFault, str] | None = None

    def next_piece(self) -> bytes:
        """The next content, at most `_CHUNK_BYTES`; empty at the end or at damage."""
        while self.broken is None:
            ended = not self._packed and not self._read()
            if self._stream is None:
                self._packed = self._packed.lstrip(b"\0")
                if ended:
                    break
                if not self._packed:
                    continue
                self._stream = zlib.decompressobj(wbits=31)  # gzip's header and checksum
            if data := self._unpack(self._stream):
                return data
            if ended and self._stream is not None:
                self.broken = (ShardFault.TRUNCATED, "the gzip stream is truncated")
        return b""

    def _read(self) -> bool:
        self._packed = self._file.read(_CHUNK_BYTES)
        return bool(self._packed)

    def _unpack(self, stream: zlib._Decompress) -> bytes:
        """The next content of the stream, if its packed bytes suffice.

        zlib discards the output of a call that meets damage, so from there on steps become smaller,
        down to a byte.
        """
        before = stream.copy()
        try:
            data = stream.decompress(self._packed, self._step)
        except zlib.error as error:
            if self._step == 1:
                self.broken = (ShardFault.UNREADABLE, f"the gzip stream is broken: {error}")
            self._stream, self._step = before, 512 if self._step > 512 else 1
            return b""
        self._given += len(data)
        self._packed = stream.unconsumed_tail
        if stream.eof:
            self.verified, self._packed, self._stream = self._given, stream.unused_data, None
        return data
