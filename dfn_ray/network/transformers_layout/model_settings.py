"""A config.json of CLIP or SigLIP as open_clip's model config, checked before anything is built.

Absent keys have the defaults of transformers' configuration classes (CLIPTextConfig and others in
transformers 5).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from dfn_ray.errors import InputError, shortened
from dfn_ray.network.open_clip_config import MAX_PARAMETERS, problems_in
from dfn_ray.network.transformers_layout.network_kind import Kind

DEFAULT_EPS = 1e-5
"""Epsilon of torch's and open_clip's layer norms."""
LEGACY_END_ID = 2
"""`eos_token_id` of configs before transformers 4.31, which pooled the text at its largest id and
ignored this value."""

OWN_KEY = "dfn_ray"
"""Key of a config.json written by `dfn-ray export --network`: settings that transformers lacks."""
_OWN_SWITCHES = ("custom_text", "nonscalar_logit_scale")

_IGNORING = ConfigDict(extra="ignore", strict=True, allow_inf_nan=False)
_Width = Annotated[int, Field(ge=1, le=2**16)]
_Layers = Annotated[int, Field(ge=1, le=1024)]
_Side = Annotated[int, Field(ge=1, le=2**14)]
_Eps = Annotated[float, Field(gt=0, lt=1)]
_Activation = Literal["quick_gelu", "gelu", "gelu_pytorch_tanh"]
_Id = Annotated[int, Field(ge=0, le=2**24)]


@dataclass(kw_only=True)
class _Text:
    __pydantic_config__ = _IGNORING

    vocab_size: Annotated[int, Field(ge=1, le=2**24)] = 49408
    hidden_size: _Width = 512
    intermediate_size: _Width = 2048
    num_hidden_layers: _Layers = 12
    num_attention_heads: _Width = 8
    max_position_embeddings: Annotated[int, Field(ge=1, le=2**16)] = 77
    hidden_act: _Activation = "quick_gelu"
    layer_norm_eps: _Eps = 1e-5
    eos_token_id: _Id = 49407


@dataclass(kw_only=True)
class _SiglipText(_Text):
    __pydantic_config__ = _IGNORING

    vocab_size: Annotated[int, Field(ge=1, le=2**24)] = 32000
    hidden_size: _Width = 768
    intermediate_size: _Width = 3072
    num_attention_heads: _Width = 12
    max_position_embeddings: Annotated[int, Field(ge=1, le=2**16)] = 64
    hidden_act: _Activation = "gelu_pytorch_tanh"
    layer_norm_eps: _Eps = 1e-6
    eos_token_id: Any = None  # never used: a SigLIP is pooled at its last token
    projection_size: _Width | None = None


@dataclass(kw_only=True)
class _Vision:
    __pydantic_config__ = _IGNORING

    hidden_size: _Width = 768
    intermediate_size: _Width = 3072
    num_hidden_layers: _Layers = 12
    num_attention_heads: _Width = 12
    num_channels: Literal[3] = 3
    image_size: _Side = 224
    patch_size: _Side = 32
    hidden_act: _Activation = "quick_gelu"
    layer_norm_eps: _Eps = 1e-5


@dataclass(kw_only=True)
class _SiglipVision(_Vision):
    __pydantic_config__ = _IGNORING

    patch_size: _Side = 16
    hidden_act: _Activation = "gelu_pytorch_tanh"
    layer_norm_eps: _Eps = 1e-6
    vision_use_head: Literal[True] = True


_TOWERS: Mapping[Kind, tuple[type[_Text], type[_Vision]]] = {
    "clip": (_Text, _Vision),
    "siglip": (_SiglipText, _SiglipVision),
}


def model_cfg_of(config: Mapping[str, Any], kind: Kind, place: str) -> dict[str, Any]:
    """Returns open_clip's model config for a config.json, with `custom_text` and `quick_gelu`.

    Raises InputError that names the file, the key and the value.
    """
    text_class, vision_class = _TOWERS[kind]
    sections = {
        name: _section(config, name, kind, place) for name in ("text_config", "vision_config")
    }
    problems = [
        *problems_in(TypeAdapter(text_class), "text_config", sections["text_config"]),
        *problems_in(TypeAdapter(vision_class), "vision_config", sections["vision_config"]),
    ]
    dim = config.get("projection_dim", 512)
    if kind == "clip" and not (type(dim) is int and 0 < dim <= 2**16):
        problems.append(
            f"projection_dim: need a whole number from 1 to 65,536, got {shortened(repr(dim))}"
        )
    if problems:
        raise InputError(f"{place}: " + "; ".join(problems[:5]))
    text = TypeAdapter(text_class).validate_json(json.dumps(sections["text_config"]))
    vision = TypeAdapter(vision_class).validate_json(json.dumps(sections["vision_config"]))
    if problems := _contradictions(text, vision, kind):
        raise InputError(f"{place}: " + "; ".join(problems[:5]))
    return _clip(config, text, vision) if kind == "clip" else _siglip(text, vision)


def own_settings(values: dict[str, Any], place: str) -> dict[str, bool]:
    """The settings of a config.json that transformers lacks. Raises InputError for others."""
    own = values.get(OWN_KEY) or {}
    if not isinstance(own, dict) or any(
        key not in _OWN_SWITCHES or not isinstance(value, bool) for key, value in own.items()
    ):
        raise InputError(
            f"{place}: {OWN_KEY}: need {' and '.join(_OWN_SWITCHES)}, true or false, got "
            f"{shortened(repr(own))}"
        )
    return own


def _section(config: Mapping[str, Any], name: str, kind: Kind, place: str) -> dict[str, Any]:
    """The settings of a tower.

    In old files of CLIPs, `text_config_dict` takes precedence, with defaults for its absent keys.
    """
    value, old = config.get(name) or {}, config.get(f"{name}_dict") if kind == "clip" else None
    for key, found in ((name, value), (f"{name}_dict", {} if old is None else old)):
        if not isinstance(found, dict):
            raise InputError(f"{place}: {key}: need an object, got {shortened(repr(found))}")
    if old is None:
        return value
    return {**value, **asdict(_Text() if name == "text_config" else _Vision()), **old}


def _contradictions(text: _Text, vision: _Vision, kind: Kind) -> list[str]:
    """Problems that only appear when values are combined."""
    problems: list[str] = []
    for name, tower in (("text_config", text), ("vision_config", vision)):
        width, heads = tower.hidden_size, tower.num_attention_heads
        if width % heads:
            problems.append(f"{name}.num_attention_heads: {heads} does not divide {width}")
        count = tower.num_hidden_layers * width * (4 * width + 2 * tower.intermediate_size)
        count += tower.vocab_size * width if isinstance(tower, _Text) else 0
        if count > MAX_PARAMETERS:
            problems.append(
                f"{name}: has about {count:.2g} parameters, more than {MAX_PARAMETERS:.2g}"
            )
    if vision.patch_size > vision.image_size:
        problems.append(
            f"vision_config.patch_size: {vision.patch_size} is more than image_size, "
            f"{vision.image_size}"
        )
    acts = {text.hidden_act, vision.hidden_act}
    if kind == "clip" and "quick_gelu" in acts and len(acts) > 1:
        problems.append(
            f"hidden_act: {text.hidden_act} of the text and {vision.hidden_act} of the image tower "
            "cannot be combined in one open_clip network"
        )
    if isinstance(text, _SiglipText):
        if "quick_gelu" in acts:
            problems.append("hidden_act: quick_gelu is not supported in a SigLIP")
        size = text.projection_size or text.hidden_size
        if size != vision.hidden_size:
            problems.append(
                f"text_config.projection_size: {size} is not the image tower's hidden_size, "
                f"{vision.hidden_size}"
            )
    return problems


def _clip(config: Mapping[str, Any], text: _Text, vision: _Vision) -> dict[str, Any]:
    legacy = text.eos_token_id == LEGACY_END_ID
    pooling = {} if legacy else {"pool_type": "eos", "eos_id": text.eos_token_id}
    return {
        "embed_dim": config.get("projection_dim", 512),
        "custom_text": False,
        "quick_gelu": text.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "layers": vision.num_hidden_layers,
            **_block(vision),
        },
        "text_cfg": {**_text_cfg(text), **pooling},
    }


def _siglip(text: _Text, vision: _Vision) -> dict[str, Any]:
    return {
        "embed_dim": vision.hidden_size,
        "custom_text": True,
        "quick_gelu": False,
        "init_logit_bias": -10.0,
        "vision_cfg": {
            "image_size": vision.image_size,
            "siglip_vit": {
                "patch_size": vision.patch_size,
                "width": vision.hidden_size,
                "heads": vision.num_attention_heads,
                "layers": vision.num_hidden_layers,
                "mlp_width": vision.intermediate_size,
                "activation": vision.hidden_act,
                "eps": vision.layer_norm_eps,
            },
        },
        "text_cfg": {
            **_text_cfg(text),
            "no_causal_mask": True,
            "pool_type": "last",
            "proj_bias": True,
        },
    }


def _text_cfg(text: _Text) -> dict[str, Any]:
    return {
        "context_length": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "width": text.hidden_size,
        "heads": text.num_attention_heads,
        "layers": text.num_hidden_layers,
        **_block(text),
    }


def _block(tower: _Text | _Vision) -> dict[str, Any]:
    """Settings of open_clip's blocks, without defaults, so that equal networks compare equal."""
    found: dict[str, Any] = {"mlp_ratio": _ratio(tower.hidden_size, tower.intermediate_size)}
    if tower.layer_norm_eps != DEFAULT_EPS:
        found["norm_kwargs"] = {"eps": tower.layer_norm_eps}
    if tower.hidden_act == "gelu_pytorch_tanh":
        found["act_kwargs"] = {"approximate": "tanh"}
    return found


def _ratio(width: int, mlp_width: int) -> float:
    """The factor that yields exactly `mlp_width` in open_clip, which rounds the product down."""
    ratio = mlp_width / width
    return ratio if int(width * ratio) == mlp_width else math.nextafter(ratio, math.inf)
