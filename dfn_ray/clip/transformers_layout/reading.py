"""A folder in transformers' layout as the parts of a network on open_clip's modules."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from dfn_ray import config
from dfn_ray.clip.layouts import INDEX_ENDING, TRANSFORMERS_WEIGHTS, Layout
from dfn_ray.clip.network_folder import NetworkFolder
from dfn_ray.clip.origin import Origin
from dfn_ray.clip.transformers_layout.captions import tokenizer_of
from dfn_ray.clip.transformers_layout.kinds import kind_of
from dfn_ray.clip.transformers_layout.processor import preprocess_cfg_of
from dfn_ray.clip.transformers_layout.settings import model_cfg_of
from dfn_ray.clip.transformers_layout.tensors import LayoutWeights, pieces_of
from dfn_ray.errors import InputError, shortened

_LOG = logging.getLogger(__name__)

CONFIG = Layout.TRANSFORMERS.value
OWN_KEY = "dfn_ray"
"""Of a config.json that `dfn-ray export --network` wrote: what transformers has no words for."""
_OWN_SWITCHES = ("custom_text", "nonscalar_logit_scale")


def is_in_transformers_layout(folder: NetworkFolder) -> bool:
    """True if there is a config and weights under transformers' names."""
    return CONFIG in folder and any(_holds(folder, name) for name in TRANSFORMERS_WEIGHTS)


def read_layout(folder: NetworkFolder, spec: config.Network) -> Origin:
    """The parts of the network, downloaded if they are on the hub.

    Raises InputError if the folder holds something else, or a part is missing, damaged or cannot be expressed.
    """
    values, place = folder.json_object(CONFIG), f"{folder.label}/{CONFIG}"
    kind = kind_of(values, place)
    model_cfg = {**model_cfg_of(values, kind, place), **_own(values, place)}
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


def _own(values: dict[str, Any], place: str) -> dict[str, bool]:
    own = values.get(OWN_KEY) or {}
    if not isinstance(own, dict) or any(
        key not in _OWN_SWITCHES or not isinstance(value, bool) for key, value in own.items()
    ):
        raise InputError(
            f"{place}: {OWN_KEY}: need {' and '.join(_OWN_SWITCHES)}, true or false, got {shortened(repr(own))}"
        )
    return own


def _holds(folder: NetworkFolder, name: str) -> bool:
    return name in folder or f"{name}{INDEX_ENDING}" in folder


def _weights(folder: NetworkFolder, model_cfg: dict[str, Any]) -> LayoutWeights:
    name = next((name for name in TRANSFORMERS_WEIGHTS if _holds(folder, name)), None)
    if name is None:
        there = ", ".join(sorted(folder.names)) or "none"
        raise InputError(
            f"{folder.label}: need {' or '.join(TRANSFORMERS_WEIGHTS)}, found {shortened(there, 200)}"
        )
    paths = (folder.path_of(name),) if name in folder else _shards(folder, name)
    return LayoutWeights(
        label=folder.label if name not in folder else f"{folder.label}/{name}",
        paths=tuple(paths),
        pieces=pieces_of(model_cfg),
    )


def _shards(folder: NetworkFolder, name: str) -> Iterable[Path]:
    """The files that an index names, every one of them beside it."""
    index = f"{name}{INDEX_ENDING}"
    files = folder.json_object(index).get("weight_map")
    place = f"{folder.label}/{index}"
    if not isinstance(files, dict) or not files:
        raise InputError(f"{place}: weight_map: need an object, got {shortened(repr(files))}")
    ending = Path(name).suffix
    for tensor, file in files.items():
        # `names` holds files of this folder alone, so that nothing beyond it can be named.
        if not isinstance(file, str) or not file.endswith(ending) or file not in folder:
            raise InputError(
                f"{place}: weight_map.{shortened(tensor)}: need a {ending} file of this folder, got {shortened(repr(file))}"
            )
    return [folder.path_of(file) for file in sorted(set(files.values()))]
