"""Training images: a resized random crop and the recipe's other augmentations, seeded per image."""

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
    """open_clip's training transform (RandomResizedCrop and more), with one seed per sample."""

    plain: ImageTransform
    """The network's own transform: size and interpolation."""
    augmentation: Augmentation
    seeds: tuple[int, ...]
    """One seed per image, in order."""

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
        """Width and height of the whole image when its crop has the network's size."""
        left, top, right, bottom = self._crop(np.random.default_rng(self.seed), width, height)
        target_height, target_width = self.plain.size
        return (
            math.ceil(width * target_width / (right - left)),
            math.ceil(height * target_height / (bottom - top)),
        )

    def pixels_HWC(self, image: Image.Image, original_size: tuple[int, int]) -> np.ndarray:
        """The uint8 pixels of an RGB image, which may be a smaller decode of its original."""
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
        settings = self.augmentation
        if rng.random() < settings.flip_probability:
            image = ImageOps.mirror(image)
        if settings.jitter:
            for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
                factor = rng.uniform(1 - settings.jitter, 1 + settings.jitter)
                image = enhance(image).enhance(factor)
        if settings.hue_jitter:
            image = _shift_hue(image, rng.uniform(-settings.hue_jitter, settings.hue_jitter))
        if rng.random() < settings.grayscale_probability:
            image = ImageOps.grayscale(image).convert("RGB")
        return np.asarray(image)

    def _crop(self, rng: np.random.Generator, width: int, height: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom, drawn as in torchvision's RandomResizedCrop.get_params."""
        settings = self.augmentation
        for _ in range(_CROP_TRIES):
            area = width * height * rng.uniform(settings.min_scale, settings.max_scale)
            low, high = math.log(settings.min_ratio), math.log(settings.max_ratio)
            ratio = math.exp(rng.uniform(low, high))
            across, down = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < across <= width and 0 < down <= height:
                left = int(rng.integers(0, width - across + 1))
                top = int(rng.integers(0, height - down + 1))
                return left, top, left + across, top + down
        # No try fitted: take the largest central crop with the nearest allowed ratio.
        ratio = min(max(width / height, settings.min_ratio), settings.max_ratio)
        across = min(width, max(1, round(height * ratio)))
        down = min(height, max(1, round(width / ratio)))
        left, top = (width - across) // 2, (height - down) // 2
        return left, top, left + across, top + down


def _shift_hue(image: Image.Image, shift: float) -> Image.Image:
    """The image with its hues moved by `shift` colour circles, as in torchvision's adjust_hue."""
    hue, saturation, value = image.convert("HSV").split()
    shifted = np.asarray(hue) + np.int32(shift * 255).astype(np.uint8)  # wraps around, as hues do
    return Image.merge("HSV", (Image.fromarray(shifted), saturation, value)).convert("RGB")
