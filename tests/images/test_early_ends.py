"""Truncated files, damaged files, and files of which nothing was decoded are distinguished."""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from dfn_ray.images.structure import _ENDS_EARLY, ends_early
from dfn_ray.schema import Note, Reason
from tests.images.test_decode import SQUASH, TRANSFORM, USUAL, decoded
from tests.network.conftest import encoded, photo

PHOTO = photo(160, 120)
MODES = ("exact", "fast")
PADDED = replace(TRANSFORM, resize_mode="longest", fill_color=90)


def deflated_tiff() -> bytes:
    """A TIFF with its directory first, as many writers write it, and one strip per 8 rows."""
    file = io.BytesIO()
    pixels = np.asarray(PHOTO)
    tifffile.imwrite(file, pixels, photometric="rgb", compression="zlib", rowsperstrip=8)
    return file.getvalue()


PARTLY = {
    "jpeg": encoded(PHOTO, "JPEG"),
    "progressive jpeg": encoded(PHOTO, "JPEG", progressive=True),
    "grey jpeg": encoded(PHOTO.convert("L"), "JPEG"),
    "cmyk jpeg": encoded(PHOTO.convert("CMYK"), "JPEG"),
    "png": encoded(PHOTO, "PNG"),
    "palette png": encoded(PHOTO.convert("P"), "PNG"),
    "gif": encoded(PHOTO, "GIF", interlace=False),
    "gif with transparency": encoded(PHOTO.convert("P"), "GIF", transparency=7, interlace=False),
    "bmp": encoded(PHOTO, "BMP"),
    "palette bmp": encoded(PHOTO.convert("P"), "BMP"),
    "tiff": encoded(PHOTO, "TIFF"),
    "deflated tiff": deflated_tiff(),
    "red bmp": encoded(Image.new("RGB", (160, 120), "red"), "BMP"),
    "red png": encoded(Image.new("RGB", (640, 480), "red"), "PNG"),
}
"""A file of one of these kinds that is cut in half is decoded in part."""
WHOLE_OR_NOT = {
    "webp": encoded(PHOTO, "WEBP"),
    "lossless webp": encoded(PHOTO, "WEBP", lossless=True),
    "avif": encoded(PHOTO, "AVIF"),
    "tiff whose directory is last": encoded(PHOTO, "TIFF", compression="tiff_lzw"),
}


def half(files):
    return [data[: len(data) // 2] for data in files.values()]


@pytest.mark.parametrize("mode", MODES)
def test_what_is_there_of_a_file_that_ends_early_is_scored_and_counted(mode):
    result = decoded(*half(PARTLY), mode=mode)
    assert dict(zip(PARTLY, result.reason, strict=True)) == dict.fromkeys(PARTLY)
    exactly = 4 if mode == "fast" else 0
    assert result.notes == {Note.TRUNCATED_SCORED: len(PARTLY)} | (
        {Note.DECODED_EXACTLY: exactly} if exactly else {}
    )
    whole = decoded(*PARTLY.values(), mode=mode)
    assert whole.notes == {}
    for name, cut, full in zip(PARTLY, result.pixels[0], whole.pixels[0], strict=True):
        top = slice(-15, None) if "bmp" in name else slice(15)  # BMPs begin with their last row
        if "progressive" not in name:
            assert np.abs(cut[top].astype(int) - full[top]).mean() < 4, name


@pytest.mark.parametrize("mode", MODES)
def test_a_file_that_ends_early_is_failed_when_that_is_asked_for(mode):
    files = PARTLY | WHOLE_OR_NOT
    result = decoded(*half(files), mode=mode, on_truncated="fail")
    assert dict(zip(files, result.reason, strict=True)) == dict.fromkeys(
        files, Reason.TRUNCATED_IMAGE
    )
    assert result.notes == {}


def test_formats_that_are_decoded_whole_or_not_at_all_fail_when_they_end_early():
    result = decoded(*half(WHOLE_OR_NOT))
    assert result.reason == [Reason.TRUNCATED_IMAGE] * len(WHOLE_OR_NOT)


def pixels_begin(data: bytes, format: str) -> int:
    """Bytes of the file before the first byte of pixel data."""
    if format == "jpeg":
        scan = data.rindex(b"\xff\xda")
        return scan + 2 + int.from_bytes(data[scan + 2 : scan + 4], "big")
    if format == "png":
        return data.index(b"IDAT") + 4
    if format == "bmp":
        return int.from_bytes(data[10:14], "little")
    return data.rindex(b"\0\0\0\0\xa0\0\x78\0") + 10  # gif: its image descriptor


@pytest.mark.parametrize("on_truncated", ["score", "fail"])
@pytest.mark.parametrize("more_bytes", [0, 2])
def test_a_file_of_which_nothing_was_decoded_is_never_scored(on_truncated, more_bytes):
    cut = [
        PARTLY[format][: pixels_begin(PARTLY[format], format) + more_bytes]
        for format in ("jpeg", "png", "bmp", "gif")
    ]
    for mode in MODES:
        # Its padding gives the network something else than the fill to look at.
        result = decoded(*cut, mode=mode, on_truncated=on_truncated, transforms=[PADDED])
        assert result.reason == [Reason.TRUNCATED_IMAGE] * len(cut)
        assert result.notes == {}


def test_a_file_of_which_the_crop_shows_nothing_is_not_scored():
    tall = encoded(photo(64, 640), "PNG")
    result = decoded(tall[: len(tall) // 10], tall[: len(tall) // 2])
    assert result.reason == [Reason.TRUNCATED_IMAGE, None]


@pytest.mark.parametrize("name", PARTLY | WHOLE_OR_NOT)
def test_a_cut_anywhere_ends_in_pixels_or_a_reason_and_never_in_a_picture_of_the_fill(name):
    data = (PARTLY | WHOLE_OR_NOT)[name]
    cuts = [data[: len(data) * part // 16] for part in range(16)]
    scored = decoded(*cuts)
    failed = decoded(*cuts, on_truncated="fail")
    for at, (reason, strict) in enumerate(zip(scored.reason, failed.reason, strict=True)):
        if reason is None:
            assert len(np.unique(scored.pixels[0][at])) > (1 if "red" in name else 4)
        assert strict in {
            None, Reason.TRUNCATED_IMAGE, Reason.DECODE_ERROR, Reason.NOT_AN_IMAGE
        }  # fmt: skip
        if strict is not Reason.TRUNCATED_IMAGE:
            assert reason is strict


def png_with(damage) -> bytes:
    """A PNG with altered compressed pixels in intact chunks with correct checksums."""
    raw = b"".join(b"\0" + row.tobytes() for row in np.asarray(PHOTO))
    chunk = lambda kind, content: (  # noqa: E731
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )
    header = struct.pack(">IIBBBBB", *PHOTO.size, 8, 2, 0, 0, 0)
    pixels = damage(raw)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


PNG = PARTLY["png"]
GIF = PARTLY["gif"]
DAMAGED = {
    "png, first bytes of its data": flipped(PNG, PNG.index(b"IDAT") + 20),
    "png, its last data": flipped(PNG, len(PNG) - 30),
    "png, a checksum of data": flipped(PNG, len(PNG) - 13),
    "png, compressed data that end early": png_with(lambda raw: zlib.compress(raw)[:-5000]),
    "png, compressed data that are noise": png_with(lambda raw: b"\x78\x9c" + raw[:3000]),
    "png, too few rows": png_with(lambda raw: zlib.compress(raw[:4000])),
    "png, an unknown filter": png_with(lambda raw: zlib.compress(b"\x09" + raw[1:])),
    "png, damaged and cut": flipped(PNG, PNG.index(b"IDAT") + 20)[: len(PNG) // 2],
    "gif, block sizes": GIF[:900] + bytes(40) + GIF[940:],
    "jpeg, a segment's length": PARTLY["jpeg"].replace(b"\xff\xc4\0", b"\xff\xc4\xff", 1),
    "deflated tiff": flipped(deflated_tiff(), len(deflated_tiff()) // 2),
}


@pytest.mark.parametrize("mode", MODES)
def test_damage_that_is_no_early_end_is_a_decode_error_whatever_is_asked_of_early_ends(mode):
    for on_truncated in ("score", "fail"):
        result = decoded(*DAMAGED.values(), mode=mode, on_truncated=on_truncated)
        assert dict(zip(DAMAGED, result.reason, strict=True)) == dict.fromkeys(
            DAMAGED, Reason.DECODE_ERROR
        )
        assert not result.pixels[0].any()
        assert result.notes == {}


def test_a_file_without_its_end_mark_but_with_every_pixel_is_whole():
    images = [PNG[:-12], GIF[:-1], PARTLY["bmp"] + b"\r\n"]
    result = decoded(*images, on_truncated="fail")
    assert result.reason == [None] * 3
    assert result.notes == {}
    for pixels, name in zip(result.pixels[0], ("png", "gif", "bmp"), strict=True):
        assert np.array_equal(pixels, decoded(PARTLY[name]).pixels[0][0])


def test_healthy_files_have_no_notes_and_their_neighbours_keep_their_own():
    for mode in MODES:
        assert decoded(*USUAL.values(), mode=mode).notes == {}
    result = decoded(
        PNG, None, half(PARTLY)[0], b"<html>", PNG[:-9999], transforms=[TRANSFORM, SQUASH]
    )
    assert result.notes == {Note.TRUNCATED_SCORED: 2}


@settings(deadline=None, max_examples=300)
@given(form=st.sampled_from(sorted(_ENDS_EARLY)), data=st.data())
def test_whether_a_file_ends_early_can_be_said_of_any_bytes(form, data):
    head = data.draw(
        st.sampled_from((b"", b"II+\0\x08\0\0\0", b"MM\0+\0\x08\0\0", b"II*\0", b"BM", b"RIFF"))
    )
    number = st.sampled_from((0, 8, 16, 2**15, 2**31, 2**32 - 1, 2**62, 2**63, 2**64 - 1))
    fields = data.draw(st.lists(st.tuples(number, st.sampled_from("HIQ")), max_size=12))
    order = data.draw(st.sampled_from("<>"))
    ends_early(
        head
        + b"".join(
            struct.pack(order + kind, value % 2 ** (8 * struct.calcsize(kind)))
            for value, kind in fields
        ),
        form,
    )
