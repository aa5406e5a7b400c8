"""The structure of image files: the parts that pixels depend on, and detection of truncated files.

Works on bytes only and decodes nothing; every function takes time linear in the size of the file.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Literal, NamedTuple

_PNG_HEAD_BYTES = 8 + 25
"""Signature and IHDR."""
_PNG_EMPTY_BYTES = 12
"""A chunk without data: length, kind and checksum."""
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"
_PNG_PIXEL_CHUNKS = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND"})
_PADDING = b"\0\r\n \xff"
"""Bytes that some writers append to a file."""


class _PngChunk(NamedTuple):
    kind: bytes
    start: int
    """Offset of its length field."""
    end: int
    """Offset after its checksum; beyond the end of the file if the chunk is truncated."""


def png_pixel_chunks(data: bytes | memoryview) -> bytes:
    """Returns a PNG with only the chunks that its pixels depend on.

    Texts, profiles and EXIF are removed unread: a few kilobytes of them can decompress to a
    gigabyte, and Pillow fails on those above its limits. Neither they nor transparency, which is
    dropped, affect RGB pixels. Nor do IDAT chunks without data after the first one, each of which
    costs Pillow some microseconds.
    """
    view = memoryview(data)
    kept = io.BytesIO()
    kept.write(view[:8])
    has_pixels = False
    for chunk in _png_chunks(view):
        is_empty = chunk.kind == b"IDAT" and chunk.end - chunk.start == _PNG_EMPTY_BYTES
        if chunk.kind in _PNG_PIXEL_CHUNKS and not (is_empty and has_pixels):
            kept.write(view[chunk.start : chunk.end])
        has_pixels = has_pixels or chunk.kind == b"IDAT"
    return kept.getvalue()


def png_checksums_hold(data: bytes | memoryview) -> bool:
    """True if all complete pixel chunks have correct checksums; Pillow does not check IDAT's."""
    view = memoryview(data)
    return all(
        zlib.crc32(view[chunk.start + 4 : chunk.end - 4])
        == int.from_bytes(view[chunk.end - 4 : chunk.end], "big")
        for chunk in _png_chunks(view)
        if chunk.kind in _PNG_PIXEL_CHUNKS and chunk.end <= len(view)
    )


def _png_chunks(view: memoryview) -> Iterator[_PngChunk]:
    at = 8
    while at + 8 <= len(view):
        kind = bytes(view[at + 4 : at + 8])
        end = at + 12 + int.from_bytes(view[at : at + 4], "big")
        yield _PngChunk(kind, at, end)
        if kind == b"IEND":
            return
        at = end


def ends_early(data: bytes | memoryview, form: str) -> bool:
    """True if a file whose decoder failed is truncated, rather than damaged at full length.

    A file that ends within its header, before width and height, counts as damaged.
    """
    return _ENDS_EARLY[form](bytes(data))


def _png_ends_early(data: bytes) -> bool:
    # The end chunk may be anywhere: a chunk length corrupted to a large value must not look like
    # truncation.
    return len(data) >= _PNG_HEAD_BYTES and _PNG_END not in data[8:]


def _jpeg_ends_early(data: bytes) -> bool:
    return not data.rstrip(_PADDING[:-1]).endswith(b"\xff\xd9")


def _gif_ends_early(data: bytes) -> bool:
    return len(data) >= 13 and not data.rstrip(_PADDING).endswith(b"\0;")


def _riff_ends_early(data: bytes) -> bool:
    return len(data) >= 12 and len(data) < int.from_bytes(data[4:8], "little") + 8


def _bmp_ends_early(data: bytes) -> bool:
    """True if pixels are missing; counts them, because the size in the header is often wrong."""
    if len(data) < 26:
        return False
    start, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = size = 0
    elif len(data) < 54:
        return True
    else:
        width, height, _, bits, compression, size = struct.unpack_from("<iiHHII", data, 18)
    if compression in (1, 2):  # run lengths: an end-of-bitmap mark
        return not data.rstrip(_PADDING).endswith(b"\x01") or len(data) < start + size
    return len(data) < start + abs(height) * ((width * bits + 31) // 32 * 4)


def _iso_ends_early(data: bytes) -> bool:
    """True if a box extends beyond the end, or the box with the pictures is missing."""
    at, kinds = 0, set[bytes]()
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kinds.add(data[at + 4 : at + 8])
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        elif size == 0:  # to the end of the file
            size = len(data) - at
        if size < 8:
            return False
        at += size
    return at != len(data) or b"mdat" not in kinds


_TIFF_PLACES = (273, 324)  # StripOffsets, TileOffsets
_TIFF_SIZES = (279, 325)  # StripByteCounts, TileByteCounts
_TIFF_SIDES = (322, 323)  # TileWidth, TileLength
_MAX_TIFF_ENTRIES = 4096  # libtiff's maximum
_TIFF_WHOLE_NUMBERS = (1, 3, 4, 6, 8, 9, 16, 17)  # types that libtiff accepts for a side
_TIFF_INTEGERS = {3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_TIFF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8} | {
    13: 4, 16: 8, 17: 8, 18: 8
}  # fmt: skip


class _TiffEntry(NamedTuple):
    tag: int
    kind: int
    start: int
    """Offset of its values."""
    end: int
    """Offset after its values; beyond the end of the file if they are truncated."""


def tiff_tile_pixels(data: bytes | memoryview) -> int:
    """Returns width times height of a tile of a TIFF's first image; 0 if it has no tiles.

    libtiff fills whole tiles, however small the image is: a file of 4 MB with a 1x1 image in one
    tile of 30,000x32,000 takes 1 GB.
    """
    sides: dict[int, int] = {}
    with contextlib.suppress(struct.error, OverflowError):  # beyond the end, or beyond any file
        for entry in _tiff_entries(data):
            if entry.tag in _TIFF_SIDES and entry.kind in _TIFF_WHOLE_NUMBERS:
                value = data[entry.start : min(entry.end, entry.start + 8)]  # a single value
                side = int.from_bytes(value, _byte_order(data))
                sides[entry.tag] = max(side, sides.get(entry.tag, 0))
    return math.prod(sides.get(tag, 0) for tag in _TIFF_SIDES)


def _tiff_ends_early(data: bytes) -> bool:
    """True if the directory, values that it points to, a strip or a tile extend beyond the end.

    Entries may share their values, so only the first entry of each list is read, without a copy.
    """
    order = "<" if _byte_order(data) == "little" else ">"
    found: dict[int, Iterable[tuple[int]]] = {}
    try:
        for entry in _tiff_entries(data):
            if entry.end > len(data):
                return True
            tag, kind = entry.tag, entry.kind
            if tag in _TIFF_PLACES + _TIFF_SIZES and tag not in found and kind in _TIFF_INTEGERS:
                values = memoryview(data)[entry.start : entry.end]
                found[tag] = struct.iter_unpack(order + _TIFF_INTEGERS[kind], values)
    except (struct.error, OverflowError):  # the directory extends beyond the end, or any file
        return len(data) >= 8
    return any(
        place + size > len(data)
        for places, sizes in zip(_TIFF_PLACES, _TIFF_SIZES, strict=True)
        for (place,), (size,) in zip(found.get(places, ()), found.get(sizes, ()), strict=False)
    )


def _tiff_entries(data: bytes | memoryview) -> Iterator[_TiffEntry]:
    """The entries of the first directory. Raises struct.error if it extends beyond the end."""
    order = "<" if _byte_order(data) == "little" else ">"
    big = 43 in data[2:4]
    entry, number = (order + "HHQ", order + "Q") if big else (order + "HHI", order + "I")
    at = struct.unpack_from(number, data, 8 if big else 4)[0]
    count = order + ("Q" if big else "H")
    entries = struct.unpack_from(count, data, at)[0]
    at += struct.calcsize(count)
    for _ in range(min(entries, _MAX_TIFF_ENTRIES)):
        tag, kind, values = struct.unpack_from(entry, data, at)
        start = at + struct.calcsize(entry)
        at = start + struct.calcsize(number)
        size = values * _TIFF_TYPE_BYTES.get(kind, 0)
        if size > at - start:
            start = struct.unpack_from(number, data, start)[0]
        yield _TiffEntry(tag, kind, start, start + size)


def _byte_order(data: bytes | memoryview) -> Literal["little", "big"]:
    return "little" if data[:2] == b"II" else "big"


_ENDS_EARLY = {
    "PNG": _png_ends_early,
    "JPEG": _jpeg_ends_early,
    "GIF": _gif_ends_early,
    "WEBP": _riff_ends_early,
    "BMP": _bmp_ends_early,
    "AVIF": _iso_ends_early,
    "TIFF": _tiff_ends_early,
}
