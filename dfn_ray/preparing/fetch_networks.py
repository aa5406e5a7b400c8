"""Fetch of the networks of a recipe, once, on the driver."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from dfn_ray.config import Network, Recipe
from dfn_ray.errors import InputError
from dfn_ray.network.frozen import FrozenNetwork, freeze_network
from dfn_ray.network.layouts import is_checkpoint_file
from dfn_ray.network.small_files import network_folder
from dfn_ray.storage import Store, read_uri

_OTHERS_WEIGHTS = (".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".gguf")
"""Suffixes of the same weights for other frameworks, which repositories contain as well: not
fetched. A `pytorch_model.bin` next to safetensors is not fetched either."""


def fetch_networks(recipe: Recipe) -> tuple[FrozenNetwork, ...]:
    """The networks of the recipe with their weights in memory.

    Raises InputError when there is none, or one cannot be fetched.
    """
    return tuple(fetch_network(spec) for spec in recipe.require_networks())


def fetch_network(spec: Network) -> FrozenNetwork:
    """One network with its weights in memory. Raises InputError when it cannot be fetched."""
    folder = network_folder(spec.model)
    if folder is not None and "://" in folder:
        return _load_fetched(spec, folder)
    source = spec.pretrained
    if source is None or not is_checkpoint_file(source):
        return freeze_network(spec)
    if "://" not in source:
        return freeze_network(spec, checkpoint=Path(source))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / source.rsplit("/", 1)[-1]
        checkpoint.write_bytes(read_uri(source))
        return freeze_network(spec, checkpoint=checkpoint)


def _load_fetched(spec: Network, folder_uri: str) -> FrozenNetwork:
    """The network in a folder on an object store, written by `dfn-ray train` or transformers."""
    files = Store(folder_uri).list()
    if not files:
        raise InputError(f"networks.{spec.name}.model: {folder_uri} has no files")
    safe = any(file.name.endswith(".safetensors") for file in files)
    unread = (*_OTHERS_WEIGHTS, "pytorch_model.bin") if safe else _OTHERS_WEIGHTS
    with tempfile.TemporaryDirectory() as folder:
        for file in files:
            if file.name.endswith(unread):
                continue
            (Path(folder) / file.name).write_bytes(read_uri(file.uri))
        try:
            return freeze_network(replace(spec, model=f"local-dir:{folder}"))
        except InputError as error:
            raise InputError(str(error).replace(folder, folder_uri)) from error
