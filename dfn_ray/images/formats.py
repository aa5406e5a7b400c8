"""The one list of image formats: endings, first bytes, and what is decoded.

Tars, class folders, decoding, inspection and export all read this list, so that a file is an image in all of
them or in none. An *unsupported* format is an image that nothing here decodes: its samples fail as
`unsupported_image`, not as `missing_image` or `not_an_image`. Formats outside the list are no images.

Not decoded although Pillow could: formats whose plugins start programs (EPS), that the web does not serve
as photos, or that hold several pictures without a first one (ICO).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """A kind of image file."""

    name: str
    """Pillow's name where it is decoded."""
    endings: tuple[str, ...]
    """Lower case and without the dot; the first is the one that exports write."""
    begins: Callable[[bytes], object] | None
    """True for the first bytes of every such file; None for ISO media files, which say it in their brands. Takes time in
    proportion to what it is given."""
    brands: frozenset[bytes] = frozenset()
    """Of an ISO media file (ISO/IEC 14496-12, `ftyp`)."""
    decoded: bool
    """False: its images fail as `unsupported_image`."""


_Signature = bytes | Callable[[bytes], object] | None
"""A regular expression, in which no two ways lead through the same bytes, or a function."""


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
    """True if an `<svg>` element comes first, behind nothing but comments, declaration and document type.

    One pass over `head`, which the patterns of a general XML prolog cannot promise.
    """
    at = 3 if head.startswith(b"\xef\xbb\xbf") else 0
    while at is not None:
        at = _behind(_SPACE, head, at) or at
        if _SVG.match(head, at):
            return True
        if head.startswith(b"<?xml", at):
            at = _after(b"?>", head, at)
        elif head.startswith(b"<!--", at):
            at = _after(b"-->", head, at + len(b"<!--"))
        else:
            at = _behind(_DOCTYPE_SVG, head, at)
    return False


def _behind(pattern: re.Pattern[bytes], head: bytes, at: int) -> int | None:
    match = pattern.match(head, at)
    return match.end() if match else None


def _after(mark: bytes, head: bytes, at: int) -> int | None:
    found = head.find(mark, at)
    return found + len(mark) if found >= 0 else None


FORMATS = (
    _decoded("JPEG", "jpg jpeg jpe jfif jif pjpeg pjp", rb"\xff\xd8\xff"),
    _decoded("PNG", "png apng", rb"\x89PNG\r\n\x1a\n"),
    _decoded("WEBP", "webp", rb"RIFF....WEBP"),
    _decoded("GIF", "gif", rb"GIF8[79]a"),
    # "BM" alone begins many a text: the size of the header behind it tells them apart.
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
    _unsupported("TGA", "tga", None),  # its only mark stands at the end, in newer files
    _unsupported("SVG", "svg", _begins_svg),
)
"""Everything that counts as an image."""

IMAGE_EXTENSIONS = frozenset(ending for form in FORMATS if form.decoded for ending in form.endings)
"""Endings of images that are decoded; lower case, without the dot."""
UNSUPPORTED_EXTENSIONS = frozenset(
    ending for form in FORMATS if not form.decoded for ending in form.endings
)
"""Endings of images that are not. Beside an image that is decoded, such a file is no second image."""

_HEAD_BYTES = 8192
"""As far as a signature is searched: an SVG may begin with a long comment."""
_BRAND_BYTES = 1024
"""As far as the brands of an ISO media file are read; real ones have fewer than 20."""


def image_format(data: bytes | memoryview) -> ImageFormat | None:
    """The format of a file by its first bytes; None when it is no image of this list."""
    head = bytes(data[:_HEAD_BYTES])
    for form in FORMATS:
        if form.begins is not None and form.begins(head):
            return form
    return _iso_format(head)


def extension_of(data: bytes | memoryview) -> str | None:
    """The ending under which a file's bytes are written, by its first bytes; None when it is no image."""
    form = image_format(data)
    return form.endings[0] if form else None


def _iso_format(head: bytes) -> ImageFormat | None:
    """The format that an ISO media file's brands name: its major brand's, else the first that is decoded.

    `mif1` and `msf1` only say "images in this container", as AVIF files may also have them for their
    major brand; without one of AVIF's brands beside them they stand for HEIF.
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
