"""Where a network comes from: a built-in architecture, the hub, or a folder.

Resolves what open_clip's `create_model` resolves (open_clip 3.3, factory.py), as data and before anything is
built, so that it can be fingerprinted and sent to actors that have no network access.
"""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.pretrained import download_pretrained_from_hf
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn

from dfn_ray import config
from dfn_ray.clip.layouts import Layout, weights_among
from dfn_ray.clip.network_config import read_network_config
from dfn_ray.clip.transform import NORMALIZATIONS, ImageTransform
from dfn_ray.errors import InputError

_LOG = logging.getLogger(__name__)

_CONFIG_NAME = Layout.OPEN_CLIP.value


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A network's parts before it is built."""

    model_cfg: dict[str, Any]
    """open_clip's model config; `custom_text` and `quick_gelu` are always present."""
    preprocess_cfg: dict[str, Any]
    """open_clip's PreprocessCfg as a dict."""
    checkpoint: Path | None
    """Local file with the weights; None: random."""
    tokenizer_source: str | None
    """What transformers loads the tokenizer from (a name or a folder); None: CLIP's own BPE."""


def find(spec: config.Network, checkpoint: Path | None) -> Origin:
    """The parts that `spec` names, downloaded if they are on the hub.

    Raises InputError if a part does not exist or cannot be downloaded.
    """
    schema, _, identifier = spec.model.rpartition(":")
    random = spec.random_weights_seed is not None
    if schema == "local-dir":
        model_cfg, overrides, weights = _folder(Path(identifier), random)
    elif schema == "hf-hub":
        model_cfg, overrides, weights = _hub(identifier, random)
    elif schema:
        raise InputError(
            f"networks.{spec.name}.model: need an architecture, hf-hub:org/repo or local-dir:PATH, got {spec.model!r}"
        )
    else:
        model_cfg, overrides, weights = _built_in(spec, checkpoint)
    text_cfg = model_cfg.get("text_cfg", {})
    hf_tokenizer = text_cfg.get("hf_tokenizer_name")
    _settle(model_cfg, spec)
    return Origin(
        model_cfg=model_cfg,
        preprocess_cfg=merge_preprocess_dict(PreprocessCfg(), overrides),
        checkpoint=weights,
        tokenizer_source=identifier if hf_tokenizer and schema == "local-dir" else hf_tokenizer,
    )


def build_module(model_cfg: dict[str, Any]) -> nn.Module:
    """The open_clip module of `model_cfg`, weights random, nothing downloaded."""
    arguments = {name: value for name, value in model_cfg.items() if name != "custom_text"}
    if not model_cfg["custom_text"]:
        kind: type[nn.Module] = open_clip.CLIP
    else:
        kind = open_clip.CoCa if "multimodal_cfg" in arguments else open_clip.CustomTextCLIP
    return kind(**arguments)


def image_transform(module: nn.Module, origin: Origin, spec: config.Network) -> ImageTransform:
    """The evaluation transform that open_clip would attach to `module`, with the recipe's overrides."""
    cfg = origin.preprocess_cfg
    size = getattr(module.visual, "image_size", None) or cfg["size"]
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    resize_mode = spec.resize_mode or cfg["resize_mode"]
    interpolation = "bilinear" if cfg["interpolation"] == "bilinear" else "bicubic"
    if resize_mode == "shortest" and height != width:
        interpolation = "bicubic"  # open_clip's image_transform does not pass the setting on here
    mean, std = NORMALIZATIONS.get(spec.normalization or "", (cfg["mean"], cfg["std"]))
    mean, std = mean or OPENAI_DATASET_MEAN, std or OPENAI_DATASET_STD  # open_clip reads 0 as none
    return ImageTransform(
        size=(int(height), int(width)),
        resize_mode=resize_mode,
        interpolation=spec.interpolation or interpolation,
        mean=_per_channel(mean),
        std=_per_channel(std),
        fill_color=int(cfg["fill_color"]),
    )


def _per_channel(value: float | list[float] | tuple[float, ...]) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return tuple(map(float, values * 3 if len(values) == 1 else values))


def _settle(model_cfg: dict[str, Any], spec: config.Network) -> None:
    """Write what open_clip would decide while building into `model_cfg`, so that the config says it all."""
    if spec.quick_gelu is not None:
        model_cfg["quick_gelu"] = spec.quick_gelu
    model_cfg["quick_gelu"] = bool(model_cfg.get("quick_gelu", False))
    text_cfg, vision_cfg = model_cfg["text_cfg"], model_cfg["vision_cfg"]
    model_cfg["custom_text"] = bool(model_cfg.get("custom_text")) or "hf_model_name" in text_cfg
    if "timm_model_name" in vision_cfg:
        vision_cfg["timm_model_pretrained"] = False
    if "hf_model_name" in text_cfg:
        text_cfg["hf_model_pretrained"] = False


def _built_in(
    spec: config.Network, checkpoint: Path | None
) -> tuple[dict[str, Any], dict[str, Any], Path | None]:
    name = spec.model.replace("/", "-")
    model_cfg = open_clip.get_model_config(name)
    if model_cfg is None:
        close = ", ".join(difflib.get_close_matches(name, open_clip.list_models())) or "none close"
        raise InputError(
            f"networks.{spec.name}.model: open_clip has no architecture {spec.model!r} (did you mean: {close}?)"
        )
    if checkpoint is not None or spec.pretrained is None:
        return model_cfg, {}, checkpoint
    tag = open_clip.get_pretrained_cfg(name, spec.pretrained)
    if not tag:
        if (path := Path(spec.pretrained)).is_file():
            return model_cfg, {}, path
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise InputError(
            f"networks.{spec.name}.pretrained: {spec.pretrained!r} is neither a file nor one of {name}'s tags: {tags}"
        )
    tag_gelu = bool(tag.get("quick_gelu", False))
    if spec.quick_gelu is None and tag_gelu != bool(model_cfg.get("quick_gelu", False)):
        # The wrong activation ruins every score without an error; open_clip only warns.
        _LOG.info("%s: quick_gelu = %s, as tag %r says", name, tag_gelu, spec.pretrained)
        model_cfg["quick_gelu"] = tag_gelu
    try:
        weights = open_clip.download_pretrained(tag)
    except Exception as error:
        raise InputError(
            f"networks.{spec.name}.pretrained: cannot download {spec.pretrained!r} of {name}: {error}"
        ) from error
    return model_cfg, tag, Path(weights)


def _hub(model_id: str, random: bool) -> tuple[dict[str, Any], dict[str, Any], Path | None]:
    try:
        config_path = download_pretrained_from_hf(model_id, filename=_CONFIG_NAME)
        weights = None if random else Path(download_pretrained_from_hf(model_id))
    except Exception as error:
        raise InputError(f"cannot download hf-hub:{model_id}: {error}") from error
    return *read_network_config(Path(config_path)), weights


def _folder(folder: Path, random: bool) -> tuple[dict[str, Any], dict[str, Any], Path | None]:
    if not (folder / _CONFIG_NAME).is_file():
        raise InputError(f"local-dir:{folder}: need a folder with {_CONFIG_NAME}, found none")
    return *read_network_config(folder / _CONFIG_NAME), None if random else _weights_in(folder)


def _weights_in(folder: Path) -> Path:
    names = [path.name for path in folder.iterdir() if path.is_file()]
    return folder / weights_among(names, f"local-dir:{folder}")
