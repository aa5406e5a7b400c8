"""Reads `open_clip_config.json` and checks it before anything is built.

open_clip passes its values to the constructors of its dataclasses and modules, where a mistake
surfaces as any exception, or later in a scorer, or not at all. Here every error names the file, the
key and the value.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from dfn_ray.errors import InputError, shortened
from dfn_ray.images.transform import MIN_STD
from dfn_ray.network.open_clip_registry import config_classes, model_arguments
from dfn_ray.network.siglip_vit import SiglipVit
from dfn_ray.untrusted.json_text import parse_json

_CLASSES = config_classes()
_VISION, _TEXT = _CLASSES["CLIPVisionCfg"], _CLASSES["CLIPTextCfg"]
_STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

MAX_PARAMETERS = 2**35  # 128 GiB in float32; open_clip's largest networks have 2^33
_MAX_BY_SETTING = {
    "layers": 1024,
    "image_size": 2**14,
    "size": 2**14,
    "context_length": 2**16,
    "vocab_size": 2**24,
}
"""Maximum of single values; larger networks would take hours to build, or fit in no memory."""
_MAX_NUMBER = 2**20


@dataclass
class _VisionCfg(_VISION):
    __pydantic_config__ = _STRICT

    # open_clip's own configs contain null here (ResNets; timm networks without a projection).
    patch_size: int | None = 16
    timm_pool: str | None = "avg"
    timm_proj: str | None = "linear"


@dataclass
class _TextCfg(_TEXT):
    __pydantic_config__ = _STRICT

    hf_proj_type: str | None = "mlp"
    act_kwargs: dict[str, Any] | None = None
    norm_kwargs: dict[str, Any] | None = None


@dataclass
class _MultimodalCfg(_CLASSES["MultimodalCfg"]):
    __pydantic_config__ = _STRICT

    mlp_ratio: float = 4.0
    act_kwargs: dict[str, Any] | None = None
    norm_kwargs: dict[str, Any] | None = None


@dataclass
class _PreprocessCfg:
    """open_clip's PreprocessCfg with the values that its transform accepts; ignores other keys."""

    __pydantic_config__ = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)

    size: int | list[int] | None = None
    mode: Literal["RGB"] | None = None
    mean: float | list[float] | None = None
    std: float | list[float] | None = None
    interpolation: Literal["bicubic", "bilinear", "random"] | None = None
    resize_mode: Literal["shortest", "longest", "squash"] | None = None
    fill_color: int | None = None
    crop_rounding: Literal["half_even", "down"] | None = None  # this and the next: only in dfn_ray
    resized: list[int] | None = None


@dataclass
class _SiglipVisionCfg:
    """An image tower that open_clip does not support (`siglip_vision`)."""

    __pydantic_config__ = _STRICT

    siglip_vit: SiglipVit
    image_size: int


_TOWERS = {
    "vision_cfg": TypeAdapter(_VisionCfg),
    "text_cfg": TypeAdapter(_TextCfg),
    "multimodal_cfg": TypeAdapter(_MultimodalCfg),
}
_SIGLIP_VISION = TypeAdapter(_SiglipVisionCfg)
_PREPROCESS = TypeAdapter(_PreprocessCfg)
_NUMBERS = ("init_logit_scale", "init_logit_bias")
_SWITCHES = ("quick_gelu", "custom_text", "nonscalar_logit_scale", "output_dict")


def read_network_config(path: Path) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Returns model_cfg, preprocess_cfg and `dfn_ray.tokenizer` of a file.

    The tokenizer is None if absent; it is not checked here. Raises InputError that names the file,
    the key and the value.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    return network_config_of(data, str(path))


def network_config_of(data: bytes, path: str) -> tuple[dict[str, Any], dict[str, Any], Any]:
    """Returns the same as `read_network_config`, for the content of `path`, which may be a URI."""
    try:
        values = parse_json(data.decode("utf-8-sig"), parse_constant=_finite, parse_float=_finite)
    except ValueError as error:
        raise InputError(f"{path}: cannot be read as JSON: {error}") from None
    model_cfg = values.get("model_cfg") if isinstance(values, dict) else None
    if not isinstance(model_cfg, dict):
        raise InputError(f"{path}: need a JSON object with model_cfg, got {_json(values)}")
    for tower in ("text_cfg", "vision_cfg"):
        if not isinstance(model_cfg.get(tower), dict):
            got = _json(model_cfg.get(tower))
            raise InputError(f"{path}: model_cfg.{tower}: need an object, got {got}")
    preprocess_cfg = values.get("preprocess_cfg") or {}
    problems = [*_model_problems(model_cfg), *_preprocess_problems(preprocess_cfg)]
    if problems:
        raise InputError(f"{path}: " + "; ".join(problems[:5]))
    own = values.get("dfn_ray") or {}
    if not isinstance(own, dict):
        raise InputError(f"{path}: dfn_ray: need an object, got {_json(own)}")
    return model_cfg, preprocess_cfg, own.get("tokenizer")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is not a finite number")
    return value


def _model_problems(cfg: dict[str, Any]) -> list[str]:
    """Problems in model_cfg."""
    problems: list[str] = []
    known = (model_arguments() | {"custom_text", "multimodal_cfg"}) - {"cast_dtype"}
    for key in sorted(set(cfg) - known):
        problems.append(f"model_cfg.{key}: open_clip has no such key, got {_json(cfg[key])}")
    if type(cfg.get("embed_dim")) is not int or not 0 < cfg["embed_dim"] <= _MAX_NUMBER:
        problems.append(
            f"model_cfg.embed_dim: need a whole number > 0, got {_json(cfg.get('embed_dim'))}"
        )
    for key in _NUMBERS:
        if type(cfg.get(key)) not in (int, float, type(None)):
            problems.append(f"model_cfg.{key}: need a number, got {_json(cfg[key])}")
    for key in _SWITCHES:
        if key in cfg and not isinstance(cfg[key], bool):
            problems.append(f"model_cfg.{key}: need true or false, got {_json(cfg[key])}")
    for tower, adapter in _TOWERS.items():
        if tower in cfg:
            siglip = tower == "vision_cfg" and "siglip_vit" in cfg[tower]
            validator = _SIGLIP_VISION if siglip else adapter
            problems += problems_in(validator, f"model_cfg.{tower}", cfg[tower])
    return problems or _oversized("model_cfg", cfg) or _too_many_parameters(cfg)


def _preprocess_problems(cfg: Any) -> list[str]:
    """Problems in preprocess_cfg."""
    problems = problems_in(_PREPROCESS, "preprocess_cfg", cfg)
    if problems:
        return problems
    for key in ("mean", "std"):
        value = cfg.get(key)
        if isinstance(value, list) and len(value) not in (1, 3):
            problems.append(
                f"preprocess_cfg.{key}: need one number or one for each of 3 channels, got "
                f"{_json(value)}"
            )
        elif key == "std" and value is not None and any(v < MIN_STD for v in _listed(value)):
            problems.append(f"preprocess_cfg.std: need numbers >= {MIN_STD}, got {_json(value)}")
    size = cfg.get("size")
    if size is not None and (
        len(_listed(size)) not in (1, 2)
        or not all(0 < v <= _MAX_BY_SETTING["size"] for v in _listed(size))
    ):
        problems.append(f"preprocess_cfg.size: need pixels or [height, width], got {_json(size)}")
    resized = cfg.get("resized")
    if resized is not None and (
        len(resized) != 2
        or not all(0 < v <= _MAX_BY_SETTING["size"] for v in resized)
        or size is None
        or min(resized) < max(_listed(size))
    ):
        problems.append(
            f"preprocess_cfg.resized: need [height, width], at least size, got {_json(resized)}"
        )
    if not 0 <= (cfg.get("fill_color") or 0) <= 255:
        problems.append(f"preprocess_cfg.fill_color: need 0 to 255, got {cfg['fill_color']}")
    return problems


def problems_in(adapter: TypeAdapter[Any], place: str, values: Any) -> list[str]:
    """Returns the problems that pydantic finds in `values`, one per dotted key."""
    try:
        adapter.validate_json(json.dumps(values))
    except ValidationError as error:
        return [
            f"{'.'.join([place, *(str(part) for part in found['loc'][:1])])}: {found['msg']}, got "
            f"{_json(found['input'])}"
            for found in error.errors(include_url=False)
        ]
    return []


def _oversized(place: str, values: dict[str, Any]) -> list[str]:
    """Problems with numbers that are larger than in any network."""
    problems: list[str] = []
    for key, value in values.items():
        if isinstance(value, dict):
            problems += _oversized(f"{place}.{key}", value)
        elif any(
            isinstance(item, int | float) and abs(item) > _MAX_BY_SETTING.get(key, _MAX_NUMBER)
            for item in _listed(value)
        ):
            problems.append(f"{place}.{key}: larger than in any network: {_json(value)}")
    return problems


def _too_many_parameters(cfg: dict[str, Any]) -> list[str]:
    """A problem if a tower has more parameters than fit in a machine's memory."""
    return [
        f"model_cfg.{tower}: has about {count:.2g} parameters, more than {MAX_PARAMETERS:.2g}"
        for tower, count in _parameters(cfg).items()
        if count > MAX_PARAMETERS
    ]


def _parameters(cfg: Mapping[str, Any]) -> dict[str, float]:
    """A lower bound on the parameters of each tower of open_clip's own kinds."""
    found: dict[str, float] = {}
    for tower, defaults in (("vision_cfg", _VISION()), ("text_cfg", _TEXT())):
        values = {**vars(defaults), **cfg[tower], **cfg[tower].get("siglip_vit", {})}
        if "mlp_width" in values:
            values["mlp_ratio"] = values["mlp_width"] / values["width"]
        layers = max(map(int, _listed(values["layers"])), default=0)
        count = layers * values["width"] ** 2 * (4 + 2 * values["mlp_ratio"])
        found[tower] = count + values.get("vocab_size", 0) * values["width"]
    return found


def require_enough_bytes(cfg: Mapping[str, Any], size: int, where: str) -> None:
    """Raises InputError if `size` bytes cannot hold the weights of vision and text transformers.

    Checked before the network is built, which may take more memory than there is.
    """
    if (count := sum(_parameters(cfg).values())) > size:
        raise InputError(
            f"{where}: {size:,} bytes cannot hold the {count:,.0f} parameters or more that the "
            "config describes. Take both files from the same network"
        )


QUICK_GELU_REFUSED = (
    "the network's config names an activation (act_kwargs, or a SigLIP's), so true is not "
    "possible; leave it out"
)


def allows_quick_gelu(cfg: Mapping[str, Any]) -> bool:
    """True unless a tower names its activation itself, as those of SigLIP do."""
    towers = (cfg["vision_cfg"], cfg["text_cfg"])
    return not any("siglip_vit" in tower or tower.get("act_kwargs") for tower in towers)


def _listed(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _json(value: Any) -> str:
    return shortened(json.dumps(value, default=str))
