"""The parts of a network, from a built-in architecture, the hub or a folder.

Folders and repositories may be in open_clip's layout or in transformers'. Resolves the same inputs
as open_clip's `create_model` (open_clip 3.3, factory.py), but as data and before anything is built,
so that the parts can be fingerprinted and sent to actors without network access.
"""

from __future__ import annotations

import difflib
import hashlib
import logging
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import open_clip
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from open_clip.model import CLIPTextCfg
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from torch import nn

from dfn_ray import config
from dfn_ray.errors import InputError, shortened
from dfn_ray.images.transform import NORMALIZATIONS, ImageTransform
from dfn_ray.network.download_errors import download_error
from dfn_ray.network.layouts import Layout, layout_of, weights_among
from dfn_ray.network.open_clip_config import (
    QUICK_GELU_REFUSED,
    allows_quick_gelu,
    read_network_config,
)
from dfn_ray.network.origin import CheckpointFile, Origin
from dfn_ray.network.siglip_vision import SiglipVisionTower
from dfn_ray.network.small_files import (
    NetworkFolder,
    hub_folder,
    local_folder,
    network_folder,
)
from dfn_ray.network.stored_tokenizer import stored_tokenizer
from dfn_ray.network.transformers_layout.read_network import is_in_transformers_layout, read_layout
from dfn_ray.network.weights import digests_beside, require_digest

_LOG = logging.getLogger(__name__)

_OWN_PREPROCESS = ("crop_rounding", "resized")
"""Keys of a preprocess_cfg that open_clip ignores."""
_PLACEHOLDER_TOWER = {"image_size": 1, "patch_size": 1, "width": 1, "head_width": 1, "layers": 0}
"""A minimal image tower for open_clip to build before SiglipVisionTower replaces it."""


def resolve_origin(spec: config.Network, checkpoint: Path | None) -> Origin:
    """Returns the parts that `spec` names, downloaded if they are on the hub.

    Raises InputError if a part does not exist, StorageError if it cannot be downloaded.
    """
    folder = network_folder(spec.model)
    schema, _, identifier = spec.model.rpartition(":")
    if folder is not None:
        origin = _in_folder(local_folder(Path(folder)), spec, source=folder)
    elif schema == "hf-hub":
        origin = _in_folder(hub_folder(identifier), spec, source=None)
    elif schema:
        raise InputError(
            f"networks.{spec.name}.model: need an architecture, hf-hub:ORG/REPO or local-dir:PATH, "
            f"got {spec.model!r}"
        )
    else:
        model_cfg, overrides, weights = _built_in(spec, checkpoint)
        origin = _origin(model_cfg, overrides, weights)
    _fill_in(origin.model_cfg, spec)
    return origin


def _origin(model_cfg: dict[str, Any], overrides: dict[str, Any], weights: Path | None) -> Origin:
    return Origin(
        model_cfg=model_cfg,
        preprocess_cfg={
            **merge_preprocess_dict(PreprocessCfg(), overrides),
            **{key: overrides[key] for key in _OWN_PREPROCESS if overrides.get(key) is not None},
        },
        weights=None if weights is None else CheckpointFile(path=weights),
        tokenizer_source=model_cfg.get("text_cfg", {}).get("hf_tokenizer_name"),
    )


def build_module(model_cfg: dict[str, Any]) -> nn.Module:
    """Returns the open_clip module of `model_cfg` with random weights; downloads nothing."""
    arguments = {name: value for name, value in model_cfg.items() if name != "custom_text"}
    vision_cfg = model_cfg["vision_cfg"]
    if "siglip_vit" in vision_cfg:
        module = open_clip.CustomTextCLIP(**{**arguments, "vision_cfg": _PLACEHOLDER_TOWER})
        module.visual = SiglipVisionTower(vision_cfg["siglip_vit"], vision_cfg["image_size"])
        return module
    if not model_cfg["custom_text"]:
        kind: type[nn.Module] = open_clip.CLIP
    else:
        kind = open_clip.CoCa if "multimodal_cfg" in arguments else open_clip.CustomTextCLIP
    return kind(**arguments)


def image_transform(module: nn.Module, origin: Origin, spec: config.Network) -> ImageTransform:
    """The evaluation transform that open_clip attaches to `module`, with the recipe's overrides."""
    cfg = origin.preprocess_cfg
    size = getattr(module.visual, "image_size", None) or cfg["size"]
    height, width = (size, size) if isinstance(size, int) else (size[0], size[-1])
    resize_mode = spec.resize_mode or cfg["resize_mode"]
    interpolation = "bilinear" if cfg["interpolation"] == "bilinear" else "bicubic"
    if resize_mode == "shortest" and height != width:
        interpolation = "bicubic"  # open_clip's image_transform ignores the setting in this case
    mean, std = NORMALIZATIONS.get(spec.normalization or "", (cfg["mean"], cfg["std"]))
    mean, std = (
        mean or OPENAI_DATASET_MEAN,
        std or OPENAI_DATASET_STD,
    )  # like open_clip, read 0 as unset
    return ImageTransform(
        size=(int(height), int(width)),
        resize_mode=resize_mode,
        interpolation=spec.interpolation or interpolation,
        mean=_per_channel(mean),
        std=_per_channel(std),
        fill_color=int(cfg["fill_color"]),
        crop_rounding=cfg.get("crop_rounding", "half_even"),
        resized=_resized(cfg, resize_mode),
    )


def _resized(cfg: dict[str, Any], resize_mode: str) -> tuple[int, int] | None:
    """Target of the resize if it is larger than the crop; known for the network's own mode only."""
    value = cfg.get("resized")
    return (value[0], value[1]) if value and resize_mode == cfg["resize_mode"] else None


def _per_channel(value: float | list[float] | tuple[float, ...]) -> tuple[float, ...]:
    values = tuple(value) if isinstance(value, list | tuple) else (value,)
    return tuple(map(float, values * 3 if len(values) == 1 else values))


def _fill_in(model_cfg: dict[str, Any], spec: config.Network) -> None:
    """Adds to `model_cfg` what open_clip would decide during the build, so that it is complete."""
    if spec.quick_gelu and not allows_quick_gelu(model_cfg):
        raise InputError(f"networks.{spec.name}.quick_gelu: {QUICK_GELU_REFUSED}")
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
        close = ", ".join(difflib.get_close_matches(name, open_clip.list_models())) or "none"
        raise InputError(
            f"networks.{spec.name}.model: open_clip has no architecture {spec.model!r}; the "
            f"closest names: {close}"
        )
    if checkpoint is not None or spec.pretrained is None:
        return model_cfg, {}, checkpoint
    tag = open_clip.get_pretrained_cfg(name, spec.pretrained)
    if not tag:
        if (path := Path(spec.pretrained)).is_file():
            return model_cfg, {}, path
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(name)) or "none"
        raise InputError(
            f"networks.{spec.name}.pretrained: {spec.pretrained!r} is neither a file nor one of "
            f"{name}'s tags: {tags}"
        )
    tag_gelu = bool(tag.get("quick_gelu", False))
    if spec.quick_gelu is None and tag_gelu != bool(model_cfg.get("quick_gelu", False)):
        # The wrong activation ruins every score without an error; open_clip only warns.
        _LOG.info("%s: quick_gelu = %s, as tag %r requires", name, tag_gelu, spec.pretrained)
        model_cfg["quick_gelu"] = tag_gelu
    try:
        weights = open_clip.download_pretrained(tag)
    except MemoryError:
        raise
    except Exception as error:  # clients raise any type
        raise download_error(
            f"networks.{spec.name}.pretrained: cannot download {spec.pretrained!r} of {name}: "
            f"{error}",
            error,
            is_known=True,
        ) from error
    return model_cfg, tag, Path(weights)


def _in_folder(folder: NetworkFolder, spec: config.Network, *, source: str | None) -> Origin:
    """The parts in a folder or repository; `source` is a local folder to load a tokenizer from."""
    if layout_of(folder.names, folder.label) is Layout.OPEN_CLIP:
        if is_in_transformers_layout(folder):
            _LOG.warning(
                "%s: contains a network in open_clip's layout and one in transformers'; using "
                "open_clip's",
                folder.label,
            )
        random = spec.random_weights_seed is not None
        model_cfg, overrides, own_tokenizer = read_network_config(
            folder.path_of(Layout.OPEN_CLIP.value)
        )
        origin = _origin(model_cfg, overrides, None if random else _weights_in(folder))
        if own_tokenizer is not None:
            text_cfg = {**vars(CLIPTextCfg()), **model_cfg["text_cfg"]}
            rows, context = text_cfg["vocab_size"], text_cfg["context_length"]
            own = stored_tokenizer(folder, own_tokenizer, rows=rows, context=context)
            return replace(origin, tokenizer=own)
        if source is not None and origin.tokenizer_source is not None:
            return replace(origin, tokenizer_source=source)
        return origin
    origin = read_layout(folder, spec)
    return replace(origin, preprocess_cfg={**asdict(PreprocessCfg()), **origin.preprocess_cfg})


def _weights_in(folder: NetworkFolder) -> Path:
    """The file of weights. Raises InputError if a file that was saved with them has changed."""
    path = folder.path_of(weights_among(folder.names, folder.label))
    for name, digest in digests_beside(path).items():
        if name not in folder:
            raise InputError(
                f"{folder.label}: has no {shortened(repr(name))}, but {path.name} was saved with "
                "it; restore it from a copy"
            )
        found = hashlib.sha256(folder.content(name)).hexdigest()
        require_digest(f"{folder.label}/{name}", digest, found, checkpoint=path)
    return path
