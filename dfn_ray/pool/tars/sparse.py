"""Sparse members: files whose holes a tar omits, with a map of the stored parts.

GNU tar has four forms of it ("Storing Sparse Files" in its manual): the old header of type `S` with
blocks that extend its map, and the PAX forms 0.0 (a record for each number), 0.1 (one record) and
1.0 (lines before the data).
"""

from __future__ import annotations

from typing import NamedTuple

from dfn_ray.pool.tars.tape import Tape
from dfn_ray.pool.tars.tar_headers import BLOCK_BYTES, SPARSE_MAP, field_number

_MAX_EXTENTS = 2**17
"""A file of 1 GiB, the maximum of `max_image_bytes`, in which every second 4 KiB are a hole."""
_EXTENT_BYTES = 24
_MAX_LINE_BYTES = 20  # digits of 2^64

Extents = tuple[tuple[int, int], ...]
"""Offset in the file and length of each stored stretch, in storage order."""


class SparseMap(NamedTuple):
    """The size of a file including its holes, and the places of its stored bytes."""

    size_bytes: int
    extents: Extents


class BrokenMapError(ValueError):
    """A sparse map that describes no file.

    Never leaves `pool`: it becomes the fault of one sample.
    """


def is_sparse(records: dict[str, str]) -> bool:
    """True if PAX records describe a sparse file."""
    return SPARSE_MAP in records or "GNU.sparse.size" in records or "GNU.sparse.major" in records


def old_gnu_map(tape: Tape, header: bytes, stored_bytes: int) -> SparseMap:
    """The map in a header of type `S` and in the blocks after it.

    These are read whatever they contain. Raises BrokenMapError.
    """
    numbers = _numbers(header[386:482])
    extended = header[482]
    while extended:
        block = tape.read(BLOCK_BYTES)
        if len(block) < BLOCK_BYTES:
            break  # the walk detects that the member is truncated
        extended = block[504]
        if len(numbers) <= 2 * _MAX_EXTENTS:
            numbers += _numbers(block[:504])
    return _checked(field_number(header[483:495]), numbers, stored_bytes)


def pax_map(tape: Tape, records: dict[str, str], stored_bytes: int) -> SparseMap:
    """The map in PAX records, or at the front of the member's own bytes.

    Reads no more than the map. Raises BrokenMapError.
    """
    start = tape.position
    size = _number(records.get("GNU.sparse.realsize", records.get("GNU.sparse.size", "")).encode())
    major = records.get("GNU.sparse.major", "0")
    if major == "0":
        text = records.get(SPARSE_MAP, "")
        numbers = [_number(value) for value in text.encode().split(b",")] if text else []
        return _checked(size, numbers, stored_bytes)
    if (major, records.get("GNU.sparse.minor")) != ("1", "0"):
        raise BrokenMapError(f"a sparse map of version {major[:20]!r}")
    numbers = _lines(tape, stored_bytes)
    return _checked(size, numbers, stored_bytes - (tape.position - start))


def expanded(stored: bytes, size_bytes: int, extents: Extents) -> bytes:
    """The file with its holes, from the bytes of its extents in sequence."""
    data = bytearray(size_bytes)
    position = 0
    for offset, length in extents:
        piece = stored[position : position + length]
        data[offset : offset + len(piece)] = piece
        position += length
    return bytes(data)


def _numbers(fields: bytes) -> list[int | None]:
    """The numbers of a map's binary part, up to the first entry without a length."""
    numbers: list[int | None] = []
    for at in range(0, len(fields) - _EXTENT_BYTES + 1, _EXTENT_BYTES):
        if not fields[at + 12]:
            break
        numbers.append(field_number(fields[at : at + 12]))
        numbers.append(field_number(fields[at + 12 : at + _EXTENT_BYTES]))
    return numbers


def _lines(tape: Tape, stored_bytes: int) -> list[int | None]:
    """The numbers of a map of version 1.0: lines in whole blocks, first the number of pairs."""
    lines: list[bytes] = []
    wanted, rest, left = 1, b"", stored_bytes
    while len(lines) < wanted and len(rest) <= _MAX_LINE_BYTES:
        block = tape.read(min(BLOCK_BYTES, left))
        left -= len(block)
        *more, rest = (rest + block).split(b"\n")
        lines += more
        if wanted == 1 and lines:
            wanted = 1 + 2 * min(_number(lines[0]) or 0, _MAX_EXTENTS + 1)
        if not block:
            break
    if len(lines) < wanted or _number(lines[0]) is None:
        raise BrokenMapError("a sparse map without an end")
    return [_number(line) for line in lines[1:wanted]]


def _number(text: bytes) -> int | None:
    """A decimal number, or None for any other text."""
    return int(text) if text.isdigit() and len(text) <= _MAX_LINE_BYTES else None


def _checked(size: int | None, numbers: list[int | None], stored_bytes: int) -> SparseMap:
    """The map of these numbers. Raises BrokenMapError unless it fits the stored bytes."""
    whole = [number for number in numbers if number is not None]
    if size is None or size < 0 or len(whole) < len(numbers) or len(whole) % 2:
        raise BrokenMapError("a sparse map that is not a list of numbers")
    if len(whole) > 2 * _MAX_EXTENTS:
        raise BrokenMapError(f"a sparse map with more than {_MAX_EXTENTS:,} extents")
    extents = tuple(zip(whole[::2], whole[1::2], strict=True))
    end = 0
    for offset, length in extents:
        if offset < end or length < 0:
            raise BrokenMapError(f"a sparse map that goes back at {offset}")
        end = offset + length
    if end > size:
        raise BrokenMapError(f"a sparse map that ends at {end} in a file of {size} bytes")
    if sum(whole[1::2]) > stored_bytes:
        raise BrokenMapError(f"a sparse map of more than the {stored_bytes} bytes stored")
    return SparseMap(size, tuple(extent for extent in extents if extent[1]))
