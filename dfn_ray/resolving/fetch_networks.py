"""Fetch of the networks of a recipe, once, on the driver."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from pathlib import Path

from tenacity import RetryCallState, Retrying

from dfn_ray.config import Network, Recipe
from dfn_ray.errors import InputError, StorageError
from dfn_ray.network.layouts import is_checkpoint_file
from dfn_ray.network.packed import PackedNetwork, pack_network
from dfn_ray.network.small_files import network_folder
from dfn_ray.storage import Store, read_uri
from dfn_ray.storage.causes import attempts_for
from dfn_ray.storage.retries import tenacity_arguments

_LOG = logging.getLogger(__name__)

_OTHERS_WEIGHTS = (".h5", ".msgpack", ".onnx", ".ot", ".tflite", ".gguf")
"""Suffixes of the same weights for other frameworks, which repositories contain as well: not
fetched. A `pytorch_model.bin` next to safetensors is not fetched either."""


def fetch_networks(recipe: Recipe) -> tuple[PackedNetwork, ...]:
    """The networks of the recipe with their weights in memory.

    Raises InputError when there is none, and what `fetch_network` raises.
    """
    return tuple(fetch_network(spec) for spec in recipe.require_networks())


def fetch_network(spec: Network) -> PackedNetwork:
    """One network with its weights in memory.

    Raises InputError when it is wrong, StorageError when it still cannot be downloaded after all
    retries.
    """
    folder = network_folder(spec.model)
    if folder is not None and "://" in folder:
        return _load_fetched(spec, folder)
    source = spec.pretrained
    if source is None or not is_checkpoint_file(source):
        return _load_downloaded(spec)
    if "://" not in source:
        return _load_downloaded(spec, checkpoint=Path(source))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / source.rsplit("/", 1)[-1]
        checkpoint.write_bytes(read_uri(source))
        return _load_downloaded(spec, checkpoint=checkpoint)


def _load_downloaded(spec: Network, *, checkpoint: Path | None = None) -> PackedNetwork:
    """`pack_network`, with all that it downloads by the retry policy of the stores.

    A retry continues: files that have arrived stay in the caches of open_clip and of the hub.
    """

    def attempts(error: BaseException) -> int:
        return attempts_for(error) if isinstance(error, StorageError) else 1

    retrying = Retrying(**tenacity_arguments(attempts), before_sleep=_say_failed)
    return retrying(pack_network, spec, checkpoint=checkpoint)


def _say_failed(state: RetryCallState) -> None:
    assert state.outcome is not None
    _LOG.warning("%s; trying again", state.outcome.exception())


def _load_fetched(spec: Network, folder_uri: str) -> PackedNetwork:
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
            return _load_downloaded(replace(spec, model=f"local-dir:{folder}"))
        except InputError as error:
            raise InputError(str(error).replace(folder, folder_uri)) from error
