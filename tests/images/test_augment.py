"""Training transforms: open_clip's RandomResizedCrop, a function of the seed."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F

from dfn_ray.config import Augmentation
from dfn_ray.images.augment import VariedTransform, _shift_hue
from dfn_ray.images.transform import ImageTransform

PLAIN = ImageTransform(
    size=(48, 48), resize_mode="shortest", interpolation="bicubic", mean=(0, 0, 0), std=(1, 1, 1)
)


def picture(width: int = 120, height: int = 90) -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (9, 12, 3), dtype=np.uint8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


def varied(seeds, **settings) -> VariedTransform:
    return VariedTransform(plain=PLAIN, augmentation=Augmentation(**settings), seeds=tuple(seeds))


@pytest.mark.parametrize("seed", range(8))
def test_a_crop_has_the_pixels_of_torchvisions_resized_crop(seed):
    image = picture()
    one = varied([seed], min_scale=0.3).of_sample(0)
    left, top, right, bottom = one._crop(np.random.default_rng(seed), *image.size)
    expected = F.resized_crop(
        image, top, left, bottom - top, right - left, [48, 48], InterpolationMode.BICUBIC
    )
    assert np.array_equal(one.pixels_HWC(image, image.size), np.asarray(expected))


def test_crops_are_distributed_as_torchvisions():
    image, settings = picture(200, 80), {"min_scale": 0.3, "max_scale": 0.9}
    transform = varied(range(4000), **settings)
    crops = np.array(
        [transform.of_sample(n)._crop(np.random.default_rng(n), *image.size) for n in range(4000)]
    )
    theirs = np.array(
        [RandomResizedCrop.get_params(image, [0.3, 0.9], [3 / 4, 4 / 3]) for _ in range(4000)]
    )
    ours = np.stack(
        [crops[:, 1], crops[:, 0], crops[:, 3] - crops[:, 1], crops[:, 2] - crops[:, 0]], axis=1
    )
    error = theirs.std(axis=0) / np.sqrt(4000)
    assert (np.abs(ours.mean(axis=0) - theirs.mean(axis=0)) < 6 * error).all()
    assert np.allclose(ours.std(axis=0), theirs.std(axis=0), rtol=0.1)


def test_the_seed_alone_decides():
    image, settings = picture(), {"jitter": 0.4, "flip_probability": 0.5, "min_scale": 0.5}
    first = [varied([7, 8], **settings).of_sample(n).pixels_HWC(image, image.size) for n in (0, 1)]
    again = varied([8], **settings).of_sample(0).pixels_HWC(image, image.size)
    assert np.array_equal(first[1], again)
    assert not np.array_equal(first[0], first[1])


def test_a_scaled_decode_keeps_the_crop():
    image = picture(480, 360)
    small = image.resize((240, 180), Image.Resampling.BOX)
    one = varied([3], min_scale=0.5).of_sample(0)
    whole = one.pixels_HWC(image, image.size).astype(int)
    scaled = one.pixels_HWC(small, image.size).astype(int)
    assert np.abs(whole - scaled).mean() < 3
    width, height = one.resized_size(*image.size)
    assert 48 <= width < 480
    assert 48 <= height < 360


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2)])
def test_extreme_shapes_give_pixels(size):
    image = Image.new("RGB", size, (10, 20, 30))
    pixels = varied([1]).of_sample(0).pixels_HWC(image, size)
    assert pixels.shape == (48, 48, 3)
    assert (pixels == [10, 20, 30]).all()


def test_mirroring_and_grey_are_what_they_say():
    image = picture()
    always = {"min_scale": 1.0, "min_ratio": 4 / 3}
    plain = varied([1], **always).of_sample(0).pixels_HWC(image, image.size)
    mirrored = varied([1], flip_probability=1.0, **always).of_sample(0)
    grey = varied([1], grayscale_probability=1.0, **always).of_sample(0)
    assert np.array_equal(mirrored.pixels_HWC(image, image.size), plain[:, ::-1])
    assert np.ptp(grey.pixels_HWC(image, image.size).astype(int), axis=2).max() == 0


@pytest.mark.parametrize("turn", [-0.3, 0.1, 0.45])
def test_hues_turn_as_torchvisions(turn):
    image = picture()
    assert np.array_equal(_shift_hue(image, turn), F.adjust_hue(image, turn))
