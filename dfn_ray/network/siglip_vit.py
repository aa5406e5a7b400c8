"""Settings of SigLIP's image tower, without torch; `siglip_vision` builds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

_Width = Annotated[int, Field(ge=1, le=2**16)]


@dataclass(frozen=True, kw_only=True)
class SiglipVit:
    """`vision_cfg.siglip_vit` of a model config: what open_clip has no words for."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    patch_size: Annotated[int, Field(ge=1, le=2**14)]
    width: _Width
    heads: _Width
    layers: Annotated[int, Field(ge=1, le=1024)]
    mlp_width: _Width
    activation: Literal["gelu", "gelu_pytorch_tanh"]
    eps: Annotated[float, Field(gt=0, lt=1)]
    """Of the layer norms."""


SIGLIP_VIT = TypeAdapter(SiglipVit)
