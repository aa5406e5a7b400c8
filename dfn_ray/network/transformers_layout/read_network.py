"""Reads a folder in transformers' layout as the parts of a network on open_clip's modules."""

from __future__ import annotations

import logging
from typing import Any

from dfn_ray import config
from dfn_ray.network.layouts import (
    INDEX_ENDING,
    Layout,
    has_transformers_weights,
    transformers_weights_among,
    weight_files_in,
)
from dfn_ray.network.open_clip_config import require_enough_bytes
from dfn_ray.network.origin import Origin
from dfn_ray.network.small_files import NetworkFolder
from dfn_ray.network.transformers_layout.model_settings import model_cfg_of, own_settings
from dfn_ray.network.transformers_layout.network_kind import kind_of
from dfn_ray.network.transformers_layout.processor import preprocess_cfg_of
from dfn_ray.network.transformers_layout.read_tokenizer import tokenizer_of
from dfn_ray.network.transformers_layout.tensor_groups import tensor_groups
from dfn_ray.network.transformers_layout.tensors import LayoutWeights
from dfn_ray.network.weights import is_whole_safetensors

_LOG = logging.getLogger(__name__)

CONFIG = Layout.TRANSFORMERS.value


def is_in_transformers_layout(folder: NetworkFolder) -> bool:
    """Returns True if a config and weights exist under transformers' names."""
    return CONFIG in folder and has_transformers_weights(folder.names)


def read_layout(folder: NetworkFolder, spec: config.Network) -> Origin:
    """Returns the parts of the network, downloaded if they are on the hub.

    Raises InputError if the folder contains another kind of network, or a part is missing, damaged
    or not supported.
    """
    values, place = folder.json_object(CONFIG), f"{folder.label}/{CONFIG}"
    kind = kind_of(values, place)
    model_cfg = {**model_cfg_of(values, kind, place), **own_settings(values, place)}
    preprocess_cfg = preprocess_cfg_of(folder, model_cfg["vision_cfg"]["image_size"], kind)
    tokenizer = tokenizer_of(
        folder,
        model_cfg["text_cfg"],
        kind,
        open_clips_cleaning=spec.caption_cleaning == "open_clip",
    )
    random = spec.random_weights_seed is not None
    return Origin(
        model_cfg=model_cfg,
        preprocess_cfg=preprocess_cfg,
        weights=None if random else _weights(folder, model_cfg),
        tokenizer=tokenizer,
    )


def _weights(folder: NetworkFolder, model_cfg: dict[str, Any]) -> LayoutWeights:
    name = transformers_weights_among(folder.names, folder.label)
    place = f"{folder.label}/{name}"
    is_index = name.endswith(INDEX_ENDING)
    files = weight_files_in(folder.content(name), name, folder.names, place) if is_index else [name]
    paths = tuple(map(folder.path_of, files))
    if all(is_whole_safetensors(path) for path in paths):
        require_enough_bytes(model_cfg, sum(path.stat().st_size for path in paths), place)
    return LayoutWeights(
        label=folder.label if is_index else place,
        paths=paths,
        groups=tensor_groups(model_cfg),
    )
