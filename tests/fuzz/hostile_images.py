"""Images written to take memory or time: oversized tiles, chunks without data, endless prologs."""

from __future__ import annotations

import io
import struct
import zlib
from random import Random
from typing import NamedTuple

from PIL import Image

from dfn_ray.schema import Reason

_FORMS = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i"}
"""TIFF's integer types, as `struct` codes."""


class Hostile(NamedTuple):
    """An image and its permitted outcomes; None means decoded."""

    data: bytes
    note: str
    reasons: tuple[Reason | None, ...]


def hostile_image(rng: Random) -> Hostile:
    """A hostile image of any kind."""
    return rng.choice((_tile, _png, _shared_entries, _prolog))(rng)


def tiled_tiff(
    width: int, height: int, tile: bytes, *, kind: int = 4, order: str = "<", sides: int = 1
) -> bytes:
    """A grey deflated TIFF of sides x sides pixels with one tile of another size."""
    entries = [
        (256, 4, sides), (257, 4, sides), (258, 3, 8), (259, 3, 8), (262, 3, 1), (277, 3, 1),
        (322, kind, width), (323, kind, height), (324, 4, 8 + 2 + 12 * 10 + 4), (325, 4, len(tile)),
    ]  # fmt: skip
    directory = b"".join(
        struct.pack(f"{order}HHI", tag, kind, 1)
        + struct.pack(order + _FORMS[kind], value).ljust(4, b"\0")
        for tag, kind, value in entries
    )
    mark = b"II*\0" if order == "<" else b"MM\0*"
    head = mark + struct.pack(f"{order}IH", 8, len(entries))
    return head + directory + bytes(4) + tile


def tiff_of_shared_values(entries: int, numbers: bytes) -> bytes:
    """A TIFF whose entries all point to the same 4-byte numbers.

    They serve as offsets and sizes of strips and tiles.
    """
    directory = b"".join(
        struct.pack("<HHII", (273, 279, 324, 325)[at % 4], 4, len(numbers) // 4, 14 + 12 * entries)
        for at in range(entries)
    )
    return b"II*\0" + struct.pack("<IH", 8, entries) + directory + bytes(4) + numbers


def png_chunk(kind: bytes, data: bytes = b"") -> bytes:
    """A complete PNG chunk."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(png: bytes, chunks: bytes) -> bytes:
    """A PNG with chunks before its pixels."""
    at = png.index(b"IDAT") - 4
    return png[:at] + chunks + png[at:]


def _tile(rng: Random) -> Hostile:
    side = rng.choice((256, 4096, 20_000, 32_752))
    stored = 65_536 if side == 256 else rng.choice((0, 100_000))
    data = tiled_tiff(
        side,
        side,
        zlib.compress(bytes(stored)),
        kind=rng.choice((3, 4)),
        order=rng.choice("<>"),
        sides=rng.choice((1, 50)),
    )
    return Hostile(data, f"a tile of {side}", (None,) if side == 256 else (Reason.TOO_MANY_PIXELS,))


def _png(rng: Random) -> Hostile:
    file = io.BytesIO()
    Image.new("RGB", (20, 20), (200, 30, 60)).save(file, "PNG")
    pieces = [png_chunk(kind) for kind in (b"IDAT", b"tEXt", b"abCd")]
    odd = b"".join(rng.sample(pieces, rng.randint(1, 3))) * rng.choice((1, 3000))
    return Hostile(with_chunks(file.getvalue(), odd), "a PNG of empty chunks", (None,))


def _shared_entries(rng: Random) -> Hostile:
    data = tiff_of_shared_values(rng.choice((4, 4096, 65_535)), bytes(4 * rng.choice((1, 20_000))))
    return Hostile(data, "a TIFF of shared values", (Reason.DECODE_ERROR, Reason.TRUNCATED_IMAGE))


def _prolog(rng: Random) -> Hostile:
    pieces = (b"<!---->", b"<!--", b" ", b"<?xml ?>", b"<!DOCTYPE svg>", b"#\n", b">")
    data = b"<" + b"".join(rng.choices(pieces, k=3)) * 3000
    return Hostile(data, "a prolog without end", (Reason.NOT_AN_IMAGE,))
