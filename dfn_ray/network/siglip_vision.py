"""SigLIP's image tower of any size: timm's VisionTransformer built from settings, where open_clip takes a registered name.

A registered name would fix the size, and with it GELU's exact form; the networks were trained with its tanh form, which
changes embeddings by 6e-5.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from open_clip.timm_model import TimmModel
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from dfn_ray.network.siglip_vit import SiglipVit


class SiglipVisionTower(TimmModel):
    """As open_clip wraps a timm network, with the same names of weights, but built from settings."""

    def __init__(self, settings: Mapping[str, Any], image_size: int) -> None:
        nn.Module.__init__(self)
        vit = SiglipVit(**settings)
        tanh = vit.activation == "gelu_pytorch_tanh"
        self.image_size = (image_size, image_size)
        self.trunk = VisionTransformer(
            img_size=image_size,
            patch_size=vit.patch_size,
            embed_dim=vit.width,
            depth=vit.layers,
            num_heads=vit.heads,
            # The half keeps timm's rounding down from losing one.
            mlp_ratio=(vit.mlp_width + 0.5) / vit.width,
            norm_layer=partial(nn.LayerNorm, eps=vit.eps),
            act_layer=partial(nn.GELU, approximate="tanh") if tanh else nn.GELU,
            class_token=False,
            global_pool="map",
            num_classes=0,
        )
        self.head = nn.Sequential()
