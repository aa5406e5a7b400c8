"""Pixels of every kind that files can contain become 8-bit RGB as documented, or fail."""

from __future__ import annotations

import io
import struct

import numpy as np
import png
import pytest
import tifffile
from PIL import Image, ImageCms

from dfn_ray.schema import Reason
from tests.images.test_decode import TRANSFORM, decoded
from tests.network.conftest import encoded, photo

SIDE = TRANSFORM.size[0]  # nothing is resized
RNG = np.random.default_rng(0)
L = RNG.integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
RGB = RNG.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
FOUR = RNG.integers(0, 256, (SIDE, SIDE, 4), dtype=np.uint8)
WIDE = RNG.integers(0, 65536, (SIDE, SIDE), dtype=np.uint16)
UNIT = RNG.random((SIDE, SIDE), dtype=np.float32)


def tiff(values: np.ndarray, **options) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, values, **{"photometric": "minisblack", **options})
    return file.getvalue()


def only(result) -> np.ndarray:
    assert result.reason == [None]
    return result.pixels[0][0]


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values.astype(np.uint8)[..., None], 3, axis=2)


def raw_tiff(
    photometric: int, bits: tuple[int, ...], data: bytes, *tags: tuple[int, int, bytes]
) -> bytes:
    """A little-endian TIFF in one strip, for kinds that tifffile does not write."""
    short = lambda *values: struct.pack(f"<{len(values)}H", *values)  # noqa: E731
    entries = [
        (256, 3, short(SIDE)), (257, 3, short(SIDE)), (258, 3, short(*bits)), (259, 3, short(1)),
        (262, 3, short(photometric)), (273, 4, b""), (277, 3, short(len(bits))),
        (278, 3, short(SIDE)),
        (279, 4, struct.pack("<I", len(data))), *tags,
    ]  # fmt: skip
    begin = 8 + 2 + 12 * len(entries) + 4
    outside, directory = b"", b""
    start = begin + sum(len(value) for _, _, value in entries if len(value) > 4)
    for tag, kind, given in sorted(entries):
        value = struct.pack("<I", start) if tag == 273 else given
        directory += struct.pack("<HHI", tag, kind, len(value) // (2 if kind == 3 else 4))
        if len(value) > 4:
            directory += struct.pack("<I", begin + len(outside))
            outside += value
        else:
            directory += value.ljust(4, b"\0")
    return (
        b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + directory + bytes(4) + outside + data
    )


SCALED = {
    "float 0..1": (UNIT, np.rint(UNIT * 255)),
    "float 0..255": (L.astype(np.float32) + 0.25, L),
    "float 0..65535": (WIDE.astype(np.float32), WIDE >> 8),
    "float, all zero": (np.zeros_like(UNIT), np.zeros_like(L)),
    "float, all one": (np.ones_like(UNIT), np.full_like(L, 255)),
    "int32 0..255": (L.astype(np.int32), L),
    "int32 0..65535": (WIDE.astype(np.int32), WIDE >> 8),
    "uint32 0..65535": (WIDE.astype(np.uint32), WIDE >> 8),
    "int16, positive": ((WIDE >> 1).astype(np.int16), WIDE >> 9),
    "uint16": (WIDE, WIDE >> 8),
}
SCALED["float 0..255"][0][L == 255] = 255.0


@pytest.mark.parametrize("order", ["<", ">"])
def test_values_wider_than_a_byte_are_scaled_by_the_range_of_the_whole_image(order):
    result = decoded(*(tiff(values, byteorder=order) for values, _ in SCALED.values()))
    for name, pixels, reason in zip(SCALED, result.pixels[0], result.reason, strict=True):
        if (name, order) == ("uint32 0..65535", ">"):  # Pillow has no mode for it
            assert reason is Reason.UNSUPPORTED_PIXELS
        else:
            assert reason is None, name
            assert np.array_equal(pixels, grey(SCALED[name][1])), name


def test_one_value_outside_every_range_fails_the_image():
    cases = []
    for value in (np.nan, np.inf, -np.inf, -0.01, 65536.0):
        values = UNIT.copy()
        values[-1, -1] = value
        cases.append(values)
    for value in (-1, 65536, 2**31 - 1):
        values = WIDE.astype(np.int32)
        values[0, 0] = value
        cases.append(values)
    result = decoded(*map(tiff, cases))
    assert result.reason == [Reason.UNSUPPORTED_PIXELS] * len(cases)
    assert not result.pixels[0].any()


def test_values_meant_in_a_range_that_would_be_taken_for_black_fail_the_image():
    overshoot, bright = UNIT.copy(), L.astype(np.float32)
    overshoot[0, 0], bright[0, 0] = 1.02, 300
    twelve_bits = (WIDE >> 4).astype(np.int32)
    result = decoded(*map(tiff, (overshoot, bright, UNIT / 1000, twelve_bits)))
    assert result.reason == [Reason.UNSUPPORTED_PIXELS] * 4
    dark = decoded(tiff((L // 32).astype(np.int32)))  # integers up to 255 are what they say
    assert dark.reason == [None]


def test_samples_that_pillow_has_no_mode_for_are_unsupported_not_damaged():
    twelve_bit_jpeg = bytearray(encoded(photo(32, 32), "JPEG"))
    twelve_bit_jpeg[twelve_bit_jpeg.find(b"\xff\xc0") + 4] = 12
    result = decoded(
        tiff(UNIT.astype(np.float64)),
        tiff(UNIT.astype(np.float16)),
        tiff(np.stack([UNIT] * 3, axis=2), photometric="rgb"),
        bytes(twelve_bit_jpeg),
    )
    assert result.reason == [Reason.UNSUPPORTED_PIXELS] * 4


def test_twelve_bit_greyscale_keeps_its_high_eight_bits():
    values = (WIDE >> 4).reshape(-1, 2).astype(int)
    first, second = values[:, 0], values[:, 1]
    packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
    data = raw_tiff(1, (12,), packed.astype(np.uint8).tobytes())
    assert np.array_equal(only(decoded(data)), grey(WIDE >> 8))


def test_premultiplied_grey_and_palette_with_alpha_give_rgb():
    extra = lambda kind: (338, 3, struct.pack("<H", kind))  # noqa: E731
    alpha = np.full_like(L, 255)
    pairs = np.stack([L, alpha], axis=2).tobytes()
    assert np.array_equal(only(decoded(raw_tiff(1, (8, 8), pairs, extra(1)))), grey(L))
    ramp = np.arange(256, dtype=np.uint16) * 257
    colours = (320, 3, np.concatenate([ramp, ramp[::-1], ramp]).astype("<u2").tobytes())
    pixels = only(decoded(raw_tiff(3, (8, 8), pairs, extra(2), colours)))
    assert np.array_equal(pixels, np.stack([L, 255 - L, L], axis=2))


def test_lab_is_converted_as_colour_management_does():
    data = encoded(Image.frombytes("LAB", (SIDE, SIDE), RGB.tobytes()), "TIFF")
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    image = Image.open(io.BytesIO(data))
    expected = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert np.array_equal(only(decoded(data)), np.asarray(expected))


def test_cmyk_and_ycbcr_tiffs_follow_their_definitions():
    pixels = only(decoded(tiff(FOUR, photometric="separated")))
    ink, black = FOUR[..., :3].astype(float), FOUR[..., 3:].astype(float)
    assert np.abs(pixels - (255 - ink) * (255 - black) / 255).max() <= 1
    y, cb, cr = (RGB[..., band].astype(float) for band in range(3))
    expected = np.stack(
        [
            y + 1.402 * (cr - 128),
            y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128),
            y + 1.772 * (cb - 128),
        ],
        axis=2,
    ).clip(0, 255)  # ITU-T T.871
    pixels = only(decoded(raw_tiff(6, (8, 8, 8), RGB.tobytes())))
    assert np.abs(pixels - expected).max() <= 1.5


PLAIN = {
    "1": Image.fromarray(L).convert("1"), "L": Image.fromarray(L),
    "P": photo(SIDE, SIDE).convert("P"),
    "LA": Image.merge("LA", [Image.fromarray(L)] * 2), "RGB": Image.fromarray(RGB),
    "RGBA": Image.fromarray(FOUR),
}  # fmt: skip


def test_pixels_of_usual_modes_are_those_of_another_decoder():
    files = [encoded(image, "PNG") for image in PLAIN.values()]
    result = decoded(*files)
    assert result.reason == [None] * len(files)
    for mode, data, pixels in zip(PLAIN, files, result.pixels[0], strict=True):
        width, height, rows, _ = png.Reader(bytes=data).asRGBA8()
        expected = np.array([list(row) for row in rows], np.uint8).reshape(height, width, 4)
        assert np.array_equal(pixels, expected[..., :3]), mode


def test_pixels_of_tiffs_are_those_that_were_written():
    cases = {
        "L": (tiff(L), grey(L)),
        "L, white is 0": (tiff(L, photometric="miniswhite"), grey(255 - L)),
        "RGB": (tiff(RGB, photometric="rgb"), RGB),
        "RGB in tiles": (tiff(RGB, photometric="rgb", tile=(16, 16)), RGB),
        "RGB, deflate": (tiff(RGB, photometric="rgb", compression="zlib"), RGB),
        "RGB, big": (tiff(RGB, photometric="rgb", bigtiff=True), RGB),
        "RGB, planes": (
            tiff(np.moveaxis(RGB, 2, 0), photometric="rgb", planarconfig="separate"), RGB,
        ),
        "RGBA": (tiff(FOUR, photometric="rgb", extrasamples=["unassalpha"]), FOUR[..., :3]),
        "RGBX": (tiff(FOUR, photometric="rgb", extrasamples=["unspecified"]), FOUR[..., :3]),
        "RGB, 16 bit": (tiff(RGB.astype(np.uint16) * 257, photometric="rgb"), RGB),
    }  # fmt: skip
    result = decoded(*(data for data, _ in cases.values()))
    assert dict(zip(cases, result.reason, strict=True)) == dict.fromkeys(cases)
    for name, (_, expected), pixels in zip(cases, cases.values(), result.pixels[0], strict=True):
        assert np.array_equal(pixels, expected), name
