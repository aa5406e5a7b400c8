"""Bodies of HTTP responses: read up to their expected length, decoded, hashed."""

from __future__ import annotations

import gzip
import hashlib
import tempfile
import zlib
from collections.abc import Callable
from typing import IO

from aiohttp import ClientResponse

from dfn_ray.storage import http_headers
from dfn_ray.storage.causes import RefusalError, Verdict
from dfn_ray.storage.filesystems import READ_AHEAD_BYTES

WHOLE_LIMIT_BYTES = 8 * 2**30
"""The largest file that is fetched whole. Shards are seldom above 1 GiB; the file occupies the
temporary folder."""
_PIECE_BYTES = 2**20


def temporary() -> IO[bytes]:
    """A temporary file, kept in memory up to one read-ahead block."""
    return tempfile.SpooledTemporaryFile(max_size=READ_AHEAD_BYTES)


async def body(answer: ClientResponse, size: int) -> bytes:
    """The body of a response.

    Raises RefusalError if it has another size, without reading further.
    """
    data = bytearray()
    async for piece in answer.content.iter_chunked(_PIECE_BYTES):
        data += piece
        if len(data) > size:
            raise length_error(f"more than {size:,}", size)
    if len(data) < size:
        raise length_error(f"{len(data):,}", size)
    return bytes(data)


async def copy(answer: ClientResponse, to: IO[bytes], extend: Callable[[], None], most: int) -> int:
    """Writes a response's body as it arrives and returns its size; stops beyond `most` bytes."""
    received = counted = 0
    announced = http_headers.length(answer)
    async for piece in answer.content.iter_chunked(_PIECE_BYTES):
        received += len(piece)
        _require_small(received)
        if announced is not None and received > announced:
            break
        if received > most:
            return received
        to.write(piece)
        if received - counted >= READ_AHEAD_BYTES:
            counted = received
            extend()
    if announced is not None and received != announced:
        raise length_error(f"{received:,}", announced)
    return received


def digest(file: IO[bytes]) -> bytes:
    """The BLAKE2b digest of a file."""
    state = hashlib.blake2b()
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):
        state.update(piece)
    return state.digest()


def length_error(got: str, size: int) -> RefusalError:
    """The transient error for a body of unexpected size."""
    return RefusalError(f"got {got} bytes of {size:,}", Verdict.TRANSIENT)


def decode(encoded: IO[bytes], to: IO[bytes], most: int) -> int:
    """Writes the content of a gzip stream and returns its size; stops beyond `most` bytes."""
    encoded.seek(0)
    size = 0
    try:
        with gzip.GzipFile(fileobj=encoded, mode="rb") as stream:
            while piece := stream.read(_PIECE_BYTES):
                size += len(piece)
                _require_small(size)
                if size > most:
                    break
                to.write(piece)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise RefusalError(f"its gzip encoding is broken: {error}", Verdict.TRANSIENT) from error
    return size


def _require_small(size: int) -> None:
    if size > WHOLE_LIMIT_BYTES:
        raise RefusalError(
            "the server does not support ranges, and the file is larger than "
            f"{WHOLE_LIMIT_BYTES:,} bytes; copy it to a store that supports them",
            Verdict.ACCESS,
        )
