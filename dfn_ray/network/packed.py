"""A filtering network as plain data: loaded once on the driver, built offline on any node."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dfn_ray import config
from dfn_ray.errors import InputError
from dfn_ray.images.transform import ImageTransform
from dfn_ray.network import architecture, tokenizer, weights
from dfn_ray.network.download_errors import download_error
from dfn_ray.network.filtering_network import FilteringNetwork
from dfn_ray.network.stored_tokenizer import stored_options
from dfn_ray.network.tokenizer import TokenizerSpec
from dfn_ray.versions import package_versions

WEIGHTS_FILE = "open_clip_model.safetensors"
"""Weights of a network in a folder: the last file in `network_files`."""
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class PackedNetwork:
    """A complete network as picklable data, with large arrays in numpy so that Ray shares them."""

    name: str
    model_cfg: dict[str, Any]
    """open_clip's model config, with all overrides applied."""
    hf_config: dict[str, Any] | None
    """Config of a Hugging Face text tower, which open_clip would download otherwise."""
    transform: ImageTransform
    tokenizer: TokenizerSpec
    precision: str
    """Precision of the forward: fp32, bf16 or fp16. The state is float32."""
    state: weights.State
    weights_sha256: str

    def fingerprint(self) -> dict[str, Any]:
        """Everything that affects scores, as JSON values; not the name or the weights' source."""
        vision_cfg = self.model_cfg.get("vision_cfg", {})
        is_timm = bool(vision_cfg.get("timm_model_name") or vision_cfg.get("siglip_vit"))
        return {
            "architecture": {"model_cfg": self.model_cfg, "hf_config": self.hf_config},
            "versions": package_versions(("timm",)) if is_timm else {},
            "transform": self.transform.fingerprint(),
            "tokenizer": self.tokenizer.fingerprint(),
            "precision": self.precision,
            "weights_sha256": self.weights_sha256,
        }


def pack_network(spec: config.Network, *, checkpoint: Path | None = None) -> PackedNetwork:
    """Returns the network that `spec` describes, resolved and loaded; call it once, on the driver.

    `checkpoint` is the local copy of `spec.pretrained` if that is a path or a URI. Weights of
    architectures with a tag and `hf-hub:` models are downloaded into the caches of open_clip and of
    the hub.

    Raises InputError if a part is missing, is damaged, would run code, or does not fit the others;
    StorageError if a part cannot be downloaded, which another attempt may do.
    """
    origin = architecture.resolve_origin(spec, checkpoint)
    hf_config = _hf_config(origin.model_cfg)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.random_weights_seed or 0)
        try:
            module = _module(origin.model_cfg, hf_config)
        except MemoryError:
            raise
        except Exception as error:  # open_clip, timm and torch raise any type for invalid values
            raise InputError(
                f"{spec.model}: its model_cfg cannot be built: {type(error).__name__}: {error}"
            ) from error
    if origin.weights is not None:
        origin.weights.load_into(module)
        weights.require_finite(module, spec.model)
    state = weights.state_of(module)
    return PackedNetwork(
        name=spec.name,
        model_cfg=origin.model_cfg,
        hf_config=hf_config,
        transform=architecture.image_transform(module, origin, spec),
        tokenizer=origin.tokenizer or tokenizer.resolve(origin.model_cfg, origin.tokenizer_source),
        precision=spec.precision,
        state=state,
        weights_sha256=weights.sha256(state),
    )


def build(
    packed: PackedNetwork,
    device: str | torch.device = "cpu",
    *,
    threads: int | None = None,
    compile: bool = False,
) -> FilteringNetwork:
    """Returns the network ready to score on `device`; never downloads anything.

    `threads` sets torch's CPU threads for the whole process. `compile` runs the towers through
    torch.compile: the first batches take half a minute or more, which pays off over millions of
    samples.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    module = _module(packed.model_cfg, packed.hf_config)
    weights.restore(module, packed.state)
    # requires_grad stays on (scoring runs in inference mode): without it, torch.matmul computes the
    # q, k, v product of MultiheadAttention's transposed input as a batched one and copies the
    # weights. Captions: 451 -> 143/s.
    module.eval().to(device=device, dtype=_DTYPES[packed.precision])
    return FilteringNetwork(module, packed.transform, torch.device(device), compile=compile)


def trainable_module(packed: PackedNetwork) -> nn.Module:
    """Returns the open_clip module of the network in float32, in training mode, on the CPU."""
    module = _module(packed.model_cfg, packed.hf_config)
    weights.restore(module, packed.state)
    return module.train()


def network_files(packed: PackedNetwork, state: Mapping[str, torch.Tensor]) -> dict[str, bytes]:
    """Returns the files of a `local-dir:` network with the weights in `state`.

    Both open_clip's `create_model` and dfn_ray load them. The weights contain a digest of each
    file, which `pack_network` checks. Networks from transformers' layout may contain settings
    that open_clip does not support: a SigLIP's image tower, which open_clip fails to build, a crop
    that is rounded down, and a tokenizer of their own, both of which open_clip ignores.
    """
    transform = packed.transform
    own_tokenizer = stored_options(packed.tokenizer)
    config_json = {
        **({"dfn_ray": {"tokenizer": own_tokenizer}} if own_tokenizer else {}),
        "model_cfg": packed.model_cfg,
        "preprocess_cfg": {
            "size": list(transform.size),
            "mode": "RGB",
            "mean": list(transform.mean),
            "std": list(transform.std),
            "interpolation": transform.interpolation,
            "resize_mode": transform.resize_mode,
            "fill_color": transform.fill_color,
            **_own_preprocess(transform),
        },
    }
    files = {
        **dict(packed.tokenizer.files),
        "open_clip_config.json": json.dumps(config_json, indent=2).encode(),
    }
    return {**files, WEIGHTS_FILE: weights.serialized_weights(state, files)}


def _own_preprocess(transform: ImageTransform) -> dict[str, Any]:
    """Settings that open_clip's preprocess_cfg does not have, if they differ from its behaviour."""
    values = transform.fingerprint()
    return {key: values[key] for key in ("crop_rounding", "resized") if key in values}


def _hf_config(model_cfg: dict[str, Any]) -> dict[str, Any] | None:
    """The config of a Hugging Face text tower, fetched on the driver."""
    name = model_cfg["text_cfg"].get("hf_model_name")
    if name is None:
        return None
    try:
        from transformers import AutoConfig  # noqa: PLC0415  # pyright: ignore[reportMissingImports]  optional
    except ImportError:
        raise InputError(
            f"text tower {name!r}: needs the transformers package; pip install transformers"
        ) from None
    try:
        values = AutoConfig.from_pretrained(name).to_dict()
    except (OSError, ValueError) as error:
        message = f"text tower {name!r}: its config cannot be loaded: {error}"
        raise download_error(message, error, otherwise=InputError) from error
    values.pop("_name_or_path", None)
    return json.loads(json.dumps(values))


def _module(model_cfg: dict[str, Any], hf_config: dict[str, Any] | None) -> nn.Module:
    """The module with random weights; a Hugging Face text tower reads its config from a folder."""
    if hf_config is None:
        return architecture.build_module(model_cfg)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(hf_config), encoding="utf-8")
        text_cfg = {**model_cfg["text_cfg"], "hf_model_name": folder}
        return architecture.build_module({**model_cfg, "text_cfg": text_cfg})
