"""Parquet files that contain a digest of themselves, to detect truncation and alteration.

The digest is stored right before the footer and covers the footer, all bytes before it and the
file's name. A reader of a few columns can verify the footer before parsing it; pages have their own
checksums. A reader of the whole file can verify every bit.
"""

from __future__ import annotations

import hashlib
import io
import re
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.untrusted.parquet_files import parse_footer, parse_metadata

_DIGEST_BYTES = 16
_SEAL_BYTES = 2 * _DIGEST_BYTES
"""The digest of the bytes before it, then the digest of that digest, the name and the footer."""
_END_BYTES = 8  # length of the footer and PAR1
TAIL_BYTES = 1 << 16
"""Size of the first read for a footer; footers are a few KiB."""
SCORES_TAIL_BYTES = 1 << 17
"""Size of the first read for status and scores: they are the last columns of a part, before the
footer. A request on S3 takes the client 4 ms, 128 KiB over 10 Gbit/s take 0.1 ms."""
WHOLE_BYTES = 1 << 20
"""Size of the first read for most columns of a part: contains a whole part of 30,000 samples."""
_ALTERED = "it does not match its digest"
_BY_CONTENT = re.compile(r"part-\d{6}-([0-9a-f]{32})\.parquet")


def parquet_bytes(rows: pa.Table, name: str = "", **settings: Any) -> bytes:
    """The rows as a Parquet file with page checksums; `settings` of `pyarrow.parquet.write_table`.

    `name` is the name of the file; empty for a file named by `content_name`.
    """
    # S3's client accepts only bytes; an Arrow buffer would have to be copied for it.
    sink = io.BytesIO()
    pq.write_table(rows, sink, write_page_checksum=True, **settings)
    with sink.getbuffer() as data:
        start = _footer_start(data)
        end, body = bytes(data[start:]), _digest(data[:start])
    sink.seek(start)
    sink.write(body + _digest(body, name.encode(), end) + end)
    return sink.getvalue()


def content_name(attempt: int, data: bytes) -> str:
    """Stem of a scores, subset or borderline file: its attempt and a digest of its content."""
    start = _footer_start(data)
    return f"part-{attempt:06d}-{data[start - _DIGEST_BYTES : start].hex()}"


def opened_parquet(
    file: IO[bytes], name: str, *, is_sealed: bool, pre_buffer: bool = False
) -> pq.ParquetFile:
    """The Parquet file, opened, with its footer checked, see `footer_of`.

    `pre_buffer` requests all columns of a read at once.
    """
    footer = footer_of(file, name, is_sealed=is_sealed)
    return pq.ParquetFile(
        file, metadata=footer, pre_buffer=pre_buffer, page_checksum_verification=True
    )


def footer_of(file: IO[bytes], name: str, *, is_sealed: bool) -> pq.FileMetaData:
    """The footer of the Parquet file. Raises ArrowInvalid when it does not match its digest.

    `is_sealed`: False for runs of format 1, whose files have no digests.
    """
    return parse_footer(_footer_end(file, name, is_sealed=is_sealed)).metadata


def footer_metadata(file: IO[bytes], name: str, *, is_sealed: bool) -> dict[bytes, bytes]:
    """The key-value metadata in the footer, read without Arrow, see `footer_of`."""
    return parse_metadata(_footer_end(file, name, is_sealed=is_sealed))


def _footer_end(file: IO[bytes], name: str, *, is_sealed: bool) -> bytes:
    """The footer and the 8 bytes after it."""
    tail = _tail(file)
    length = int.from_bytes(tail[-8:-4], "little") + _END_BYTES
    seal, end = tail[-length - _SEAL_BYTES : -length], tail[-length:]
    if is_sealed:
        by_content = _BY_CONTENT.fullmatch(name)
        body, digest = seal[:_DIGEST_BYTES], seal[_DIGEST_BYTES:]
        is_right = _digest(body, b"" if by_content else name.encode(), end) == digest
        if not is_right or (by_content and by_content[1] != digest.hex()):
            raise pa.ArrowInvalid(_ALTERED)
    return end


def verified_parquet(file: IO[bytes], name: str, *, is_sealed: bool) -> pq.ParquetFile:
    """`opened_parquet` with every bit of the file checked, read into memory."""
    data = file.read()
    found = opened_parquet(io.BytesIO(data), name, is_sealed=is_sealed)
    start = _footer_start(data) - _SEAL_BYTES
    body = data[start : start + _DIGEST_BYTES]
    if is_sealed and _digest(memoryview(data)[:start]) != body:
        raise pa.ArrowInvalid(_ALTERED)
    return found


def _footer_start(data: bytes | memoryview) -> int:
    return len(data) - _END_BYTES - int.from_bytes(data[-8:-4], "little")


def _tail(file: IO[bytes]) -> bytes:
    """The end of a file, with the whole footer and the digests before it, if it has both."""
    size = file.seek(0, io.SEEK_END)
    tail = _read_end(file, size, TAIL_BYTES)
    needed = int.from_bytes(tail[-8:-4], "little") + _END_BYTES + _SEAL_BYTES
    return tail if needed <= len(tail) else _read_end(file, size, needed)


def _read_end(file: IO[bytes], size: int, count: int) -> bytes:
    file.seek(max(0, size - count))
    return file.read()


def _digest(*pieces: bytes | memoryview) -> bytes:
    digest = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()
