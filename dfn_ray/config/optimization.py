"""The section on optimization: `[optimizer]`, and the scales that fill it in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from dfn_ray.config.checks import NonNegative, NonNegativeNumber, PositiveNumber
from dfn_ray.config.sections import section

_Decay = Annotated[float, Field(ge=0.0, le=0.999999)]


@section
class Optimizer:
    """`[optimizer]`: AdamW with open_clip's parameter groups, linear warm-up, cosine to zero."""

    learning_rate: PositiveNumber = 5e-4
    """Learning rate at the end of the warm-up, > 0."""
    beta1: _Decay = 0.9
    """Decay of the mean of gradients, 0 to 0.999999. Default: open_clip's."""
    beta2: _Decay = 0.98
    """Decay of the mean of squared gradients, 0 to 0.999999. Default: open_clip's for ViTs;
    DataComp and DFN use 0.95 at the largest batches."""
    eps: PositiveNumber = 1e-6
    """Added to the root of the mean square, > 0. Default: open_clip's for ViTs."""
    weight_decay: NonNegativeNumber = 0.2
    """Weight decay, >= 0. Gains, biases and logit_scale have none."""
    warmup_steps: NonNegative = 500
    """Optimizer steps of the warm-up, >= 0."""
    clip_norm: PositiveNumber | None = None
    """Largest gradient norm, > 0. None: no clipping."""
    max_logit_scale: Annotated[float, Field(ge=1)] = 100.0
    """Upper bound of logit_scale.exp() after each step, >= 1 (CLIP, section 2.5)."""


def filled_from_scale(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """The settings of a training recipe over those of its `scale`, if it names one.

    A section that is an object rather than a table replaces the scale's section.
    """
    name = values.get("scale")
    if not isinstance(name, str) or name not in SCALES:
        return values
    filled = {**SCALES[name], **values}
    for part in ("optimizer", "model"):
        own = values.get(part)
        if own is None or isinstance(own, Mapping):
            filled[part] = _over(SCALES[name][part], own or {})
    return filled


def _over(defaults: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """A section's own values over defaults; given weights replace random ones."""
    starts = any(own.get(key) is not None for key in ("pretrained", "random_weights_seed", "model"))
    kept = {k: v for k, v in defaults.items() if not (starts and k == "random_weights_seed")}
    return {**kept, **own}


def _scale(model: str, **values: Any) -> dict[str, Any]:
    sizes = {name: values.pop(name) for name in ("samples_seen", "batch_size")}
    start = {"model": model, "random_weights_seed": 0, "precision": "bf16"}
    return {"model": start, **sizes, "optimizer": {"weight_decay": 0.2, **values}}


_COMMON = {"learning_rate": 5e-4, "warmup_steps": 500, "beta2": 0.98}

SCALES: Mapping[str, Mapping[str, Any]] = {
    "small": _scale("ViT-B-32", samples_seen=12_800_000, batch_size=4096, **_COMMON),
    "medium": _scale("ViT-B-32", samples_seen=128_000_000, batch_size=4096, **_COMMON),
    "large": _scale("ViT-B-16", samples_seen=1_280_000_000, batch_size=8192, **_COMMON),
    "xlarge": _scale(
        "ViT-L-14",
        samples_seen=12_800_000_000,
        batch_size=90_112,
        learning_rate=1e-3,
        warmup_steps=10_000,
        beta2=0.95,
    ),
    "dfn5b": _scale(
        "ViT-H-14",
        samples_seen=39_000_000_000,
        batch_size=79_872,
        learning_rate=2e-3,
        warmup_steps=10_000,
        beta2=0.95,
        weight_decay=0.1,
    ),
}
"""DataComp's scale_configs.py (table 14 of the paper) and table 7 of the DFN paper."""
