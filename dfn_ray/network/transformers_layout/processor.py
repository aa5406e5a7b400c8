"""A preprocessor_config.json or processor_config.json as the settings of an image transform.

The reference is transformers' Pillow processors (CLIPImageProcessorPil, SiglipImageProcessorPil);
its other processors resize tensors, which yields other pixels. Settings that the transform does not
support are rejected by key and value.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dfn_ray.errors import InputError, shortened
from dfn_ray.images.transform import MIN_STD, NORMALIZATIONS
from dfn_ray.network.small_files import SmallFiles
from dfn_ray.network.transformers_layout.network_kind import Kind

_LOG = logging.getLogger(__name__)

FILES = ("processor_config.json", "preprocessor_config.json")
"""Either may contain the image processor; transformers prefers the first one, which older versions
wrote without it."""
_RESAMPLE = {3: "bicubic", 2: "bilinear"}
"""Pillow's numbers."""
_MAX_SIDE_PIXELS = 2**14
_MAX_NUMBER = 1000
"""Largest mean or deviation: pixels are from 0 to 1."""
_TYPES = ("image_processor_type", "feature_extractor_type")
_NAMES: Mapping[str, Kind] = {
    f"{kind}{what}": name
    for kind, name in (("CLIP", "clip"), ("Siglip", "siglip"))
    for what in ("ImageProcessor", "ImageProcessorPil", "ImageProcessorFast", "FeatureExtractor")
}  # type: ignore[assignment]


@dataclass(frozen=True)
class _Settings:
    """An image processor's values, and their place for messages."""

    values: Mapping[str, Any]
    place: str

    def get(self, key: str, default: Any) -> Any:
        """The value of a key; null counts as absent, as in transformers."""
        value = self.values.get(key)
        return default if value is None else value

    def switch(self, key: str, default: bool) -> bool:
        value = self.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "need true or false")
        return value

    def error(self, key: str, need: str) -> InputError:
        return InputError(
            f"{self.place}: {key}: {need}, got {shortened(repr(self.values.get(key)))}"
        )


def preprocess_cfg_of(folder: SmallFiles, image_size: int, kind: Kind) -> dict[str, Any]:
    """Returns the fields of the transform, by their names in PreprocessCfg and ImageTransform.

    `image_size` is the network's input size in pixels. Raises InputError that names the file, the
    key and the value.
    """
    found = _found(folder)
    if found is None:
        _LOG.warning(
            "%s: has no %s; using the defaults of %s at %d pixels",
            folder.label,
            FILES[1],
            "CLIPImageProcessor" if kind == "clip" else "SiglipImageProcessor",
            image_size,
        )
        found = _Settings(
            {"size": _default_size(kind, image_size), "crop_size": image_size}, folder.label
        )
    settings = found
    kind = _kind(settings, kind)
    for key in ("do_resize", "do_rescale"):
        if not settings.switch(key, True):
            raise settings.error(key, "need true")
    for key in ("do_pad", "use_square_size"):
        if settings.switch(key, False):
            raise settings.error(key, "not supported; need false")
    if not _is_number(factor := settings.get("rescale_factor", 1 / 255)) or not math.isclose(
        factor, 1 / 255, rel_tol=1e-6
    ):
        raise settings.error("rescale_factor", "need 1/255")
    settings.switch("do_convert_rgb", True)  # images are always converted to RGB
    resample = settings.get("resample", 3)
    if type(resample) is not int or resample not in _RESAMPLE:
        raise settings.error("resample", "need 3 (bicubic) or 2 (bilinear)")
    mean, std = _normalisation(settings, kind)
    return {
        **_geometry(settings, image_size, kind),
        "interpolation": _RESAMPLE[resample],
        "mean": mean,
        "std": std,
    }


def _default_size(kind: Kind, side: int) -> dict[str, int]:
    return {"shortest_edge": side} if kind == "clip" else {"height": side, "width": side}


def _found(folder: SmallFiles) -> _Settings | None:
    for name in FILES:
        if name not in folder:
            continue
        values, place = folder.json_object(name), f"{folder.label}/{name}"
        if name == FILES[0]:
            if "image_processor" not in values:
                continue
            values, place = values["image_processor"], f"{place}: image_processor"
            if not isinstance(values, dict):
                raise InputError(f"{place}: need an object, got {shortened(repr(values))}")
        if values.get("auto_map"):
            raise InputError(
                f"{place}: auto_map: the image processor is custom code, and code from a hub is "
                "never run"
            )
        return _Settings(values, place)
    return None


def _kind(settings: _Settings, kind: Kind) -> Kind:
    """The kind whose defaults replace absent values."""
    for key in _TYPES:
        name = settings.values.get(key)
        if name is not None:
            if not isinstance(name, str) or name not in _NAMES:
                raise settings.error(key, "need CLIPImageProcessor or SiglipImageProcessor")
            return _NAMES[name]
    return kind


def _normalisation(settings: _Settings, kind: Kind) -> tuple[list[float], list[float]]:
    if not settings.switch("do_normalize", True):
        return [0.0] * 3, [1.0] * 3
    default_mean, default_std = NORMALIZATIONS["openai" if kind == "clip" else "half"]
    mean = _channels(settings, "image_mean", list(default_mean))
    std = _channels(settings, "image_std", list(default_std))
    if min(std) < MIN_STD:
        raise settings.error("image_std", f"need numbers >= {MIN_STD}")
    return mean, std


def _channels(settings: _Settings, key: str, default: list[float]) -> list[float]:
    value = settings.get(key, default)
    values = value if isinstance(value, list) else [value] * 3
    if len(values) != 3 or not all(map(_is_number, values)):
        raise settings.error(
            key, f"need a number for each of 3 channels, {-_MAX_NUMBER:,} to {_MAX_NUMBER:,}"
        )
    return [float(number) for number in values]


def _geometry(settings: _Settings, image_size: int, kind: Kind) -> dict[str, Any]:
    """The resize and the crop after it."""
    size = settings.get("size", _default_size(kind, 224))
    if settings.switch("default_to_square", False) and _is_side(size):
        size = {"height": size, "width": size}
    edge, box = _edge_or_box(settings, size)
    resized = box or (edge, edge)
    cropped = settings.switch("do_center_crop", kind == "clip")
    if cropped:
        crop = settings.get("crop_size", 224)
        crop = {"height": crop, "width": crop} if _is_side(crop) else crop
        height, width = _edge_or_box(settings, crop, key="crop_size")[1] or (0, 0)
    elif box is None:
        raise settings.error("size", "need height and width, because do_center_crop is off")
    else:
        height, width = box
    if (height, width) != (image_size, image_size):
        key = "crop_size" if cropped else "size"
        raise settings.error(key, f"the network takes images of {image_size}x{image_size}")
    if resized[0] < height or resized[1] < width:
        raise settings.error("size", f"need at least crop_size, {height}x{width}")
    return {
        "size": [height, width],
        "resize_mode": "shortest" if box is None else "squash",
        **({"crop_rounding": "down"} if cropped else {}),
        **({} if resized == (height, width) else {"resized": list(resized)}),
    }


def _edge_or_box(
    settings: _Settings, value: Any, *, key: str = "size"
) -> tuple[int, tuple[int, int] | None]:
    """The shorter edge, or height and width."""
    if _is_side(value) and key == "size":
        return value, None
    if isinstance(value, dict):
        sides = {name: side for name, side in value.items() if side is not None}
        if all(map(_is_side, sides.values())):
            if set(sides) == {"shortest_edge"} and key == "size":
                return sides["shortest_edge"], None
            if set(sides) == {"height", "width"}:
                return 0, (sides["height"], sides["width"])
    need = "need pixels" + (", shortest_edge" if key == "size" else "") + ", or height and width"
    raise settings.error(key, f"{need}, 1 to {_MAX_SIDE_PIXELS:,}")


def _is_side(value: Any) -> bool:
    return type(value) is int and 0 < value <= _MAX_SIDE_PIXELS


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _MAX_NUMBER  # not so for NaN
