"""Image bytes -> pixels at the networks' sizes, with a reason for each image that fails.

`exact` yields the pixels that open_clip's evaluation transform makes of `Image.convert("RGB")`, the
input that DataComp's loaders pass to it; rgb.py documents unusual pixels and truncated files. EXIF
orientation is not applied, because open_clip does not apply it. Width and height are those in the
file's header.

`fast` lets libjpeg decode JPEGs at a fraction of their size and resizes the result; no other format
supports this. A JPEG that only `exact` can decode, because it is damaged or truncated, is counted.

The header is checked before anything is decoded. Everything runs in a forked child (isolation.py)
or in a worker process (dfn_ray.preparing.processes).
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
from dfn_ray.images.isolation import FORKED, Workspace, shared_array
from dfn_ray.images.rgb import UndecodableImageError, load_rgb
from dfn_ray.schema import Note, Reason

DECODER_VERSION = 4
"""Part of every fingerprint. Increment it with every change that alters an image's pixels, its
failure reason, or whether it fails; not for changes that only affect speed."""

_CODES = tuple(Reason)
_NOTES = (Note.TRUNCATED_SCORED, Note.DECODED_EXACTLY)

Accept = Callable[[int, int, int], Reason | None]
"""(index, width, height) -> a reason to reject the image before it is decoded, or None."""


@dataclass(frozen=True, kw_only=True)
class DecodedImages:
    """The outcome of decoding N images."""

    pixels: list[np.ndarray]
    """One uint8 array (N, H, W, 3) per distinct transform, in the order passed; zeros where
    decoding failed."""
    width: np.ndarray
    """int32 (N,), from the header; 0 if unknown."""
    height: np.ndarray
    """int32 (N,), from the header; 0 if unknown."""
    reason: list[Reason | None]
    """The reason why an image has no pixels; None if it has pixels or was passed as None."""
    notes: Mapping[str, int] = field(default_factory=dict)
    """Number of images with pixels that were decoded in an unusual way, by `Note`."""


class SampleTransform(Protocol):
    """The transform of one image into pixels."""

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the whole image when its crop has the network's size."""
        ...

    def pixels_HWC(self, image: Image.Image, original_size: tuple[int, int]) -> np.ndarray:
        """Uint8 pixels at the network's size."""
        ...


class Transform(Protocol):
    """The transform of images into pixels of one size; hashable."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        ...

    def of_sample(self, index: int) -> SampleTransform:
        """The transform of the image at `index`."""
        ...


def accept_all(index: int, width: int, height: int) -> Reason | None:
    """Accepts every image."""
    del index, width, height


class _SharedResults:
    """Results for N images in memory that a forked child writes and its parent reads."""

    def __init__(self, count: int, transforms: Sequence[Transform], workspace: Workspace) -> None:
        self.pixels = [workspace.array((count, *t.size, 3), np.uint8) for t in transforms]
        self.size_N2 = shared_array((count, 2), np.int32)
        self._code_N = shared_array((count,), np.int8)  # 0: no reason, else 1 + index in _CODES
        self._note_NK = shared_array((count, len(_NOTES)), np.bool_)

    def set_pixels(self, index: int, results: Sequence[np.ndarray], notes: set[Note]) -> None:
        for array, pixels_HWC in zip(self.pixels, results, strict=True):
            array[index] = pixels_HWC
        self._note_NK[index] = [note in notes for note in _NOTES]

    def set_reason(self, index: int, reason: Reason) -> None:
        self._code_N[index] = 1 + _CODES.index(reason)

    def decoded_images(self) -> DecodedImages:
        """The results so far; `pixels` are not copied."""
        # An image may fail between two transforms, or halfway through a row.
        for array in self.pixels:
            array[self._code_N != 0] = 0
        counts = zip(_NOTES, self._note_NK[self._code_N == 0].sum(axis=0).tolist(), strict=True)
        return DecodedImages(
            pixels=self.pixels,
            width=self.size_N2[:, 0].copy(),
            height=self.size_N2[:, 1].copy(),
            reason=[_CODES[code - 1] if code else None for code in self._code_N.tolist()],
            notes={note.value: number for note, number in counts if number},
        )


def decode_images(
    images: Sequence[bytes | memoryview | None],
    transforms: Sequence[Transform],
    *,
    mode: Literal["exact", "fast"],
    on_truncated: Literal["score", "fail"],
    max_pixels: int,
    timeout_s: float,
    accept: Accept = accept_all,
    workspace: Workspace = FORKED,
) -> DecodedImages:
    """Returns the pixels of each image under each distinct transform; skips images that are None.

    `accept` is called once the header is read, in a forked child by default, so that its side
    effects are lost.
    """
    distinct = list(dict.fromkeys(transforms))
    shared = _SharedResults(len(images), distinct, workspace)
    present = [index for index, image in enumerate(images) if image is not None]

    def decode(position: int) -> None:
        _configure_pillow()
        index = present[position]
        data = images[index]
        assert data is not None
        data = memoryview(data).cast("B")  # Arrow's hold signed bytes, which simplejpeg rejects
        try:
            image = open_image(data)
        except UnreadableImageError as error:
            shared.set_reason(index, error.reason)
            return
        shared.size_N2[index] = image.size
        reason = accept(index, *image.size)
        if decoded_pixels(image, data) > max_pixels:
            reason = Reason.TOO_MANY_PIXELS
        if reason is None:
            try:
                sample_transforms = [transform.of_sample(index) for transform in distinct]
                score_truncated = on_truncated == "score"
                results, notes = _pixels(image, data, sample_transforms, mode, score_truncated)
                shared.set_pixels(index, results, notes)
            except (UnreadableImageError, UndecodableImageError) as error:
                reason = error.reason
            except DECODER_ERRORS:
                reason = Reason.DECODE_ERROR
        if reason is not None:
            shared.set_reason(index, reason)

    faults = workspace.run(decode, len(present), timeout_s=timeout_s)
    for position, fault in faults.items():
        shared.set_reason(present[position], fault)
    return shared.decoded_images()


def _configure_pillow() -> None:
    """Sets Pillow's module-level switches, in the child, so that no other code is affected."""
    warnings.simplefilter("ignore")
    Image.MAX_IMAGE_PIXELS = None  # replaced by max_pixels, which fails with a reason


def _pixels(
    image: Image.Image,
    data: memoryview,
    transforms: Sequence[SampleTransform],
    mode: str,
    score_truncated: bool,
) -> tuple[list[np.ndarray], set[Note]]:
    """The image under each transform, uint8 (H, W, 3), and notes on unusual decoding."""
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
    """True if all pixels are equal: a truncated file's crop may hold only the decoder's fill."""
    return bool((pixels_HWC == pixels_HWC[0, 0]).all())


_JPEG_FORMATS = ("JPEG", "MPO")
_COLOR_SPACES = {"RGB": "RGB", "L": "GRAY"}
"""simplejpeg's name for each of Pillow's modes."""


def _scaled_jpeg(
    image: Image.Image, data: bytes | memoryview, transforms: Sequence[SampleTransform]
) -> Image.Image | None:
    """A JPEG decoded at the smallest sufficient scale in eighths; None if it is damaged.

    A scale is sufficient if no transform enlarges the result. Images with four components use
    Pillow's scales: 1/2, 1/4 or 1/8.
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
    except DECODER_ERRORS:  # damaged: exact decoding finds the reason
        return None
