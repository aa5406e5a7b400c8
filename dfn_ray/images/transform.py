"""The evaluation transform of an image: resized and cropped 8-bit RGB pixels.

The pixels equal those of open_clip's evaluation transform (open_clip.transform.image_transform_v2
with torchvision) or, with `crop_rounding = "down"`, those of transformers' Pillow processors
(CLIPImageProcessorPil and SiglipImageProcessorPil of transformers 5); torch is not loaded. There
are two differences, both where open_clip's result is useless:

* `longest` never rounds a side to 0 (open_clip raises);
* `shortest` on extreme shapes (a 1x5000 image would first become 224x1,120,000) resizes only the
  part that the crop keeps; the pixels differ by rounding.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
from PIL import Image

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
"""Pillow's names."""

NORMALIZATIONS: Mapping[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "openai": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "half": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
}
"""Mean and standard deviation of pixels per channel: open_clip's constants; `half` is SigLIP's."""
MIN_STD = 1e-4
"""Lowest standard deviation accepted. Pixels are from 0 to 1; those of images differ by 1/255."""

_MAX_RESIZED_PIXELS = 2**25
"""Maximum size of an intermediate image: 128 MiB in Pillow; at 224 pixels an aspect ratio of
668."""


@dataclass(frozen=True, kw_only=True)
class ImageTransform:
    """The transform of an RGB image of any size into the network's input."""

    size: tuple[int, int]
    """Height and width in pixels."""
    resize_mode: Literal["shortest", "squash", "longest"]
    """`shortest`: cover the target and crop the centre; `longest`: fit inside and pad; `squash`:
    stretch."""
    interpolation: Literal["bicubic", "bilinear"]
    mean: tuple[float, ...]
    """Per channel, for pixels scaled to 0..1; applied on the device, not here."""
    std: tuple[float, ...]
    fill_color: int = 0
    """Value of the padding, 0 to 255."""
    crop_rounding: Literal["half_even", "down"] = "half_even"
    """Rounding of the crop's first pixel if an odd number of pixels is cut off: as in torchvision
    and open_clip, or as in transformers. A 451x333 photo at 224 pixels differs by a column."""
    resized: tuple[int, int] | None = None
    """Target height and width of the resize if the crop is smaller; None: `size`."""

    def fingerprint(self) -> dict[str, Any]:
        """The transform as JSON values; newer fields only if they differ from their defaults."""
        values = {
            field.name: value
            for field, value in zip(fields(self), asdict(self).values(), strict=True)
            if field.default is MISSING or field.name == "fill_color" or value != field.default
        }
        return json.loads(json.dumps(values))

    def of_sample(self, index: int) -> ImageTransform:
        """The transform of one of several images: the same for all."""
        del index
        return self

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a `width` x `height` image after the resize, before crop or pad."""
        target_height, target_width = self.resized or self.size
        if self.resize_mode == "squash":
            return target_width, target_height
        if self.resize_mode == "shortest" and target_height == target_width:
            # torchvision.transforms.functional._compute_resized_output_size
            short, long = sorted((width, height))
            new_long = int(target_width * long / short)
            return (target_width, new_long) if width <= height else (new_long, target_width)
        # open_clip.transform.ResizeKeepRatio
        pick = max if self.resize_mode == "longest" else min
        ratio = pick(height / target_height, width / target_width)
        return max(1, round(width / ratio)), max(1, round(height / ratio))

    def pixels_HWC(self, image: Image.Image, original_size: tuple[int, int]) -> np.ndarray:
        """The uint8 pixels of an RGB image, which may be a smaller decode of its original.

        The geometry follows `original_size` (width, height).
        """
        target_height, target_width = self.size
        width, height = self.resized_size(*original_size)
        resampling = RESAMPLING[self.interpolation]
        if width * height > _MAX_RESIZED_PIXELS and self.resize_mode == "shortest":
            left = self._first_kept(width, target_width)
            top = self._first_kept(height, target_height)
            across, down = image.width / width, image.height / height
            box = (
                left * across,
                top * down,
                (left + target_width) * across,
                (top + target_height) * down,
            )
            return np.asarray(image.resize((target_width, target_height), resampling, box))
        if image.size != (width, height):
            image = image.resize((width, height), resampling)
        if width < target_width or height < target_height:
            canvas_size = max(width, target_width), max(height, target_height)
            canvas = Image.new("RGB", canvas_size, (self.fill_color,) * 3)
            canvas.paste(image, ((canvas_size[0] - width) // 2, (canvas_size[1] - height) // 2))
            image = canvas
        left = self._first_kept(image.width, target_width)
        top = self._first_kept(image.height, target_height)
        return np.asarray(image.crop((left, top, left + target_width, top + target_height)))

    def _first_kept(self, size: int, target: int) -> int:
        """The first pixel of the centre crop; torchvision's center_crop rounds half to even."""
        if self.crop_rounding == "down":
            return (size - target) // 2
        return round((size - target) / 2.0)
