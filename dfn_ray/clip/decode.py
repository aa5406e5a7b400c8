"""Image bytes -> pixels at the networks' sizes, with a reason for each image that fails.

`exact` gives the pixels that open_clip's evaluation transform makes of `Image.convert("RGB")`, which is how
DataComp's loaders feed it. Of unusual files:

* 16-bit greyscale keeps its high byte, as Pillow does for 16-bit colour (`convert` would clip to white);
* animated files give their first frame; transparency is dropped, as `convert` does;
* EXIF orientation is not applied, because open_clip does not apply it;
* width and height are the file's own, from its header.

`fast` lets libjpeg decode three-component JPEGs at a fraction of their size, then resizes; everything else
takes the exact way. Only the formats in `FORMATS` are opened: Pillow's others include some that start programs
(EPS runs Ghostscript).

The header is judged before anything is decoded, and all of it runs in a forked child (isolation.py).
"""

from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import simplejpeg
from PIL import Image, ImageFile

from dfn_ray.clip.isolation import run_isolated, shared_array
from dfn_ray.schema import Reason

Image.init()  # here, not in every forked child

DECODER_VERSION = 2
"""Part of every fingerprint. Raise it by one with each change after which an image gives other pixels, or fails by another
reason or no longer; not for what only changes speed."""

FORMATS = tuple(
    name for name in ("JPEG", "PNG", "WEBP", "GIF", "AVIF", "BMP", "TIFF") if name in Image.OPEN
)
"""What is decoded; anything else is not an image. (Pillow builds differ: AVIF and WebP may be absent.)"""

_SIGNATURE = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|II\*\0|MM\0\*|RIFF....WEBP|....ftypavi[fs]",
    re.DOTALL,
)
"""A file that starts so and cannot be opened is a damaged image, not something else."""

_DECODER_ERRORS = (
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
"""What Pillow's and libjpeg's Python sides raise on damaged files."""

_CODES = tuple(Reason)

Accept = Callable[[int, int, int], Reason | None]
"""(index, width, height) -> a reason to reject the image before it is decoded, or None."""


@dataclass(frozen=True, kw_only=True)
class DecodedImages:
    """What became of N images."""

    pixels: list[np.ndarray]
    """One uint8 array (N, H, W, 3) per distinct transform, in the order given; zeros where decoding failed."""
    width: np.ndarray
    """int32 (N,), from the header; 0 if unknown."""
    height: np.ndarray
    """int32 (N,), from the header; 0 if unknown."""
    reason: list[Reason | None]
    """Why an image has no pixels; None if it has, or if none was given."""


class SampleTransform(Protocol):
    """How one image becomes pixels."""

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the whole image where its crop has the network's size."""
        ...

    def pixels_HWC(self, image: Image.Image, original_size: tuple[int, int]) -> np.ndarray:
        """Uint8 pixels at the network's size."""
        ...


class Transform(Protocol):
    """How images become pixels of one size; hashable."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        ...

    def of_sample(self, index: int) -> SampleTransform:
        """The transform of the image at `index`."""
        ...


def accept_all(index: int, width: int, height: int) -> Reason | None:
    """Reject nothing."""
    del index, width, height


def decode_images(
    images: Sequence[bytes | memoryview | None],
    transforms: Sequence[Transform],
    *,
    mode: Literal["exact", "fast"],
    on_truncated: Literal["score", "fail"],
    max_pixels: int,
    timeout_s: float,
    accept: Accept = accept_all,
) -> DecodedImages:
    """The pixels of each image under each distinct transform; an image given as None is passed over.

    `accept` is asked once the header is read; it runs in the child, so it must not change anything outside.
    """
    distinct = list(dict.fromkeys(transforms))
    count = len(images)
    pixels = [shared_array((count, *transform.size, 3), np.uint8) for transform in distinct]
    size_N2 = shared_array((count, 2), np.int32)
    code_N = shared_array((count,), np.int8)  # 0: no reason, else 1 + index into _CODES
    given = [index for index, image in enumerate(images) if image is not None]

    def decode(position: int) -> None:
        _configure_pillow(score_truncated=on_truncated == "score")
        index = given[position]
        data = images[index]
        assert data is not None
        try:
            image = _open(data)
        except _Unreadable as error:
            code_N[index] = 1 + _CODES.index(error.reason)
            return
        size_N2[index] = image.size
        reason = accept(index, *image.size)
        if image.width * image.height > max_pixels:
            reason = Reason.TOO_MANY_PIXELS
        if reason is None:
            try:
                own = [transform.of_sample(index) for transform in distinct]
                for array, pixels_HWC in zip(pixels, _pixels(image, data, own, mode), strict=True):
                    array[index] = pixels_HWC
            except _DECODER_ERRORS as error:
                reason = _why(error)
        if reason is not None:
            code_N[index] = 1 + _CODES.index(reason)

    faults = run_isolated(decode, len(given), timeout_s=timeout_s)
    for position, fault in faults.items():
        code_N[given[position]] = 1 + _CODES.index(fault)
    for array in pixels:  # an image may fail between two transforms, or half way through a row
        array[code_N != 0] = 0
    return DecodedImages(
        pixels=pixels,
        width=size_N2[:, 0].copy(),
        height=size_N2[:, 1].copy(),
        reason=[_CODES[code - 1] if code else None for code in code_N.tolist()],
    )


def _configure_pillow(*, score_truncated: bool) -> None:
    """Set Pillow's module switches, in the child, where nobody else sees them."""
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # max_pixels stands for it, with a reason
    ImageFile.LOAD_TRUNCATED_IMAGES = score_truncated


class _Unreadable(Exception):
    """The file cannot be opened as an image."""

    def __init__(self, reason: Reason) -> None:
        self.reason = reason


def _open(data: bytes | memoryview) -> Image.Image:
    """The image with its header read and nothing decoded."""
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except _DECODER_ERRORS as error:
        if not _SIGNATURE.match(data):
            raise _Unreadable(Reason.NOT_AN_IMAGE) from None
        if _is_short_webp(data):
            raise _Unreadable(Reason.TRUNCATED_IMAGE) from None
        raise _Unreadable(Reason.DECODE_ERROR) from error


def _why(error: Exception) -> Reason:
    """Whether a decoder stopped because the file ends early or because it is damaged."""
    ends_early = "truncated" in str(error).lower()  # Pillow raises OSError for both
    return Reason.TRUNCATED_IMAGE if ends_early else Reason.DECODE_ERROR


def _is_short_webp(data: bytes | memoryview) -> bool:
    """Whether a WebP file is shorter than its header says; Pillow opens none of it then."""
    head = bytes(data[:12])
    size_bytes = int.from_bytes(head[4:8], "little") + 8
    return head[:4] == b"RIFF" and head[8:] == b"WEBP" and len(data) < size_bytes


def _pixels(
    image: Image.Image, data: bytes | memoryview, transforms: Sequence[SampleTransform], mode: str
) -> list[np.ndarray]:
    """The image under each transform, uint8 (H, W, 3)."""
    size = image.size
    rgb = _scaled_jpeg(image, data, transforms) if mode == "fast" else None
    if rgb is None:
        rgb = _rgb(image)
    return [transform.pixels_HWC(rgb, size) for transform in transforms]


def _rgb(image: Image.Image) -> Image.Image:
    """The first frame as 8-bit RGB."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _scaled_jpeg(
    image: Image.Image, data: bytes | memoryview, transforms: Sequence[SampleTransform]
) -> Image.Image | None:
    """A JPEG decoded at the smallest eighth of its size that no transform enlarges again, or None."""
    if image.format not in ("JPEG", "MPO") or image.mode != "RGB":
        return None
    resized = [transform.resized_size(*image.size) for transform in transforms]
    try:
        pixels_HWC = simplejpeg.decode_jpeg(
            data,
            colorspace="RGB",
            min_width=min(image.width, max(width for width, _ in resized)),
            min_height=min(image.height, max(height for _, height in resized)),
        )
    except ValueError:  # damaged: Pillow decides what it is
        return None
    return Image.fromarray(pixels_HWC)
