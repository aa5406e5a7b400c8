"""One way to score samples, as data: the recipe's settings, or the reference's possible ones."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from dfn_ray.config import Decode
from dfn_ray.images.transform import ImageTransform
from dfn_ray.network.packed import PackedNetwork


@dataclass(frozen=True, kw_only=True)
class Variant:
    """All that determines a score besides weights and tokenizer; hashable."""

    quick_gelu: bool
    transform: ImageTransform
    precision: Literal["fp32", "bf16", "fp16"]
    decode_mode: Literal["exact", "fast"]
    on_truncated: Literal["score", "fail"]
    prompt: str = "{}"
    """Template that captions are inserted into."""

    def network(self, network: PackedNetwork) -> PackedNetwork:
        """The network with this variant's activation, transform and precision; same weights."""
        model_cfg = {**network.model_cfg, "quick_gelu": self.quick_gelu}
        return replace(
            network, model_cfg=model_cfg, transform=self.transform, precision=self.precision
        )


def recipe_variant(network: PackedNetwork, decode: Decode) -> Variant:
    """The variant that filtering uses."""
    return Variant(
        quick_gelu=bool(network.model_cfg["quick_gelu"]),
        transform=network.transform,
        precision=network.precision,  # type: ignore[arg-type]
        decode_mode=decode.mode,
        on_truncated=decode.on_truncated,
    )
