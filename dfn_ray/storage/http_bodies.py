"""Bodies of a web server's answers: taken no further than they should be long, decoded, compared."""

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
"""The largest file that is fetched whole. Shards are seldom above 1 GiB, and it takes as much of the temporary folder."""
_PIECE_BYTES = 2**20


def temporary() -> IO[bytes]:
    """A file that is on disk once it is larger than a block."""
    return tempfile.SpooledTemporaryFile(max_size=READ_AHEAD_BYTES)


async def body(answer: ClientResponse, size: int) -> bytes:
    """The body of an answer; raises RefusalError when it is not of this size, without reading on behind it."""
    data = bytearray()
    async for piece in answer.content.iter_chunked(_PIECE_BYTES):
        data += piece
        if len(data) > size:
            raise other_length(f"more than {size:,}", size)
    if len(data) < size:
        raise other_length(f"{len(data):,}", size)
    return bytes(data)


async def copy(answer: ClientResponse, to: IO[bytes], extend: Callable[[], None], most: int) -> int:
    """Write the body of an answer as it comes; how many bytes it has. Stops once there are more than `most`."""
    came = counted = 0
    announced = http_headers.length(answer)
    async for piece in answer.content.iter_chunked(_PIECE_BYTES):
        came += len(piece)
        _require_small(came)
        if announced is not None and came > announced:
            break
        if came > most:
            return came
        to.write(piece)
        if came - counted >= READ_AHEAD_BYTES:
            counted = came
            extend()
    if announced is not None and came != announced:
        raise other_length(f"{came:,}", announced)
    return came


def digest(file: IO[bytes]) -> bytes:
    """A digest of all bytes of a file."""
    state = hashlib.blake2b()
    file.seek(0)
    while piece := file.read(_PIECE_BYTES):
        state.update(piece)
    return state.digest()


def other_length(came: str, size: int) -> RefusalError:
    """The error, which may pass, for a body that is not of the size it should be."""
    return RefusalError(f"{came} bytes came of {size:,}", Verdict.PASSING)


def decoded(encoded: IO[bytes], to: IO[bytes], most: int) -> int:
    """Write what a gzip stream holds; how many bytes it is. Stops once there are more than `most`."""
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
        raise RefusalError(f"its gzip encoding is broken: {error}", Verdict.PASSING) from error
    return size


def _require_small(size: int) -> None:
    if size > WHOLE_LIMIT_BYTES:
        raise RefusalError(
            f"the server has no ranges, and it is larger than {WHOLE_LIMIT_BYTES:,} bytes; copy it to a store that "
            "has them",
            Verdict.ACCESS,
        )
