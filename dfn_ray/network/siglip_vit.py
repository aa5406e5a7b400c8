"""Settings of SigLIP's image tower, without importing torch; `siglip_vision` builds the tower."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter

_Width = Annotated[int, Field(ge=1, le=2**16)]


@dataclass(frozen=True, kw_only=True)
class SiglipVit:
    """`vision_cfg.siglip_vit` of a model config, an extension of open_clip's config."""

    __pydantic_config__ = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    patch_size: Annotated[int, Field(ge=1, le=2**14)]
    width: _Width
    heads: _Width
    layers: Annotated[int, Field(ge=1, le=1024)]
    mlp_width: _Width
    activation: Literal["gelu", "gelu_pytorch_tanh"]
    eps: Annotated[float, Field(gt=0, lt=1)]
    """Epsilon of the layer norms."""


SIGLIP_VIT = TypeAdapter(SiglipVit)
