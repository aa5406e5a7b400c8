"""Sizes that a header declares but no image has fail with a reason, and never end the decoder."""

from __future__ import annotations

import io
import struct
from itertools import product

import pytest

from dfn_ray.config import Rules
from dfn_ray.images.header import MAX_SIDE_PIXELS
from dfn_ray.preparing.rules import SizeRule
from dfn_ray.schema import Reason
from tests.images.test_decode import decoded, png_header
from tests.network.conftest import encoded, photo

MAX_UINT32 = 2**32 - 1
SIDES = (0, 1, 9, MAX_SIDE_PIXELS, MAX_SIDE_PIXELS + 1, MAX_UINT32)


def bmp(width: int, height: int) -> bytes:
    data = bytearray(encoded(photo(9, 9), "BMP"))
    struct.pack_into("<II", data, 18, width, height)
    return bytes(data)


def tiff(width: int, height: int, *, big: bool = False) -> bytes:
    """A TIFF with a different width and height in its directory."""
    file = io.BytesIO()
    photo(9, 9).save(file, "TIFF", big_tiff=big)
    data = bytearray(file.getvalue())
    entry, count, number = ("<HHQQ", "<Q", "<Q") if big else ("<HHII", "<H", "<I")
    (at,) = struct.unpack_from(number, data, 8 if big else 4)
    (entries,) = struct.unpack_from(count, data, at)
    at += struct.calcsize(count)
    for place in range(at, at + entries * struct.calcsize(entry), struct.calcsize(entry)):
        tag = struct.unpack_from("<H", data, place)[0]
        if tag in (256, 257):
            struct.pack_into(
                entry, data, place, tag, 16 if big else 4, 1, (width, height)[tag - 256]
            )
    return bytes(data)


def big_tiff(width: int, height: int) -> bytes:
    return tiff(width, height, big=True)


def webp(width: int, height: int) -> bytes:
    sides = ((max(side, 1) - 1) % 2**24 for side in (width, height))
    body = b"WEBPVP8X\n\0\0\0\0\0\0\0" + b"".join(side.to_bytes(3, "little") for side in sides)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg(width: int, height: int) -> bytes:
    data = bytearray(encoded(photo(9, 9), "JPEG"))
    struct.pack_into(">HH", data, data.index(b"\xff\xc0") + 5, height % 2**16, width % 2**16)
    return bytes(data)


def gif(width: int, height: int) -> bytes:
    data = bytearray(encoded(photo(9, 9), "GIF"))
    struct.pack_into("<HH", data, 6, width % 2**16, height % 2**16)
    return bytes(data)


def avif(width: int, height: int) -> bytes:
    data = bytearray(encoded(photo(9, 9), "AVIF"))
    struct.pack_into(">II", data, data.index(b"ispe") + 8, width, height)
    return bytes(data)


STATED = {
    "PNG": png_header,
    "BMP": bmp,
    "TIFF": tiff,
    "BigTIFF": big_tiff,
    "WEBP": webp,
    "JPEG": jpeg,
    "GIF": gif,
    "AVIF": avif,
}


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("form", STATED)
def test_no_stated_size_ends_the_decoder(form, mode):
    sizes = list(product(SIDES, SIDES)) + (
        [(2**63, 1), (2**64 - 1, 2**64 - 1)] if "Big" in form else []
    )
    images = [STATED[form](*size) for size in sizes]
    judge = SizeRule(Rules(min_image_side=2, max_aspect_ratio=3.0), [None] * len(images))
    result = decoded(*images, mode=mode, accept=judge)
    assert Reason.DECODE_CRASHED not in result.reason
    if form in ("PNG", "TIFF", "BigTIFF"):
        for size, reason, *found in zip(
            sizes, result.reason, result.width, result.height, strict=True
        ):
            if min(size) > 0 and max(size) > MAX_SIDE_PIXELS:
                assert (reason, *found) == (Reason.TOO_MANY_PIXELS, 0, 0), size
            elif min(size) > 0 and max(size) == MAX_SIDE_PIXELS:
                assert (reason, *found) == (Reason.TOO_MANY_PIXELS, *size), size


def test_a_side_longer_than_any_image_has_is_too_many_pixels_under_every_limit():
    result = decoded(png_header(MAX_UINT32, 1), max_pixels=2**80)
    assert result.reason == [Reason.TOO_MANY_PIXELS]


@pytest.mark.parametrize("place", [2**40, 2**63, 2**64 - 1])
def test_a_tiff_whose_directory_is_beyond_any_file_ends_early(place):
    data = b"II+\0\x08\0\0\0" + struct.pack("<Q", place) + b"\0" * 100
    assert decoded(data).reason == [Reason.TRUNCATED_IMAGE]
