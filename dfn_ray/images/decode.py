"""Image bytes -> pixels at the networks' sizes, with a reason for each image that fails.

`exact` gives the pixels that open_clip's evaluation transform makes of `Image.convert("RGB")`, which is how
DataComp's loaders feed it; unusual pixels and files that end early are handled as rgb.py says. EXIF orientation
is not applied, because open_clip does not apply it. Width and height are the file's own, from its header.

`fast` lets libjpeg decode JPEGs at a fraction of their size, then resizes; other formats have no such way. A JPEG
that only the exact way can decode, because it is damaged or ends early, is counted.

The header is judged before anything is decoded, and all of it runs in a forked child (isolation.py).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import simplejpeg
from PIL import Image

from dfn_ray.images.header import DECODER_ERRORS, UnreadableImageError, decoded_pixels, open_image
from dfn_ray.images.isolation import run_isolated, shared_array
from dfn_ray.images.rgb import UndecodableImageError, load_rgb
from dfn_ray.schema import Note, Reason

DECODER_VERSION = 4
"""Part of every fingerprint. Raise it by one with each change after which an image gives other pixels, or fails by another
reason or no longer; not for what only changes speed."""

_CODES = tuple(Reason)
_NOTES = (Note.TRUNCATED_SCORED, Note.DECODED_EXACTLY)

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
    notes: Mapping[str, int] = field(default_factory=dict)
    """How many of the images with pixels were decoded in an unusual way, by `Note`."""


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
    note_NK = shared_array((count, len(_NOTES)), np.bool_)
    given = [index for index, image in enumerate(images) if image is not None]

    def decode(position: int) -> None:
        _configure_pillow()
        index = given[position]
        data = images[index]
        assert data is not None
        data = memoryview(data).cast("B")  # Arrow's are of signed bytes, which simplejpeg refuses
        try:
            image = open_image(data)
        except UnreadableImageError as error:
            code_N[index] = 1 + _CODES.index(error.reason)
            return
        size_N2[index] = image.size
        reason = accept(index, *image.size)
        if decoded_pixels(image, data) > max_pixels:
            reason = Reason.TOO_MANY_PIXELS
        if reason is None:
            try:
                own = [transform.of_sample(index) for transform in distinct]
                results, notes = _pixels(image, data, own, mode, on_truncated == "score")
                for array, pixels_HWC in zip(pixels, results, strict=True):
                    array[index] = pixels_HWC
                note_NK[index] = [note in notes for note in _NOTES]
            except (UnreadableImageError, UndecodableImageError) as error:
                reason = error.reason
            except DECODER_ERRORS:
                reason = Reason.DECODE_ERROR
        if reason is not None:
            code_N[index] = 1 + _CODES.index(reason)

    faults = run_isolated(decode, len(given), timeout_s=timeout_s)
    for position, fault in faults.items():
        code_N[given[position]] = 1 + _CODES.index(fault)
    for array in pixels:  # an image may fail between two transforms, or half way through a row
        array[code_N != 0] = 0
    counts = zip(_NOTES, note_NK[code_N == 0].sum(axis=0).tolist(), strict=True)
    return DecodedImages(
        pixels=pixels,
        width=size_N2[:, 0].copy(),
        height=size_N2[:, 1].copy(),
        reason=[_CODES[code - 1] if code else None for code in code_N.tolist()],
        notes={note.value: number for note, number in counts if number},
    )


def _configure_pillow() -> None:
    """Set Pillow's module switches, in the child, where nobody else sees them."""
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # max_pixels stands for it, with a reason


def _pixels(
    image: Image.Image,
    data: memoryview,
    transforms: Sequence[SampleTransform],
    mode: str,
    score_truncated: bool,
) -> tuple[list[np.ndarray], set[Note]]:
    """The image under each transform, uint8 (H, W, 3), and what was unusual about decoding it."""
    size, notes = image.size, set[Note]()
    rgb = None
    if mode == "fast" and image.format in _JPEG_FORMATS:
        rgb = _scaled_jpeg(image, data, transforms)
        if rgb is None:
            notes.add(Note.DECODED_EXACTLY)
            image = open_image(data)
    if rgb is None:
        rgb, partial = load_rgb(image, data, score_truncated=score_truncated)
        if partial:
            notes.add(Note.TRUNCATED_SCORED)
    results = [transform.pixels_HWC(rgb, size) for transform in transforms]
    if Note.TRUNCATED_SCORED in notes and any(_is_flat(pixels_HWC) for pixels_HWC in results):
        raise UndecodableImageError(Reason.TRUNCATED_IMAGE)
    return results, notes


def _is_flat(pixels_HWC: np.ndarray) -> bool:
    """Whether all pixels are equal: of a file that ends early, the crop may hold nothing but the decoder's fill."""
    return bool((pixels_HWC == pixels_HWC[0, 0]).all())


_JPEG_FORMATS = ("JPEG", "MPO")
_COLOR_SPACES = {"RGB": "RGB", "L": "GRAY"}
"""Of Pillow's modes: simplejpeg's name."""


def _scaled_jpeg(
    image: Image.Image, data: bytes | memoryview, transforms: Sequence[SampleTransform]
) -> Image.Image | None:
    """A JPEG decoded at the smallest eighth of its size that no transform enlarges again, None if it is damaged.

    With four components, at the smallest half, quarter or eighth, which is what Pillow offers.
    """
    resized = [transform.resized_size(*image.size) for transform in transforms]
    width = min(image.width, max(width for width, _ in resized))
    height = min(image.height, max(height for _, height in resized))
    try:
        if image.mode in _COLOR_SPACES:
            pixels = simplejpeg.decode_jpeg(
                data,
                colorspace=_COLOR_SPACES[image.mode],
                min_width=width,
                min_height=height,
            )
            return Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).convert(
                "RGB"
            )
        image.draft(None, (width, height))
        return image.convert("RGB")
    except DECODER_ERRORS:  # damaged: the exact way says how
        return None
