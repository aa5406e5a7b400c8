"""The list of image formats: file endings, first bytes, and whether a format is decoded.

Tars, class folders, decoding, inspection and export all use this list, so that a file is an image
in all of them or in none. An *unsupported* format is an image that is not decoded: its samples fail
as `unsupported_image`, not as `missing_image` or `not_an_image`. Files of formats outside the list
are not images.

Not decoded although Pillow could: formats whose plugins start programs (EPS), formats that the web
does not serve as photos, and formats that hold several pictures in no order (ICO).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """A kind of image file."""

    name: str
    """Pillow's name if the format is decoded."""
    endings: tuple[str, ...]
    """In lower case and without the dot; exports write the first one."""
    begins: Callable[[bytes], object] | None
    """Truthy for the first bytes of every such file; None for ISO media files, which are recognized
    by their brands. Takes time linear in its input."""
    brands: frozenset[bytes] = frozenset()
    """Brands of an ISO media file (ISO/IEC 14496-12, `ftyp`)."""
    decoded: bool
    """If false, images of this format fail as `unsupported_image`."""


_Signature = bytes | Callable[[bytes], object] | None
"""A function, or a regular expression that matches any bytes in one way only (no backtracking)."""


def _decoded(name: str, endings: str, signature: _Signature, brands: bytes = b"") -> ImageFormat:
    return _format(name, endings, signature, brands, decoded=True)


def _unsupported(
    name: str, endings: str, signature: _Signature, brands: bytes = b""
) -> ImageFormat:
    return _format(name, endings, signature, brands, decoded=False)


def _format(
    name: str, endings: str, signature: _Signature, brands: bytes, *, decoded: bool
) -> ImageFormat:
    is_pattern = isinstance(signature, bytes)
    return ImageFormat(
        name=name,
        endings=tuple(endings.split()),
        begins=re.compile(signature, re.DOTALL).match if is_pattern else signature,
        brands=frozenset(brands.split()),
        decoded=decoded,
    )


_SPACE = re.compile(rb"\s*")
_DOCTYPE_SVG = re.compile(rb"<!DOCTYPE\s+svg[^>]*>")
_SVG = re.compile(rb"<svg[\s>]")


def _begins_svg(head: bytes) -> bool:
    """True if the first element is `<svg>`, after comments, declaration and document type only.

    Makes one pass over `head`, which a regular expression for an XML prolog cannot guarantee.
    """
    at = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    while at is not None:
        at = _match_end(_SPACE, head, at) or at
        if _SVG.match(head, at):
            return True
        if head.startswith(b"<?xml", at):
            at = _find_end(b"?>", head, at)
        elif head.startswith(b"<!--", at):
            at = _find_end(b"-->", head, at + len(b"<!--"))
        else:
            at = _match_end(_DOCTYPE_SVG, head, at)
    return False


def _match_end(pattern: re.Pattern[bytes], head: bytes, at: int) -> int | None:
    match = pattern.match(head, at)
    return match.end() if match else None


def _find_end(mark: bytes, head: bytes, at: int) -> int | None:
    found = head.find(mark, at)
    return found + len(mark) if found >= 0 else None


FORMATS = (
    _decoded("JPEG", "jpg jpeg jpe jfif jif pjpeg pjp", rb"\xff\xd8\xff"),
    _decoded("PNG", "png apng", rb"\x89PNG\r\n\x1a\n"),
    _decoded("WEBP", "webp", rb"RIFF....WEBP"),
    _decoded("GIF", "gif", rb"GIF8[79]a"),
    # Many texts begin with "BM"; the header size after it distinguishes images from them.
    _decoded("BMP", "bmp dib", rb"BM.{12}[\x0c\x10\x28\x34\x38\x40\x6c\x7c]\0\0\0"),
    _decoded("TIFF", "tif tiff", rb"II[*+]\0|MM\0[*+]"),
    _decoded("AVIF", "avif avifs", None, b"avif avis"),
    _unsupported(
        "HEIC",
        "heic heif heics heifs hif",
        None,
        b"heic heix heim heis hevc hevx hevm hevs mif1 mif2 msf1",
    ),
    _unsupported("JXL", "jxl", rb"\xff\x0a|\0\0\0\x0cJXL \r\n\x87\n"),
    _unsupported(
        "JPEG2000",
        "jp2 j2k jpx jpf jpm jpc j2c jph jhc",
        rb"\0\0\0\x0cjP  \r\n\x87\n|\xff\x4f\xff\x51",
    ),
    _unsupported("JPEGXR", "jxr wdp hdp", rb"II\xbc\x01"),
    _unsupported("PSD", "psd psb", rb"8BPS\0[\x01\x02]"),
    _unsupported("ICO", "ico cur", rb"\0\0[\x01\x02]\0[^\0]\0"),
    _unsupported("ICNS", "icns", rb"icns"),
    _unsupported("NETPBM", "ppm pgm pbm pnm pam pfm", rb"P[1-6Ff]\s(\#[^\n]*\n|\s)*\d|P7\s"),
    _unsupported("EXR", "exr", rb"\x76\x2f\x31\x01"),
    _unsupported("HDR", "hdr", rb"\#\?(RADIANCE|RGBE)"),
    _unsupported("QOI", "qoi", rb"qoif"),
    _unsupported("DDS", "dds", rb"DDS \x7c\0\0\0"),
    _unsupported("TGA", "tga", None),  # its only signature is at the end, in newer files
    _unsupported("SVG", "svg", _begins_svg),
)
"""All formats that count as images."""

IMAGE_EXTENSIONS = frozenset(ending for form in FORMATS if form.decoded for ending in form.endings)
"""Endings of formats that are decoded, in lower case and without the dot."""
UNSUPPORTED_EXTENSIONS = frozenset(
    ending for form in FORMATS if not form.decoded for ending in form.endings
)
"""Endings of formats that are not decoded. Next to a decoded image, such a file does not count as a
second image."""

_HEAD_BYTES = 8192
"""Bytes that are searched for a signature: an SVG may begin with a long comment."""
_BRAND_BYTES = 1024
"""Bytes that are searched for the brands of an ISO media file; real files have fewer than 20
brands."""


def image_format(data: bytes | memoryview) -> ImageFormat | None:
    """Returns the format of a file by its first bytes; None if it is not in `FORMATS`."""
    head = bytes(data[:_HEAD_BYTES])
    for form in FORMATS:
        if form.begins is not None and form.begins(head):
            return form
    return _iso_format(head)


def extension_of(data: bytes | memoryview) -> str | None:
    """Returns the ending to write a file with, by its first bytes; None if it is not an image."""
    form = image_format(data)
    return form.endings[0] if form else None


def _iso_format(head: bytes) -> ImageFormat | None:
    """The format of an ISO media file: that of its major brand, else of its first known brand.

    The brands `mif1` and `msf1` only mean that the container holds images; AVIF files may also use
    them as major brand. Without one of AVIF's brands they mean HEIF.
    """
    if head[4:8] != b"ftyp":
        return None
    end = max(16, min(int.from_bytes(head[:4], "big"), _BRAND_BYTES, len(head)))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end, 4))]
    containers = {b"mif1", b"mif2", b"msf1"}
    for brand in (brand for brand in brands if brand not in containers):
        for form in FORMATS:
            if brand in form.brands:
                return form
    heif = next(form for form in FORMATS if form.name == "HEIC")
    return heif if containers.intersection(brands) else None
