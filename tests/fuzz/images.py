"""Target: decoding. Valid pixels match Pillow and OpenCV; damage is a reason, never a blank."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Literal

import cv2
import numpy as np
from PIL import Image, PngImagePlugin

from dfn_ray.images.decode import decode_images
from dfn_ray.images.transform import ImageTransform
from dfn_ray.schema import Reason
from tests.fuzz.case import Case, Target, require
from tests.fuzz.hostile_images import hostile_image
from tests.fuzz.mutate import mutate
from tests.fuzz.pictures import READ, Picture, picture, simple

_MAX_PIXELS = 4_000_000
_SIDE = 24
_LOSSLESS = ("PNG", "BMP")
"""For RGB; a second decoder must return exactly these pixels."""

Mode = Literal["exact", "fast"]
OnTruncated = Literal["score", "fail"]


def make(rng: Random) -> Case:
    """A valid image of any kind, a damaged common one, or a hostile one."""
    on_truncated: OnTruncated = rng.choice(("score", "fail"))
    if rng.random() < 0.06:
        return _hostile(rng, on_truncated)
    if rng.random() < 0.5:
        return _valid(picture(rng), on_truncated)
    return _damaged(rng, on_truncated)


def _valid(shown: Picture, on_truncated: OnTruncated) -> Case:
    def check(folder: Path) -> Counter[str]:
        del folder
        if shown.foreign:
            return _check_foreign(shown, on_truncated)
        due = _by_pillow(shown.data)
        if due is None:  # tifffile writes kinds that Pillow does not read
            _, reason = _decoded(shown.data, (_SIDE, _SIDE), "exact", on_truncated)
            require(reason is not None, "what Pillow does not read is decoded", shown.note)
            return Counter([str(reason)])
        size = due.shape[1], due.shape[0]
        pixels, reason = _decoded(shown.data, size, "exact", on_truncated)
        if shown.scaled and reason is not None:
            return Counter([reason])
        require(reason is None, "a valid image fails", reason, shown.note, on_truncated)
        if shown.scaled:
            flat = pixels.min() == pixels.max() and pixels.max() in (0, 255)
            require(
                size[0] * size[1] < 2 or not flat,
                "numbers beyond 8 bits become black or white",
                shown.note,
            )
        else:
            require(np.array_equal(pixels, due), "pixels are not Pillow's", shown.note)
            _check_second(shown, pixels)
        fast, reason = _decoded(shown.data, size, "fast", on_truncated)
        require(reason is None, "a valid image fails in mode fast", reason, shown.note)
        require(
            np.abs(fast.astype(int) - pixels).mean() < 12,
            "mode fast shows something else",
            shown.note,
        )
        return Counter(["ok"])

    return Case(
        valid=True, note=f"{shown.note}, {on_truncated}", files={"image": shown.data}, check=check
    )


def _check_foreign(shown: Picture, on_truncated: OnTruncated) -> Counter[str]:
    _, reason = _decoded(shown.data, (_SIDE, _SIDE), "exact", on_truncated)
    require(reason is not None, "what is no image of the list is decoded", shown.note)
    due = (
        ("unsupported_image",)
        if shown.note == "JPEG2000"
        else ("unsupported_image", Reason.NOT_AN_IMAGE)
    )
    require(reason in due, "what is no image has another reason", reason, shown.note)
    return Counter([str(reason)])


def _check_second(shown: Picture, pixels: np.ndarray) -> None:
    """Checks the pixels against OpenCV, for kinds of image that both decode alike."""
    with _large_texts(), Image.open(io.BytesIO(shown.data), formats=READ) as opened:
        kind, mode = opened.format or "", opened.mode
    if mode != "RGB" or kind not in ("JPEG", *_LOSSLESS):
        return
    second = cv2.imdecode(
        np.frombuffer(shown.data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    )
    if second is None or second.shape != pixels.shape:
        return
    off = np.abs(second[..., ::-1].astype(int) - pixels)
    if kind in _LOSSLESS:
        require(off.max() <= 1, "pixels are not OpenCV's", shown.note, off.max())
    else:
        require(off.mean() < 4, "pixels are far from OpenCV's", shown.note, off.mean())


def _damaged(rng: Random, on_truncated: OnTruncated) -> Case:
    """A damaged image between two valid ones."""
    usual = simple(rng)
    damage = mutate(rng, usual.data)
    mode: Mode = rng.choice(("exact", "fast"))
    beside = simple(rng)

    def check(folder: Path) -> Counter[str]:
        del folder
        decoded = _batch(
            [beside.data, damage.data, beside.data], (_SIDE, _SIDE), mode, on_truncated
        )
        before, pixels, behind = decoded.pixels[0]
        reasons = decoded.reason
        require(
            (reasons[0], reasons[2]) == (None, None),
            "a neighbour of a damaged image fails",
            reasons,
            beside.note,
        )
        require(np.array_equal(before, behind), "neighbours of a damaged image differ", beside.note)
        require(before.any(), "a neighbour of a damaged image is black", beside.note)
        if reasons[1] is not None:
            require(not pixels.any(), "a failed image has pixels", reasons[1])
        elif not pixels.any():
            whole = _by_pillow(damage.data)
            require(
                whole is not None and not whole.any(),
                "damage is scored as a black picture",
                damage.note,
                usual.note,
            )
        if damage.cut and on_truncated == "fail" and len(damage.data) < len(usual.data) - 64:
            require(
                reasons[1] is not None or _by_pillow(damage.data) is not None,
                "an early end is no fault",
                usual.note,
            )
        return Counter([reasons[1] or "ok"])

    note = f"{usual.note}, {mode}, {on_truncated}: {damage.note}"
    return Case(
        valid=False, note=note, files={"image": damage.data, "beside": beside.data}, check=check
    )


def _hostile(rng: Random, on_truncated: OnTruncated) -> Case:
    """A hostile image between two valid ones."""
    hostile, beside = hostile_image(rng), simple(rng)
    mode: Mode = rng.choice(("exact", "fast"))

    def check(folder: Path) -> Counter[str]:
        del folder
        images = [beside.data, hostile.data, beside.data]
        before, reason, behind = _batch(images, (_SIDE, _SIDE), mode, on_truncated).reason
        require(before is None and behind is None, "a neighbour of a hostile image fails")
        require(reason in hostile.reasons, "a hostile image ends otherwise", reason, hostile.note)
        return Counter([reason or "ok"])

    note = f"{hostile.note}, {mode}, {on_truncated}"
    files = {"image": hostile.data, "beside": beside.data}
    return Case(valid=False, note=note, files=files, check=check)


def _by_pillow(data: bytes) -> np.ndarray | None:
    """The pixels that Pillow decodes in strict mode, of 16 bits the high byte; None on failure."""
    try:
        with warnings.catch_warnings(), _large_texts():
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=READ)
            if image.mode.startswith("I;16"):
                grey = (np.asarray(image) >> 8).astype(np.uint8)
                return np.repeat(grey[..., None], 3, axis=2)
            return np.asarray(image.convert("RGB"))
    except Exception:  # noqa: BLE001  recorded as None; Pillow raises anything here
        return None


@contextlib.contextmanager
def _large_texts() -> Iterator[None]:
    """Pillow without its limits on text chunks, which do not affect pixels."""
    limits = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY
    PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 2**26
    try:
        yield
    finally:
        PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY = limits


def _decoded(
    data: bytes, size: tuple[int, int], mode: Mode, on_truncated: OnTruncated
) -> tuple[np.ndarray, Reason | None]:
    """Pixels at a size given as width and height, and the reason if there are none."""
    decoded = _batch([data], size, mode, on_truncated)
    return decoded.pixels[0][0], decoded.reason[0]


def _batch(images: list[bytes], size: tuple[int, int], mode: Mode, on_truncated: OnTruncated):
    transform = ImageTransform(
        size=(size[1], size[0]),
        resize_mode="squash",
        interpolation="bicubic",
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
    )
    return decode_images(
        images,
        [transform],
        mode=mode,
        on_truncated=on_truncated,
        max_pixels=_MAX_PIXELS,
        timeout_s=20,
    )


TARGET = Target("image", 4, make)
