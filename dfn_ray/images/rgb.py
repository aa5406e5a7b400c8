"""An opened image -> its first frame as 8-bit RGB, or a failure reason.

Unusual pixels:

* 16-bit greyscale keeps its high byte, as Pillow does for 16-bit colour (`convert` would clip to
  white);
* float and 32-bit integer greyscale is scaled by the range of all its values: floats within 0..1 by
  255; else values within 0..255 are kept (rounded); else values within 0..65535 keep their high
  byte. Negative, larger, infinite or NaN values are `unsupported_pixels`. So are values that would
  become a black picture, because they use another range (floats up to 1.02, 12-bit integers);
* animated files yield their first frame; transparency is dropped, as in `convert`.

If a decoder fails, a truncated file yields the decoded part or fails with `truncated_image`, as
requested; any other file is damaged and fails with `decode_error`, even if part of it was decoded.
A file of which nothing was decoded always fails.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile

from dfn_ray.images.header import DECODER_ERRORS, open_image
from dfn_ray.images.structure import ends_early, png_checksums_hold
from dfn_ray.schema import Reason

_STATES_EARLY_END = frozenset({"JPEG", "MPO", "PNG", "GIF"})
"""Formats whose decoder reports "truncated" if bytes are missing, and another error if they are
wrong."""
_JPEG_BLANK = frozenset({127, 128})
"""Values that libjpeg writes for blocks without data, in every colour space."""

_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"

_STRIP_ROWS = 64
_BLACK = 16
"""Out of 255: a photograph has a brighter pixel. 12-bit values read as 16-bit reach 15 at most."""


class UndecodableImageError(Exception):
    """An image with a readable header and unusable pixels."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason.value)
        self.reason = reason


def load_rgb(
    image: Image.Image, data: bytes | memoryview, *, score_truncated: bool
) -> tuple[Image.Image, bool]:
    """Returns the first frame as 8-bit RGB, and True if the file ends before all of it is decoded.

    `data` is the file that `image` was opened from. Raises UndecodableImageError with
    `decode_error`, `truncated_image` or `unsupported_pixels`, and anything Pillow's `convert`
    raises.
    """
    form = image.format or ""
    try:
        if form == "PNG" and not png_checksums_hold(data):
            raise UndecodableImageError(Reason.DECODE_ERROR)
        image.load()
    except DECODER_ERRORS as error:
        if not _lacks_bytes(error, form) or not ends_early(data, _structure(form)):
            raise UndecodableImageError(Reason.DECODE_ERROR) from error
        partial = _decoded_part(data) if score_truncated else None
        if partial is None:
            raise UndecodableImageError(Reason.TRUNCATED_IMAGE) from error
        return _rgb(partial), True
    return _rgb(image), False


def _lacks_bytes(error: Exception, form: str) -> bool:
    return form not in _STATES_EARLY_END or "truncated" in str(error).lower()


def _structure(form: str) -> str:
    return {"MPO": "JPEG", "DIB": "BMP"}.get(form, form)


def _decoded_part(data: bytes | memoryview) -> Image.Image | None:
    """A truncated file as Pillow decodes it, filled elsewhere; None if all of it is fill."""
    try:
        image = _load_leniently(data)
        blank = not _share_a_pixel(image, _load_leniently(data, _fill_differently))
        if image.format in ("JPEG", "MPO"):  # libjpeg also fills in by itself
            bands = [band.getextrema() for band in image.split()]
            blank = blank or all(low == high and low in _JPEG_BLANK for low, high in bands)
            blank = blank or _first_block_is_invented(data)
    except DECODER_ERRORS:
        return None
    return None if blank else image


def _first_block_is_invented(data: bytes | memoryview) -> bool:
    """True if a single-scan JPEG's first block depends on the bytes after the end of the file.

    libjpeg continues with zeros after the end of the data, so that the first blocks may hold
    pixels of no picture.
    """
    content = bytes(data)
    if content.count(_JPEG_SCAN) != 1:
        return False
    first, second = (
        np.asarray(_load_leniently(content + tail * 2048 + _JPEG_END))[:8, :8]
        for tail in (b"\x00", b"\xaa")
    )
    return not np.array_equal(first, second)


def _share_a_pixel(one: Image.Image, other: Image.Image) -> bool:
    """True if any pixel is equal; compares in strips, to save memory and to stop early."""
    for top in range(0, one.height, _STRIP_ROWS):
        box = (0, top, one.width, min(top + _STRIP_ROWS, one.height))
        same = np.asarray(one.crop(box)) == np.asarray(other.crop(box))
        if (same.all(axis=2) if same.ndim == 3 else same).any():
            return True
    return False


def _load_leniently(
    data: bytes | memoryview, prepare: Callable[[Image.Image], None] = lambda image: None
) -> Image.Image:
    """The image decoded as far as possible; `prepare` runs before the first pixel is written."""
    image = open_image(data)
    assert isinstance(image, ImageFile.ImageFile)
    prepare(image)
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        image.load()
    except DECODER_ERRORS:
        if image.tile:  # otherwise libtiff failed halfway, and its output up to there is kept
            raise
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    return image


def _fill_differently(image: Image.Image) -> None:
    """Makes a file's decoder start from pixels that differ from Pillow's own fill."""
    assert isinstance(image, ImageFile.ImageFile)
    prepare = image.load_prepare

    def prepare_differently() -> None:
        prepare()
        own = image.im.getpixel((0, 0))
        value = tuple(255 - band for band in own) if isinstance(own, tuple) else 255 - own
        image.im.paste(value, (0, 0, *image.im.size))

    image.load_prepare = prepare_differently


def _rgb(image: Image.Image) -> Image.Image:
    """The 8-bit RGB pixels of an image in any mode that a file can have."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> _excess_bits(image)).astype(np.uint8))
    elif image.mode in ("I", "F"):
        image = Image.fromarray(_in_eight_bits(np.asarray(image)))
    elif image.mode == "La":  # the only mode without a direct conversion to RGB
        image = image.convert("LA")
    return image.convert("RGB")


def _excess_bits(image: Image.Image) -> int:
    """Bits beyond 8 of samples in 16-bit words: TIFF has 12-bit greyscale."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(258, (16,))  # BitsPerSample
    return max(0, min(16, bits[0]) - 8)


def _in_eight_bits(values: np.ndarray) -> np.ndarray:
    """Grayscale of any range as uint8, by the rule in the module docstring."""
    low, high = values.min(), values.max()  # both are NaN if any value is
    if not (low >= 0 and high <= 65535):
        raise UndecodableImageError(Reason.UNSUPPORTED_PIXELS)
    is_float = values.dtype.kind == "f"
    scale = 255 if is_float and high <= 1 else 1 if high <= 255 else 1 / 256
    if 0 < high * scale < _BLACK and (is_float or high > 255):
        raise UndecodableImageError(Reason.UNSUPPORTED_PIXELS)
    return np.rint(values // 256 if scale < 1 else values * scale).astype(np.uint8)
