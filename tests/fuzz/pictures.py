"""Images of every format and mode that Pillow, OpenCV and tifffile write, with their pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image, PngImagePlugin

MODES = (
    "1",
    "L",
    "LA",
    "P",
    "PA",
    "RGB",
    "RGBA",
    "RGBX",
    "CMYK",
    "YCbCr",
    "LAB",
    "HSV",
    "I",
    "I;16",
    "I;16B",
    "F",
)
READ = ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF")
NOT_READ = (
    "PPM",
    "ICO",
    "TGA",
    "PCX",
    "SGI",
    "DDS",
    "JPEG2000",
    "IM",
    "MSP",
    "XBM",
    "EPS",
    "QOI",
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An encoded image."""

    data: bytes
    note: str
    scaled: bool = False
    """Values beyond 8 bits that a rule of the product scales: integers of 32 bits, floats."""
    foreign: bool = False
    """Of a format that is not supported."""


def picture(rng: Random) -> Picture:
    """A valid image of any kind."""
    return rng.choice(_MAKERS)(rng)


def simple(rng: Random) -> Picture:
    """A valid RGB image of a common format: a ramp with some noise."""
    name = rng.choice(READ)
    return Picture(data=_encoded(Image.fromarray(_rgb(rng, *_size(rng))), name), note=name)


def _size(rng: Random) -> tuple[int, int]:
    return rng.choice(
        ((1, 1), (1, 37), (41, 1), (2, 3), (16, 16), (17, 33), (64, 48), (200, 7), (65, 129))
    )


def _rgb(rng: Random, width: int, height: int) -> np.ndarray:
    """A ramp with noise, never black or white."""
    noise = np.random.default_rng(rng.getrandbits(64))
    y, x = np.mgrid[0:height, 0:width]
    ramp = np.stack([x * 90 / width, y * 90 / height, (x + y) * 90 / (width + height)], -1)
    return (ramp + noise.integers(40, 100, (height, width, 3))).astype(np.uint8)


def _encoded(image: Image.Image, name: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, name, **options)
    return file.getvalue()


def _any_mode(rng: Random) -> Picture:
    """A format in one of its modes."""
    image = Image.fromarray(_rgb(rng, *_size(rng)))
    while True:
        name, mode = rng.choice(READ), rng.choice(MODES)
        try:
            options = rng.choice(_OPTIONS[name])(rng, image)
            data = _encoded(_in_mode(image, mode), name, **options)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError):
            continue  # the format does not hold the mode, or not with the option
        scaled = mode in ("I", "F") and Image.open(io.BytesIO(data)).mode in ("I", "F")
        return Picture(
            data=data, note=f"{name} {mode} {sorted(options)} {image.size}", scaled=scaled
        )


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    grey = np.asarray(image.convert("L"))
    if mode in ("I;16", "I;16B"):
        kind = ">u2" if mode == "I;16B" else "<u2"
        return Image.fromarray((grey.astype(np.uint16) * 257).astype(kind))
    if mode == "I":
        return Image.fromarray(grey.astype(np.int32) * 257)
    if mode == "F":
        return Image.fromarray(grey.astype(np.float32) / 255)
    if mode == "LAB":
        return Image.fromarray(np.asarray(image), "RGB").convert("RGB")
    if mode == "PA":
        return image.convert("P").convert("PA")
    return image.convert(mode)


def _exif(rng: Random) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = rng.randint(0, 9)
    exif[0x010E] = "d" * rng.choice((1, 60_000))
    return exif.tobytes()


_Options = Callable[[Random, Image.Image], dict[str, Any]]


def _frames(rng: Random, image: Image.Image) -> dict[str, Any]:
    return {"save_all": True, "append_images": [image.rotate(180)] * rng.randint(1, 3)}


_OPTIONS: dict[str, tuple[_Options, ...]] = {
    "JPEG": (
        lambda rng, _: {"quality": rng.choice((1, 75, 100)), "subsampling": rng.choice((0, 1, 2))},
        lambda _, __: {"progressive": True},
        lambda rng, _: {"exif": _exif(rng), "comment": b"c" * 60_000},
        lambda rng, _: {"icc_profile": rng.randbytes(rng.choice((4, 200_000)))},
        lambda _, __: {"restart_marker_blocks": 1, "optimize": True},
        lambda _, __: {"keep_rgb": True},
    ),
    "PNG": (
        lambda rng, _: {
            "compress_level": rng.choice((0, 9)),
            "icc_profile": rng.randbytes(2_000_000),
        },
        lambda rng, _: {"pnginfo": _texts(rng), "exif": _exif(rng)},
        _frames,
        lambda rng, _: {"bits": rng.choice((1, 2, 4, 8))},
        lambda rng, _: {"transparency": rng.choice((0, b"\0\x80\xff"))},
    ),
    "WEBP": (
        lambda rng, _: {"lossless": rng.random() < 0.5, "method": 0},
        lambda rng, image: {**_frames(rng, image), "method": 0},
        lambda rng, _: {
            "exif": _exif(rng),
            "icc_profile": rng.randbytes(1000),
            "xmp": b"<x>" * 10_000,
        },
    ),
    "GIF": (
        lambda rng, _: {"interlace": rng.randint(0, 1)},
        _frames,
        lambda _, __: {"transparency": 0, "comment": b"c" * 3000},
    ),
    "AVIF": (
        lambda _, __: {"speed": 10},
        lambda rng, image: {**_frames(rng, image), "speed": 10},
        lambda rng, _: {
            "speed": 10,
            "exif": _exif(rng),
            "icc_profile": rng.randbytes(300),
            "subsampling": "4:0:0",
        },
    ),
    "BMP": (lambda _, __: {},),
    "TIFF": (
        lambda rng, _: {
            "compression": rng.choice(
                (
                    None,
                    "raw",
                    "tiff_lzw",
                    "tiff_adobe_deflate",
                    "packbits",
                    "jpeg",
                    "zstd",
                    "lzma",
                    "group4",
                    "webp",
                )
            )
        },
        lambda _, __: {"big_tiff": True},
        _frames,
        lambda rng, _: {"description": "d" * 100_000, "icc_profile": rng.randbytes(100)},
        lambda _, __: {"compression": "tiff_lzw", "tiffinfo": {317: 2}},
    ),
}


def _texts(rng: Random) -> PngImagePlugin.PngInfo:
    """Text chunks as large as editors leave them, and larger once decompressed."""
    info = PngImagePlugin.PngInfo()
    size = rng.choice((10, 1000, 1_800_000))
    info.add_text("plain", "t" * 1000)
    info.add_itxt("XML:com.adobe.xmp", "<x>é" * (size // 4), zip=rng.random() < 0.7)
    info.add_text("zipped", "z" * size, zip=True)
    return info


def _by_tifffile(rng: Random) -> Picture:
    """A TIFF of a sample format, byte order, layout or predictor that Pillow does not write."""
    rgb = _rgb(rng, *_size(rng))
    kind = rng.choice(("u1", "u1", "u2", "grey u2", "i4", "f4", "f8", "u4", "f2", "i2", "i1"))
    array: np.ndarray = rgb
    if kind not in ("u1", "u2"):
        grey = rgb[..., 0].astype(np.float64)
        scale = {"grey u2": 257, "u4": 257, "i4": 257, "i2": 100, "i1": 0.5}.get(kind, 1 / 255)
        array = (grey * scale).astype(kind.removeprefix("grey "))
    elif kind == "u2":
        array = rgb.astype(np.uint16) * 257
    file = io.BytesIO()
    options: dict[str, Any] = {"tile": (16, 16)} if rng.random() < 0.3 else {}
    if array.ndim == 3 and rng.random() < 0.3:
        array, options["planarconfig"] = np.moveaxis(array, -1, 0), "separate"
    tifffile.imwrite(
        file,
        array,
        byteorder=rng.choice("<>"),
        bigtiff=rng.random() < 0.3,
        compression=rng.choice((None, "zlib")),
        photometric="rgb" if array.ndim == 3 else "minisblack",
        metadata=None,
        **options,
    )
    return Picture(
        data=file.getvalue(), note=f"tifffile {kind} {array.shape} {options}", scaled=kind != "u1"
    )


def _by_opencv(rng: Random) -> Picture:
    """Images of 8 and 16 bits from OpenCV's encoders."""
    ending = rng.choice((".jpg", ".png", ".bmp", ".tiff", ".webp"))
    rgb = _rgb(rng, *_size(rng))
    deep = ending in (".png", ".tiff") and rng.random() < 0.5
    array = rgb.astype(np.uint16) * 257 if deep else rgb
    done, data = cv2.imencode(ending, np.ascontiguousarray(array[..., ::-1]))
    assert done
    return Picture(data=data.tobytes(), note=f"OpenCV {ending} {array.dtype}")


def _interlaced_png(rng: Random) -> Picture:
    """An Adam7 PNG, greyscale of 1 to 16 bits, with unknown chunks before and after."""
    width, height = _size(rng)
    bits = rng.choice((1, 2, 4, 8, 16))
    rows = b""
    for first_x, first_y, by_x, by_y in (
        (0, 0, 8, 8),
        (4, 0, 8, 8),
        (0, 4, 4, 8),
        (2, 0, 4, 4),
        (0, 2, 2, 4),
        (1, 0, 2, 2),
        (0, 1, 1, 2),
    ):
        across, down = -(-(width - first_x) // by_x), -(-(height - first_y) // by_y)
        if across > 0 and down > 0:
            rows += b"".join(b"\0" + rng.randbytes((across * bits + 7) // 8) for _ in range(down))
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 1)
    chunks = [(b"IHDR", header), (b"prVt", rng.randbytes(20)), (b"gAMA", struct.pack(">I", 45455))]
    chunks += [(b"IDAT", zlib.compress(rows)), (b"tIME", bytes(7)), (b"IEND", b"")]
    packed = (
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return Picture(
        data=b"\x89PNG\r\n\x1a\n" + b"".join(packed),
        note=f"interlaced PNG of {bits} bits {width}x{height}",
    )


def _with_tail(rng: Random) -> Picture:
    """Bytes after the end of an image, as broken downloads and phones leave them."""
    usual = simple(rng)
    tail = rng.choice((b"\r\n", bytes(500), rng.randbytes(5000), usual.data))
    return Picture(data=usual.data + tail, note=f"{usual.note} with {len(tail)} bytes behind")


def _foreign(rng: Random) -> Picture:
    """An unsupported format, or not an image."""
    name = rng.choice(NOT_READ)
    image = Image.fromarray(_rgb(rng, 32, 24))
    if name in ("MSP", "XBM"):
        image = image.convert("1")
    try:
        return Picture(data=_encoded(image, name), note=name, foreign=True)
    except (OSError, KeyError):
        pages = (
            b"<html>404</html>",
            b"%PDF-1.4",
            b"<svg xmlns='http://www.w3.org/2000/svg'/>",
            b"x",
            b"\0\0\0\x18ftypheic" + bytes(99),
        )
        return Picture(data=rng.choice(pages), note="no image", foreign=True)


_MAKERS = (
    _any_mode,
    _any_mode,
    _any_mode,
    _any_mode,
    simple,
    _by_tifffile,
    _by_opencv,
    _interlaced_png,
    _with_tail,
    _foreign,
)
