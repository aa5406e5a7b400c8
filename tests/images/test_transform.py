"""Pixels equal open_clip's own evaluation transform, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from dfn_ray.images.transform import ImageTransform
from tests.network.conftest import photo

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


def ours(image, size, resize_mode, interpolation="bicubic", fill_color=0):
    transform = ImageTransform(
        size=size,
        resize_mode=resize_mode,
        interpolation=interpolation,
        mean=MEAN,
        std=STD,
        fill_color=fill_color,
    )
    return transform.pixels_HWC(image, image.size)


def open_clips(image, size, resize_mode, interpolation="bicubic", fill_color=0):
    cfg = PreprocessCfg(
        size=size,
        mean=(0.0,) * 3,
        std=(1.0,) * 3,
        interpolation=interpolation,
        resize_mode=resize_mode,
        fill_color=fill_color,
    )
    image_CHW = image_transform_v2(cfg, is_train=False)(image)
    return (image_CHW * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


SIZES = [
    (224, 224),
    (640, 480),
    (481, 640),
    (225, 224),
    (223, 500),
    (30, 31),
    (1, 1),
    (3, 900),
    (900, 7),
]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_square_targets_equal_open_clip(size, resize_mode, interpolation):
    image = photo(*size)
    got = ours(image, (224, 224), resize_mode, interpolation)
    assert np.array_equal(got, open_clips(image, (224, 224), resize_mode, interpolation))


@pytest.mark.parametrize("size", [(640, 480), (481, 640), (30, 31), (33, 900)], ids=str)
@pytest.mark.parametrize("resize_mode", ["shortest", "squash", "longest"])
def test_non_square_targets_equal_open_clip(size, resize_mode):
    image = photo(*size)
    assert np.array_equal(
        ours(image, (96, 161), resize_mode), open_clips(image, (96, 161), resize_mode)
    )


def test_padding_has_the_fill_colour():
    image = photo(200, 77)
    got = ours(image, (64, 64), "longest", fill_color=127)
    assert (got[0] == 127).all()
    assert np.array_equal(got, open_clips(image, (64, 64), "longest", fill_color=127))


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    target=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    resize_mode=st.sampled_from(["shortest", "squash"]),
)
def test_any_size_equals_open_clip(width, height, target, resize_mode):
    image = Image.effect_noise((width, height), 90).convert("RGB")
    assert np.array_equal(ours(image, target, resize_mode), open_clips(image, target, resize_mode))


def test_extreme_shapes_are_resized_without_the_whole_intermediate(monkeypatch):
    image = photo(4, 1200)
    whole = ours(image, (32, 32), "shortest")
    monkeypatch.setattr("dfn_ray.images.transform._MAX_RESIZED_PIXELS", 1000)
    part = ours(image, (32, 32), "shortest")
    assert np.abs(whole.astype(int) - part).max() <= 1


def test_a_1x5000_image_gives_pixels_in_every_mode():
    for resize_mode in ("shortest", "squash", "longest"):
        assert ours(photo(1, 5000), (224, 224), resize_mode).shape == (224, 224, 3)
