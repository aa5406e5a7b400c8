"""Every image is decoded or fails with a named reason, whatever its bytes do to the decoder."""

from __future__ import annotations

import ctypes
import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from dfn_ray.images import decode
from dfn_ray.images.decode import decode_images
from dfn_ray.images.header import open_image
from dfn_ray.images.transform import ImageTransform
from dfn_ray.schema import Reason
from tests.network.conftest import encoded, photo

TRANSFORM = ImageTransform(
    size=(64, 64), resize_mode="shortest", interpolation="bicubic", mean=(0.0,) * 3, std=(1.0,) * 3
)
SQUASH = ImageTransform(
    size=(32, 48), resize_mode="squash", interpolation="bilinear", mean=(0.0,) * 3, std=(1.0,) * 3
)
JPEG = encoded(photo(320, 240), "JPEG", quality=90)


def decoded(*images, transforms=(TRANSFORM,), **settings):
    defaults = {
        "mode": "exact",
        "on_truncated": "score",
        "max_pixels": 89_478_485,
        "timeout_s": 30.0,
    }
    return decode_images(images, transforms, **{**defaults, **settings})


def by_pillow(data, transform=TRANSFORM):
    image = Image.open(io.BytesIO(data)).convert("RGB")
    return transform.pixels_HWC(image, image.size)


def png_header(width, height, body=b""):
    def chunk(kind, content):
        crc = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


def rgba(size=(80, 60)):
    image = photo(*size).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(size))
    return image


def animation(format):
    frames = [photo(80, 60, seed) for seed in range(3)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=50)


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(photo(120, 60), "JPEG", exif=exif)


USUAL = {
    "jpeg": JPEG,
    "progressive jpeg": encoded(photo(320, 240), "JPEG", progressive=True),
    "greyscale jpeg": encoded(photo(320, 240).convert("L"), "JPEG"),
    "cmyk jpeg": encoded(photo(320, 240).convert("CMYK"), "JPEG"),
    "turned jpeg": turned(),
    "png": encoded(photo(80, 60), "PNG"),
    "palette": encoded(photo(80, 60).convert("P"), "PNG"),
    "palette with transparency": encoded(
        photo(80, 60).convert("P"), "PNG", transparency=bytes([0, 128, 255])
    ),
    "transparent": encoded(rgba(), "PNG"),
    "grey with alpha": encoded(rgba().convert("LA"), "PNG"),
    "one bit": encoded(photo(80, 60).convert("1"), "PNG"),
    "animated gif": animation("GIF"),
    "animated webp": animation("WEBP"),
    "webp": encoded(photo(80, 60), "WEBP"),
    "bmp": encoded(photo(80, 60), "BMP"),
    "tiff": encoded(photo(80, 60), "TIFF"),
    "avif": encoded(photo(80, 60), "AVIF"),
    "1x1": encoded(photo(1, 1), "PNG"),
    "1x5000": encoded(photo(1, 5000), "PNG"),
}


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
@pytest.mark.parametrize("data", USUAL.values(), ids=USUAL)
def test_exact_pixels_are_those_of_pillow_converted_to_rgb(data):
    result = decoded(data, transforms=[TRANSFORM, SQUASH])
    assert result.reason == [None]
    assert np.array_equal(result.pixels[0][0], by_pillow(data))
    assert np.array_equal(result.pixels[1][0], by_pillow(data, SQUASH))
    size = Image.open(io.BytesIO(data)).size
    assert (result.width[0], result.height[0]) == size


def test_exif_orientation_is_not_applied_because_open_clip_does_not():
    result = decoded(turned())
    assert (result.width[0], result.height[0]) == (120, 60)


def test_sixteen_bit_greyscale_is_scaled_not_clipped():
    values = np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64)
    result = decoded(encoded(Image.fromarray(values), "PNG"))
    assert np.array_equal(result.pixels[0][0], np.repeat((values >> 8)[..., None], 3, axis=2))


def test_fast_pixels_are_close_and_other_formats_exact():
    fast = decoded(*USUAL.values(), mode="fast")
    exact = decoded(*USUAL.values())
    assert fast.reason == exact.reason
    difference = np.abs(fast.pixels[0].astype(int) - exact.pixels[0]).mean(axis=(1, 2, 3))
    for name, value in zip(USUAL, difference, strict=True):
        assert value < 4 if "jpeg" in name else value == 0, name
    assert difference[0] > 0  # the scaled decode was really taken


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_fast_decodes_no_smaller_than_any_transform_needs(mode):
    large = encoded(photo(1000, 700).convert(mode), "JPEG")
    scaled = decode._scaled_jpeg(open_image(large), large, [TRANSFORM, SQUASH])
    assert scaled is not None
    width, height = scaled.size
    assert width >= TRANSFORM.resized_size(1000, 700)[0]
    assert height >= 64
    assert width < 200


FAULTS = {
    "html as .jpg": (
        b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        Reason.NOT_AN_IMAGE,
    ),
    "text": (b"not an image at all", Reason.NOT_AN_IMAGE),
    "zero bytes": (b"", Reason.NOT_AN_IMAGE),
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", Reason.UNSUPPORTED_IMAGE),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Reason.UNSUPPORTED_IMAGE),
    "jpeg 2000": (encoded(photo(32, 32), "JPEG2000"), Reason.UNSUPPORTED_IMAGE),
    "jpeg xl": (b"\xff\x0a\xfa\x7f\x01\x90\x08\x06", Reason.UNSUPPORTED_IMAGE),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", Reason.NOT_AN_IMAGE),
    "jpeg magic only": (JPEG[:11], Reason.DECODE_ERROR),
    "png without data": (png_header(8, 8)[:20], Reason.DECODE_ERROR),
    "png of 600 megapixels": (
        png_header(30_000, 20_000, zlib.compress(b"")),
        Reason.TOO_MANY_PIXELS,
    ),
    "webp cut in half": (USUAL["webp"][: len(USUAL["webp"]) // 2], Reason.TRUNCATED_IMAGE),
}


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize(("data", "reason"), FAULTS.values(), ids=FAULTS)
def test_a_bad_image_fails_with_its_reason_and_its_neighbours_do_not(data, reason, mode):
    result = decoded(JPEG, data, JPEG, mode=mode)
    assert result.reason == [None, reason, None]
    assert not result.pixels[0][1].any()
    assert np.array_equal(result.pixels[0][0], result.pixels[0][2])
    assert result.pixels[0][0].any()


def test_too_many_pixels_keeps_the_size_from_the_header():
    result = decoded(FAULTS["png of 600 megapixels"][0])
    assert (result.width[0], result.height[0]) == (30_000, 20_000)


def test_the_pixel_limit_is_inclusive():
    data = encoded(photo(20, 10), "PNG")
    assert decoded(data, max_pixels=200).reason == [None]
    assert decoded(data, max_pixels=199).reason == [Reason.TOO_MANY_PIXELS]


@pytest.mark.parametrize("mode", ["exact", "fast"])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "GIF"])
def test_a_truncated_image_is_scored_or_failed_as_asked(format, mode):
    data = encoded(photo(320, 240), format)
    data = data[: len(data) // 2]
    assert decoded(data, mode=mode, on_truncated="fail").reason == [Reason.TRUNCATED_IMAGE]
    scored = decoded(data, mode=mode, on_truncated="score")
    assert scored.reason == [None]
    assert len(np.unique(scored.pixels[0][0, :20])) > 20  # the top is there


def test_truncated_jpegs_look_as_datacomps_scorer_sees_them(monkeypatch):
    data = JPEG[: len(JPEG) // 2]
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert np.array_equal(decoded(data).pixels[0][0], by_pillow(data))


def test_damage_anywhere_ends_in_pixels_or_a_reason():
    rng = np.random.default_rng(0)
    images = []
    for data in USUAL.values():
        for _ in range(6):
            damaged = bytearray(data)
            for at in rng.integers(0, len(data), 8):
                damaged[at] = rng.integers(0, 256)
            images.append(bytes(damaged))
    for mode in ("exact", "fast"):
        result = decoded(*images, mode=mode, max_pixels=10**6)
        failed = np.array([reason is not None for reason in result.reason])
        assert not result.pixels[0][failed].any()
        assert 0 < failed.sum() < len(images)
        assert Reason.DECODE_CRASHED not in result.reason  # a Python exception is never a crash


def test_rejected_images_are_not_decoded_and_keep_their_size(monkeypatch):
    monkeypatch.setattr(decode, "_pixels", lambda *_: ctypes.string_at(0))

    def accept(index, width, height):
        assert (width, height) == (320, 240)
        return Reason.IMAGE_SIDE if index == 1 else Reason.ASPECT_RATIO

    result = decoded(JPEG, JPEG, accept=accept)
    assert result.reason == [Reason.ASPECT_RATIO, Reason.IMAGE_SIDE]
    assert result.width.tolist() == [320, 320]


def test_images_given_as_none_are_passed_over():
    result = decoded(None, JPEG, None, memoryview(JPEG))
    assert result.reason == [None] * 4
    assert result.width.tolist() == [0, 320, 0, 320]
    assert result.pixels[0][[0, 2]].sum() == 0
    assert np.array_equal(result.pixels[0][1], result.pixels[0][3])
    assert decoded().pixels[0].shape == (0, 64, 64, 3)


def test_equal_transforms_share_their_pixels():
    assert len(decoded(JPEG, transforms=[TRANSFORM, SQUASH, TRANSFORM]).pixels) == 2


LETHAL = b"\xff\xd8\xff\xfe\x00\x0cLETHAL"
SLOW = b"\xff\xd8\xff\xfe\x00\x0cSLOOOW"


@pytest.fixture
def lethal_images(monkeypatch):
    """Pillow's JPEG plugin, except that two first bytes really exit or stop the process."""
    opener, accept = Image.OPEN["JPEG"]

    def armed(prefix):
        if prefix.startswith(LETHAL):
            ctypes.string_at(0)
        if prefix.startswith(SLOW):
            time.sleep(60)
        return accept(prefix)

    monkeypatch.setitem(Image.OPEN, "JPEG", (opener, armed))


@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_an_image_that_kills_or_hangs_its_decoder_costs_one_sample(lethal_images, mode):
    result = decoded(LETHAL, JPEG, SLOW, JPEG, LETHAL, mode=mode, timeout_s=0.7)
    crashed, hung = Reason.DECODE_CRASHED, Reason.DECODE_TIMEOUT
    assert result.reason == [crashed, None, hung, None, crashed]
    assert np.array_equal(result.pixels[0][1], result.pixels[0][3])


def test_a_crash_half_way_leaves_no_pixels_behind():
    class Bomb:
        """A second transform whose pixels kill the process during the copy."""

        size = (64, 64)

        def of_sample(self, index):
            return self

        def pixels_HWC(self, image, size):
            return self

        def __array__(self, *_):
            ctypes.string_at(0)

    result = decoded(JPEG, transforms=[TRANSFORM, Bomb()])
    assert result.reason == [Reason.DECODE_CRASHED]
    assert not result.pixels[0].any()


def test_the_caller_keeps_its_pillow_settings():
    before = Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES
    decoded(JPEG)
    assert before == (Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)


def chunk(kind, content):
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def bomb(megabytes):
    """A zlib stream of this many megabytes of zeros, each compressed to a kilobyte."""
    stream = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = stream.compress(bytes(2**20)) + stream.flush(zlib.Z_FULL_FLUSH)
    return b"\x78\xda" + block * megabytes + b"\x03\0"


EXTRAS = {
    "a compressed text of 2 MB": chunk(
        b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(b"<x>" * 700_000)
    ),
    "a text of 3 MB": chunk(b"tEXt", b"comment\0" + b"x" * 3_000_000),
    "100 texts of 1 MB": chunk(b"zTXt", b"c\0\0" + bomb(1)) * 100,
    "a text that would be 2 GB": chunk(b"zTXt", b"c\0\0" + bomb(2000)),
    "a broken text": chunk(b"zTXt", b"c\0\0not compressed"),
    "a wrong checksum in a text": chunk(b"tEXt", b"c\0x")[:-4] + b"\0\0\0\0",
    "a profile of 5 MB": chunk(b"iCCP", b"icc\0\0" + bomb(5)),
    "a broken profile": chunk(b"iCCP", b"icc"),
    "broken exif": chunk(b"eXIf", b"MM\0*\xff\xff\xff\xff"),
    "broken transparency": chunk(b"tRNS", b""),
    "an unknown chunk": chunk(b"prVt", bytes(100)),
}


@pytest.mark.parametrize("on_truncated", ["score", "fail"])
def test_no_text_profile_or_exif_costs_a_whole_png(on_truncated):
    data = USUAL["png"]
    images = [data[:33] + extra + data[33:] for extra in EXTRAS.values()]
    images += [data[:-12] + extra + data[-12:] for extra in EXTRAS.values()]
    result = decoded(data, *images, on_truncated=on_truncated)
    assert result.reason == [None] * len(result.reason)
    assert (result.pixels[0] == result.pixels[0][0]).all()
    assert result.width.tolist() == [80] * len(result.reason)
    assert result.notes == {}


def test_large_profiles_exif_and_comments_cost_no_image_of_other_formats():
    exif = Image.Exif()
    exif[0x010E] = "x" * 60_000
    picture, profile = photo(80, 60), bytes(3_000_000)
    images = [
        encoded(picture, "JPEG", icc_profile=profile, exif=exif, comment=b"c" * 60_000),
        encoded(picture, "WEBP", icc_profile=profile, exif=exif, xmp=b"<x>" * 500_000),
        encoded(picture, "AVIF", icc_profile=profile, xmp=b"<x>" * 500_000),
        encoded(picture, "TIFF", icc_profile=profile, tiffinfo={270: "x" * 2_000_000}),
        encoded(picture, "GIF", comment=b"c" * 300_000),
    ]
    result = decoded(*images, on_truncated="fail")
    assert result.reason == [None] * len(images)
    assert all(pixels.any() for pixels in result.pixels[0])
