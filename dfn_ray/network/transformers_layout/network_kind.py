"""The kind of network that a config.json describes: CLIP, SigLIP, or one that is rejected."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from dfn_ray.errors import InputError, shortened

Kind = Literal["clip", "siglip"]

_CLASSES: Mapping[str, Kind] = {"CLIPModel": "clip", "SiglipModel": "siglip"}
_TYPES: Mapping[str, Kind] = {"clip": "clip", "siglip": "siglip"}
_SUPPORTED = (
    "In this layout, CLIP and SigLIP are supported (model_type clip or siglip), including SigLIP "
    "2 of a fixed resolution; other networks need an open_clip_config.json"
)
_OTHERS = {
    "siglip2": "a SigLIP 2 of flexible resolution (NaFlex); use one of a fixed resolution, such as "
    "google/siglip2-base-patch16-224",
    "clip_text_model": "the text tower of a CLIP alone",
    "clip_vision_model": "the image tower of a CLIP alone",
    "siglip_text_model": "the text tower of a SigLIP alone",
    "siglip_vision_model": "the image tower of a SigLIP alone",
    "chinese_clip": "a Chinese-CLIP, whose text tower is a BERT",
    "altclip": "an AltCLIP, whose text tower is an XLM-RoBERTa",
    "clipseg": "a network that segments images",
    "vision-text-dual-encoder": "a pair of towers of any kind",
    "blip": "a BLIP, which writes captions",
    "blip-2": "a BLIP-2, which writes captions",
    "git": "a GIT, which writes captions",
    "vision-encoder-decoder": "a network that writes captions",
    "bert": "a text model",
    "gpt2": "a text model",
    "llama": "a text model",
    "xlm-roberta": "a text model",
    "vit": "an image classifier",
}


def kind_of(config: Mapping[str, Any], place: str) -> Kind:
    """Returns the kind that a config.json describes. Raises InputError that names other kinds."""
    if config.get("auto_map"):
        raise InputError(
            f"{place}: auto_map: the network is custom code, "
            f"{shortened(repr(config['auto_map']))}, and code from a hub is never run. {_SUPPORTED}"
        )
    if config.get("quantization_config"):
        raise InputError(
            f"{place}: quantization_config: the weights are quantised; use the network's "
            "repository in float16 or float32"
        )
    model_type, classes = config.get("model_type"), config.get("architectures")
    if classes is not None and not (
        isinstance(classes, list) and all(isinstance(name, str) for name in classes)
    ):
        raise InputError(
            f"{place}: architectures: need a list of names, got {shortened(repr(classes))}"
        )
    if model_type is not None and not isinstance(model_type, str):
        raise InputError(f"{place}: model_type: need a name, got {shortened(repr(model_type))}")
    classes_kinds: list[Kind] = [_CLASSES[name] for name in classes or () if name in _CLASSES]
    of_class = classes_kinds[0] if classes_kinds else None
    of_type = of_class if model_type is None else _TYPES.get(model_type)
    if of_type is not None:
        if of_class != of_type and classes:
            raise InputError(
                f"{place}: architectures: {_named(classes)} is only a part of the network; use the "
                "complete model (CLIPModel or SiglipModel)"
            )
        return of_type
    found = f"model_type {shortened(model_type)}" if model_type else "no model_type"
    if classes:
        found += f", {_named(classes)}"
    known = _OTHERS.get(model_type or "")
    raise InputError(f"{place}: {found}{f': {known}' if known else ''}. {_SUPPORTED}")


def _named(classes: list[str]) -> str:
    return shortened(", ".join(classes))
