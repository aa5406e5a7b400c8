"""Image bytes -> an opened image with its header read and nothing decoded, or a failure reason.

The only module that opens images, for decoding and for `dfn-ray inspect` alike. The format is
determined by the first bytes (formats.py), and Pillow may try that format only: some of its other
plugins start programs (EPS runs Ghostscript).
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib

from PIL import Image, features

from dfn_ray.images.formats import FORMATS, ImageFormat, image_format
from dfn_ray.images.structure import ends_early, png_pixel_chunks, tiff_tile_pixels
from dfn_ray.schema import Reason

_LOG = logging.getLogger(__name__)

Image.init()  # once here, instead of in every process that is forked to decode

DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    EOFError,
    MemoryError,
    RuntimeError,
    struct.error,
    zlib.error,
)
"""Exceptions that the Python code of Pillow and simplejpeg raises on damaged files."""

_OPTIONAL = ("WEBP", "AVIF")
"""Formats that Pillow can be built without."""
_ABSENT = frozenset(name for name in _OPTIONAL if not features.check(name.lower()))
if _ABSENT:
    _LOG.warning(
        "Pillow is built without %s: such images fail as %s. Install Pillow's wheel from PyPI",
        " and ".join(sorted(_ABSENT)),
        Reason.UNSUPPORTED_IMAGE,
    )

DECODED = tuple(form for form in FORMATS if form.decoded and form.name not in _ABSENT)
"""Formats that the installed Pillow decodes."""


MAX_SIDE_PIXELS = 2**31 - 1
"""In pixels: the maximum of PNG, and of the int32 columns of sizes. Other headers can declare more:
BMP and TIFF 2^32 - 1, BigTIFF 2^64 - 1."""


class UnreadableImageError(Exception):
    """A file that cannot be opened as an image."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def open_image(data: bytes | memoryview) -> Image.Image:
    """Returns the image with its header read and nothing decoded.

    Raises UnreadableImageError with `not_an_image`, `unsupported_image`, `unsupported_pixels`,
    `truncated_image`, `decode_error`, or `too_many_pixels` if a side is over MAX_SIDE_PIXELS.
    """
    form = image_format(data)
    if form is None:
        raise UnreadableImageError(Reason.NOT_AN_IMAGE)
    if form not in DECODED:
        raise UnreadableImageError(Reason.UNSUPPORTED_IMAGE)
    content = png_pixel_chunks(data) if form.name == "PNG" else data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(content), formats=(form.name,))
    except Image.DecompressionBombError:
        raise UnreadableImageError(Reason.TOO_MANY_PIXELS) from None
    except DECODER_ERRORS as error:
        raise UnreadableImageError(_unreadable_reason(data, form)) from error
    if max(image.size) > MAX_SIDE_PIXELS:
        raise UnreadableImageError(Reason.TOO_MANY_PIXELS)
    return image


def decoded_pixels(image: Image.Image, data: bytes | memoryview) -> int:
    """Returns the minimum number of pixels that decoding fills: the image's, or a larger tile's.

    `data` is the file that `image` was opened from.
    """
    tile = tiff_tile_pixels(data) if image.format == "TIFF" else 0
    return max(image.width * image.height, tile)


def _unreadable_reason(data: bytes | memoryview, form: ImageFormat) -> Reason:
    # A JPEG without a frame header has no size, so it counts as damaged, like other headless files.
    if form.name != "JPEG" and ends_early(data, form.name):
        return Reason.TRUNCATED_IMAGE
    return Reason.UNSUPPORTED_PIXELS if _has_foreign_pixels(data, form) else Reason.DECODE_ERROR


_FOREIGN_PIXELS = ("unknown pixel mode", "-bit layers", "-layer images", "Unsupported BMP pixel")
"""Parts of Pillow's messages for intact files whose kind of sample has no Pillow mode."""


def _has_foreign_pixels(data: bytes | memoryview, form: ImageFormat) -> bool:
    """True if Pillow's plugin rejects the kind of sample; `Image.open` hides its message."""
    try:
        Image.OPEN[form.name][0](io.BytesIO(data), "")
    except DECODER_ERRORS as error:
        return any(words in str(error) for words in _FOREIGN_PIXELS)
    return False
