"""Training images: a random crop, resized, and the other variations of a recipe, each a function of a seed."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from dfn_ray.config import Augmentation
from dfn_ray.images.transform import RESAMPLING, ImageTransform

_CROP_TRIES = 10  # torchvision.transforms.RandomResizedCrop


@dataclass(frozen=True, kw_only=True)
class VariedTransform:
    """The training transform of open_clip (RandomResizedCrop and more) for samples with a seed each."""

    plain: ImageTransform
    """The network's own transform: size and interpolation."""
    augmentation: Augmentation
    seeds: tuple[int, ...]
    """One per image, in order."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.plain.size

    def of_sample(self, index: int) -> _OneVariation:
        """The transform of one image."""
        return _OneVariation(self.plain, self.augmentation, self.seeds[index])


@dataclass(frozen=True)
class _OneVariation:
    plain: ImageTransform
    augmentation: Augmentation
    seed: int

    def resized_size(self, width: int, height: int) -> tuple[int, int]:
        """The size that the whole image would have where its crop has the network's: how small it may be decoded."""
        left, top, right, bottom = self._crop(np.random.default_rng(self.seed), width, height)
        target_height, target_width = self.plain.size
        return (
            math.ceil(width * target_width / (right - left)),
            math.ceil(height * target_height / (bottom - top)),
        )

    def pixels_HWC(self, image: Image.Image, original_size: tuple[int, int]) -> np.ndarray:
        """The uint8 pixels of an RGB image, which may stand for an original of another size."""
        rng = np.random.default_rng(self.seed)
        box = self._crop(rng, *original_size)
        target_height, target_width = self.plain.size
        size, resampling = (target_width, target_height), RESAMPLING[self.plain.interpolation]
        if image.size == original_size:
            image = image.crop(box).resize(size, resampling)
        else:
            across, down = image.width / original_size[0], image.height / original_size[1]
            left, top, right, bottom = box
            image = image.resize(
                size, resampling, (left * across, top * down, right * across, bottom * down)
            )
        how = self.augmentation
        if rng.random() < how.flip_probability:
            image = ImageOps.mirror(image)
        if how.jitter:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                image = enhance(image).enhance(rng.uniform(1 - how.jitter, 1 + how.jitter))
        if how.hue_jitter:
            image = _turn_hue(image, rng.uniform(-how.hue_jitter, how.hue_jitter))
        if rng.random() < how.grayscale_probability:
            image = ImageOps.grayscale(image).convert("RGB")
        return np.asarray(image)

    def _crop(self, rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right, bottom, drawn as torchvision's RandomResizedCrop.get_params draws them."""
        how = self.augmentation
        for _ in range(_CROP_TRIES):
            area = width * height * rng.uniform(how.min_scale, how.max_scale)
            ratio = math.exp(rng.uniform(math.log(how.min_ratio), math.log(how.max_ratio)))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                left = int(rng.integers(0, width - across + 1))
                top = int(rng.integers(0, height - down + 1))
                return left, top, left + across, top + down
        # Too long for any ratio: the largest crop of the nearest one, from the middle.
        ratio = min(max(width / height, how.min_ratio), how.max_ratio)
        across = min(width, max(1, round(height * ratio)))
        down = min(height, max(1, round(width / ratio)))
        left, top = (width - across) // 2, (height - down) // 2
        return left, top, left + across, top + down


def _turn_hue(image: Image.Image, turn: float) -> Image.Image:
    """The image with its hues moved by that share of the colour circle, as torchvision's adjust_hue does."""
    hue, saturation, value = image.convert("HSV").split()
    moved = np.asarray(hue) + np.int32(turn * 255).astype(np.uint8)  # wraps round, as hues do
    return Image.merge("HSV", (Image.fromarray(moved), saturation, value)).convert("RGB")
