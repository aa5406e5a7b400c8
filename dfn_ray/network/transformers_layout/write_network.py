"""A network as a folder that CLIPModel or SiglipModel loads, with processor and tokenizer.

Settings that these classes cannot express are rejected by key. If only the captions or crops of
some samples differ, a note says so instead.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors.torch
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg

from dfn_ray.errors import InputError, shortened
from dfn_ray.images.transform import ImageTransform
from dfn_ray.network.layouts import TRANSFORMERS_WEIGHTS
from dfn_ray.network.packed import PackedNetwork
from dfn_ray.network.transformers_layout.model_settings import DEFAULT_EPS, LEGACY_END_ID, OWN_KEY
from dfn_ray.network.transformers_layout.read_network import CONFIG
from dfn_ray.network.transformers_layout.tensor_groups import tensor_groups
from dfn_ray.network.transformers_layout.tensors import to_transformers
from dfn_ray.network.transformers_layout.write_tokenizer import tokenizer_files

_BLOCK = {"width", "layers", "mlp_ratio", "norm_kwargs", "act_kwargs"}
_VISION = _BLOCK | {"image_size", "patch_size", "head_width", "patch_dropout"}
_TEXT = _BLOCK | {"context_length", "vocab_size", "heads", "pad_id", "eos_id", "pool_type"}
_TEXT |= {"hf_tokenizer_name", "tokenizer_mode", "tokenizer_kwargs"}
"""Keys that are converted, or that do not affect the forward."""
_SIGLIP_TEXT = {"no_causal_mask": True, "pool_type": "last", "proj_bias": True}


def layout_files(packed: PackedNetwork) -> tuple[dict[str, bytes], list[str]]:
    """Returns the files of the folder, config.json last, and notes for their users, one line each.

    Raises InputError that names every setting that transformers' classes cannot express.
    """
    cfg, transform = packed.model_cfg, packed.transform
    siglip = "siglip_vit" in cfg["vision_cfg"]
    problems = [*(_siglip_problems(cfg) if siglip else _clip_problems(cfg))]
    problems += _transform_problems(transform)
    if problems:
        raise InputError(
            f"{'SiglipModel' if siglip else 'CLIPModel'} cannot express this network: "
            + "; ".join(problems[:8])
        )
    files, notes = tokenizer_files(packed.tokenizer, siglip=siglip)
    if transform.resize_mode == "shortest" and transform.crop_rounding == "half_even":
        notes.append(
            "the network was used with open_clip's crop. If an odd number of pixels is cut off "
            "and open_clip rounds up, transformers' crop begins a pixel earlier, so such images "
            "score slightly differently"
        )
    ours = {name: torch.from_numpy(np.array(array)) for name, array in packed.state.items()}
    tensors = to_transformers(ours, tensor_groups(cfg))
    files = {
        **files,
        "preprocessor_config.json": _json(_processor(transform, siglip)),
        TRANSFORMERS_WEIGHTS[0]: safetensors.torch.save(tensors, metadata={"format": "pt"}),
        CONFIG: _json(_siglip(cfg) if siglip else _clip(cfg)),
    }
    return files, notes


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _clip_problems(cfg: Mapping[str, Any]) -> Iterator[str]:
    """Settings that CLIPModel cannot express, by key."""
    text, vision = cfg["text_cfg"], cfg["vision_cfg"]
    for key in ("multimodal_cfg", "init_logit_bias"):
        if cfg.get(key) is not None:
            yield f"{key} = {shortened(json.dumps(cfg[key]))}"
    if "timm_model_name" in vision:
        yield f"vision_cfg.timm_model_name = {vision['timm_model_name']}"
        vision = {}
    if isinstance(vision.get("layers"), list):
        yield f"vision_cfg.layers = {vision['layers']} (a ResNet)"
    if isinstance(size := vision.get("image_size", 224), list) and len(set(size)) > 1:
        yield f"vision_cfg.image_size = {size}"
    if "hf_model_name" in text:
        yield f"text_cfg.hf_model_name = {text['hf_model_name']}"
        text = {}
    yield from _others("vision_cfg", vision, _VISION, vars(CLIPVisionCfg()))
    yield from _others("text_cfg", text, _TEXT, vars(CLIPTextCfg()))
    pool = text.get("pool_type", "argmax")
    if pool not in ("argmax", "eos"):
        yield f"text_cfg.pool_type = {pool}"
    if pool == "eos" and text.get("eos_id", 2) == LEGACY_END_ID:
        yield f"text_cfg.eos_id = {LEGACY_END_ID}, which transformers reads as the largest token"
    acts = {json.dumps(tower.get("act_kwargs") or {}) for tower in (text, vision)}
    if cfg["quick_gelu"] and acts != {"{}"}:
        yield "act_kwargs together with quick_gelu"


def _siglip_problems(cfg: Mapping[str, Any]) -> Iterator[str]:
    """Settings that SiglipModel cannot express, by key."""
    text = cfg["text_cfg"]
    if cfg["quick_gelu"]:
        yield "quick_gelu = true"
    for key, value in _SIGLIP_TEXT.items():
        if text.get(key) != value:
            yield f"text_cfg.{key} = {json.dumps(text.get(key))}"
    yield from _others("text_cfg", text, _TEXT | set(_SIGLIP_TEXT), vars(CLIPTextCfg()))


def _others(
    place: str, values: Mapping[str, Any], known: set[str], defaults: Mapping[str, Any]
) -> Iterator[str]:
    for key, value in values.items():
        if key not in known and value != defaults.get(key):
            yield f"{place}.{key} = {shortened(json.dumps(value))}"
    if set(values.get("norm_kwargs") or {}) - {"eps"}:
        yield f"{place}.norm_kwargs = {shortened(json.dumps(values['norm_kwargs']))}"
    if (values.get("act_kwargs") or {}) not in ({}, {"approximate": "tanh"}):
        yield f"{place}.act_kwargs = {shortened(json.dumps(values['act_kwargs']))}"


def _transform_problems(transform: ImageTransform) -> Iterator[str]:
    if transform.resize_mode == "longest":
        yield "resize_mode = longest"
    if transform.resize_mode == "shortest" and len(set(transform.resized or transform.size)) > 1:
        yield f"resize_mode = shortest to {transform.size[0]}x{transform.size[1]}"


def _clip(cfg: Mapping[str, Any]) -> dict[str, Any]:
    text = {**vars(CLIPTextCfg()), **cfg["text_cfg"]}
    vision = {**vars(CLIPVisionCfg()), **cfg["vision_cfg"]}
    size, patch = vision["image_size"], vision["patch_size"]
    legacy = text["pool_type"] == "argmax"
    own = {key: True for key in ("custom_text", "nonscalar_logit_scale") if cfg.get(key)}
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "torch_dtype": "float32",
        "projection_dim": cfg["embed_dim"],
        **({OWN_KEY: own} if own else {}),
        "text_config": {
            "model_type": "clip_text_model",
            **_tower(text, text["heads"], cfg["quick_gelu"]),
            **_words(text),
            "projection_dim": cfg["embed_dim"],
            "eos_token_id": LEGACY_END_ID if legacy else text["eos_id"],
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **_tower(vision, vision["width"] // vision["head_width"], cfg["quick_gelu"]),
            "projection_dim": cfg["embed_dim"],
            "image_size": size[0] if isinstance(size, list) else size,
            "patch_size": patch,
        },
    }


def _siglip(cfg: Mapping[str, Any]) -> dict[str, Any]:
    text, vision = {**vars(CLIPTextCfg()), **cfg["text_cfg"]}, cfg["vision_cfg"]
    vit = vision["siglip_vit"]
    return {
        "architectures": ["SiglipModel"],
        "model_type": "siglip",
        "torch_dtype": "float32",
        "text_config": {
            "model_type": "siglip_text_model",
            **_tower(text, text["heads"], quick_gelu=False),
            **_words(text),
            "projection_size": cfg["embed_dim"],
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": vit["width"],
            "intermediate_size": vit["mlp_width"],
            "num_hidden_layers": vit["layers"],
            "num_attention_heads": vit["heads"],
            "hidden_act": vit["activation"],
            "layer_norm_eps": vit["eps"],
            "image_size": vision["image_size"],
            "patch_size": vit["patch_size"],
        },
    }


def _tower(tower: Mapping[str, Any], heads: int, quick_gelu: bool) -> dict[str, Any]:
    tanh = (tower["act_kwargs"] or {}).get("approximate") == "tanh"
    return {
        "hidden_size": tower["width"],
        "intermediate_size": int(tower["width"] * tower["mlp_ratio"]),
        "num_hidden_layers": tower["layers"],
        "num_attention_heads": heads,
        "hidden_act": "quick_gelu" if quick_gelu else "gelu_pytorch_tanh" if tanh else "gelu",
        "layer_norm_eps": (tower["norm_kwargs"] or {}).get("eps", DEFAULT_EPS),
    }


def _words(text: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "vocab_size": text["vocab_size"],
        "max_position_embeddings": text["context_length"],
    }


def _processor(transform: ImageTransform, siglip: bool) -> dict[str, Any]:
    height, width = transform.size
    resized = transform.resized or transform.size
    squash = transform.resize_mode == "squash"
    return {
        "image_processor_type": "SiglipImageProcessor" if siglip else "CLIPImageProcessor",
        "do_resize": True,
        "size": {"height": resized[0], "width": resized[1]}
        if squash
        else {"shortest_edge": resized[0]},
        "resample": 2 if transform.interpolation == "bilinear" else 3,
        "do_center_crop": not squash or resized != transform.size,
        "crop_size": {"height": height, "width": width},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(transform.mean),
        "image_std": list(transform.std),
        "do_convert_rgb": True,
    }
