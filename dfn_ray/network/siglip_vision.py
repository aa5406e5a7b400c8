"""SigLIP's image tower in any size: timm's VisionTransformer, built from settings.

open_clip takes a name that is registered in timm, which determines the size and GELU's exact form.
The networks were trained with GELU's tanh form, which changes embeddings by 6e-5.
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
    """A timm network as wrapped by open_clip, with the same weight names, built from settings."""

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
            # timm rounds down; the half keeps it from losing one.
            mlp_ratio=(vit.mlp_width + 0.5) / vit.width,
            norm_layer=partial(nn.LayerNorm, eps=vit.eps),
            act_layer=partial(nn.GELU, approximate="tanh") if tanh else nn.GELU,
            class_token=False,
            global_pool="map",
            num_classes=0,
        )
        self.head = nn.Sequential()
