"""Checks that a network exists and can be built, from its config and file names."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfn_ray.config import Network
from dfn_ray.console.tables import size
from dfn_ray.dry_run.finding import Finding, NotCheckedError, run_check
from dfn_ray.errors import InputError
from dfn_ray.network import tokenizer
from dfn_ray.network.layouts import (
    INDEX_ENDING,
    LFS_POINTER,
    LFS_POINTER_MESSAGE,
    Layout,
    has_transformers_weights,
    is_checkpoint_file,
    json_object_of,
    layout_of,
    transformers_weights_among,
    weight_files_in,
    weights_among,
)
from dfn_ray.network.open_clip_config import (
    QUICK_GELU_REFUSED,
    allows_quick_gelu,
    network_config_of,
)
from dfn_ray.network.open_clip_registry import (
    architecture_config,
    architectures,
    pretrained_tags,
    tag_config,
)
from dfn_ray.network.safetensors_header import tensors_in
from dfn_ray.network.small_files import SmallFiles, network_folder
from dfn_ray.network.transformers_layout.model_settings import model_cfg_of, own_settings
from dfn_ray.network.transformers_layout.network_kind import Kind, kind_of
from dfn_ray.network.transformers_layout.processor import preprocess_cfg_of
from dfn_ray.network.transformers_layout.read_tokenizer import TOKENIZER_FILES, tokenizer_of
from dfn_ray.network.transformers_layout.tensor_groups import require_all, tensor_groups
from dfn_ray.storage import File, Store, open_uri, read_uri, stat

if TYPE_CHECKING:
    from dfn_ray.dry_run.hub_files import Repository


_TRANSFORMERS_TOWERS = ("text_model.", "vision_model.")
"""Starts of the names of tensors in transformers' layout."""


def network_finding(spec: Network, setting: str) -> Finding:
    """Finding on whether a network can be loaded; its weights are not read.

    `setting` is its section in the recipe, for example `networks.0`.
    """
    name = f"network {spec.name}" if "networks" in setting else setting
    return run_check(name, lambda: describe_network(spec, setting))


def describe_network(spec: Network, setting: str) -> str:
    """A network's name, layout and weights in one line.

    Raises InputError and StorageError as loading it would, NotCheckedError when the hub is
    unreachable.
    """
    folder = network_folder(spec.model)
    if folder is not None:
        return _folder(spec, folder, f"{setting}.model")
    schema, separator, identifier = spec.model.partition(":")
    if not separator:
        return _built_in(spec, setting)
    if schema == "hf-hub":
        return _repository(spec, identifier, f"{setting}.model")
    raise InputError(
        f"{setting}.model: need an architecture, hf-hub:org/repo or local-dir:PATH, "
        f"got {spec.model!r}"
    )


def _built_in(spec: Network, setting: str) -> str:
    name = spec.model.replace("/", "-")
    model_cfg = architecture_config(name)
    if model_cfg is None:
        close = ", ".join(difflib.get_close_matches(name, architectures())) or "none"
        raise InputError(
            f"{setting}.model: open_clip has no architecture {spec.model!r}; the closest names: "
            f"{close}"
        )
    _require_tokenizer(model_cfg, f"{setting}.model: {name}")
    source = spec.pretrained
    if source is None:
        return f"{name}, random weights"
    if is_checkpoint_file(source):
        return f"{name}, {_weights(source, f'{setting}.pretrained')}"
    if tag_config(name, source) is not None:
        return f"{name}, open_clip's tag {source}"
    if Path(source).is_file():
        return f"{name}, {_weights(source, f'{setting}.pretrained')}"
    tags = ", ".join(pretrained_tags(name)) or "none"
    raise InputError(
        f"{setting}.pretrained: {source!r} is neither a file nor one of {name}'s tags: {tags}"
    )


def _folder(spec: Network, folder: str, setting: str) -> str:
    where = f"{setting}: local-dir:{folder}"
    names = _names(folder)
    layout = layout_of(names, where)
    both = _both(layout, names)
    config_uri = f"{folder.rstrip('/')}/{layout.value}"
    config = _read_config(layout, read_uri(config_uri), f"{setting}: {config_uri}")
    _require_activation(spec, config, setting)
    if config.kind is not None:
        files = SmallFiles(
            label=where,
            names=frozenset(names),
            content_of=lambda name: read_uri(f"{folder.rstrip('/')}/{name}"),
        )
        preprocess_cfg_of(files, config.model_cfg["vision_cfg"]["image_size"], config.kind)
        _require_tokenizer_files(files, config, spec)
    weights = _folder_weights(spec, config, names, folder, setting)
    return f"local-dir:{folder}, {config.layout_text}{both}, {weights}"


def _folder_weights(
    spec: Network, config: _Config, names: Collection[str], folder: str, setting: str
) -> str:
    if spec.random_weights_seed is not None:
        return "random weights"
    layout = Layout.OPEN_CLIP if config.kind is None else Layout.TRANSFORMERS
    choose = weights_among if layout is Layout.OPEN_CLIP else transformers_weights_among
    name = choose(names, f"{setting}: local-dir:{folder}")
    root = folder.rstrip("/")
    uri = f"{root}/{name}"
    files = [name]
    if name.endswith(INDEX_ENDING):
        files = weight_files_in(read_uri(uri), name, names, f"{setting}: {uri}")
    stated = [_tensors(f"{root}/{file}", setting) for file in files]
    tensors = {tensor for found in stated for tensor in found or ()}
    if layout is Layout.TRANSFORMERS:
        if None not in stated:  # None: of a file in torch's format, which is not read here
            require_all(tensors, tensor_groups(config.model_cfg), f"{setting}: {uri}")
    elif any(tensor.startswith(_TRANSFORMERS_TOWERS) for tensor in tensors):
        raise InputError(
            f"{setting}: {uri}: its tensors have transformers' names, but the folder has "
            f"{layout.value}, which is used where both layouts exist. Move {layout.value} out of "
            "the folder to load transformers' layout"
        )
    return _weights(uri, setting)


def _names(folder: str) -> list[str]:
    """The names of the files in a folder; empty if the folder does not exist."""
    if "://" in folder:
        return [file.name for file in Store(folder).list()]
    path = Path(folder)
    return [file.name for file in path.iterdir() if file.is_file()] if path.is_dir() else []


def _repository(spec: Network, model_id: str, setting: str) -> str:
    from dfn_ray.dry_run.hub_files import find_repository  # noqa: PLC0415  the hub's client takes 0.3 s

    where = f"{setting}: hf-hub:{model_id}"
    there = find_repository(model_id, setting)
    layout = layout_of(there.names, where)
    config = _read_config(layout, there.read(layout.value), f"{where}: {layout.value}")
    _require_activation(spec, config, setting)
    text = f"hf-hub:{model_id}, {config.layout_text}{_both(layout, there.names)}"
    unread = ""
    if config.kind is not None and not there.is_cached:
        files = SmallFiles(label=where, names=there.names, content_of=there.read)
        preprocess_cfg_of(files, config.model_cfg["vision_cfg"]["image_size"], config.kind)
        unread = _unread_tokenizer(there, files, config, spec)
    if spec.random_weights_seed is not None:
        return f"{text}, random weights{unread}"
    choose = weights_among if layout is Layout.OPEN_CLIP else transformers_weights_among
    if not there.is_cached:
        name = choose(there.names, where)
        if name.endswith(INDEX_ENDING):
            weight_files_in(there.read(name), name, there.names, f"{where}: {name}")
        return f"{text}, weights {name} ({size(there.sizes[name])}){unread}"
    try:
        weights = f"weights {choose(there.names, where)} in the cache"
    except InputError:  # the cache may be incomplete; the repository need not be
        weights = "weights not in the cache"
    return f"{text}, {weights}; no internet connection, so the hub was not queried"


def _unread_tokenizer(there: Repository, files: SmallFiles, config: _Config, spec: Network) -> str:
    """Checks the tokenizer of transformers' layout; returns a remark if it cannot be downloaded."""
    if larger := there.too_large_among(TOKENIZER_FILES):
        why = f"{larger[0]} has {size(there.sizes[larger[0]])}"
    else:
        try:
            _require_tokenizer_files(files, config, spec)
        except NotCheckedError as error:
            why = str(error)
        else:
            return ""
    return f"; its tokenizer was not checked: {why}"


@dataclass(frozen=True)
class _Config:
    """A network's config, as its layout stores it."""

    model_cfg: dict[str, Any]
    kind: Kind | None
    """The family in transformers' layout; None in open_clip's layout."""

    @property
    def layout_text(self) -> str:
        return "open_clip's layout" if self.kind is None else f"transformers' layout of {self.kind}"


def _read_config(layout: Layout, data: bytes, where: str) -> _Config:
    """The config in `data`. Raises InputError when no network can be built from it."""
    if layout is Layout.TRANSFORMERS:
        values = json_object_of(data, where)
        kind = kind_of(values, where)
        own = own_settings(values, where)
        return _Config({**model_cfg_of(values, kind, where), **own}, kind)
    model_cfg, _, own_tokenizer = network_config_of(data, where)
    if own_tokenizer is None:
        _require_tokenizer(model_cfg, where)
    return _Config(model_cfg, None)


def _both(layout: Layout, names: Collection[str]) -> str:
    """A remark if the folder has a network in the other layout too."""
    has_other = Layout.TRANSFORMERS.value in names and has_transformers_weights(names)
    ignored = layout is Layout.OPEN_CLIP and has_other
    return " (and not transformers', which it has too)" if ignored else ""


def _require_activation(spec: Network, config: _Config, setting: str) -> None:
    if spec.quick_gelu and not allows_quick_gelu(config.model_cfg):
        section = setting.removesuffix(".model")
        raise InputError(f"{section}.quick_gelu: {QUICK_GELU_REFUSED}")


def _require_tokenizer_files(files: SmallFiles, config: _Config, spec: Network) -> None:
    """Raises InputError if the tokenizer of transformers' layout is unusable."""
    assert config.kind is not None
    cleaning = spec.caption_cleaning == "open_clip"
    tokenizer_of(files, config.model_cfg["text_cfg"], config.kind, open_clips_cleaning=cleaning)


def _require_tokenizer(model_cfg: dict[str, Any], where: str) -> None:
    """Raises InputError unless this machine can tokenize captions for a model config."""
    text_cfg = model_cfg["text_cfg"]
    other = text_cfg.get("hf_tokenizer_name") or text_cfg.get("hf_model_name")
    if other is None:
        try:
            tokenizer.resolve(model_cfg, None)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    elif find_spec("transformers") is None:
        raise InputError(
            f"{where}: its text tower or tokenizer is {other}, which needs the transformers "
            "package. Run `pip install transformers`"
        )


def _tensors(uri: str, setting: str) -> set[str] | None:
    """The names of the tensors in a file; None if it is not of the safetensors format.

    Raises InputError when it is absent, empty or truncated.
    """
    file = _weights_file(uri, setting)
    with open_uri(uri, in_order=False) as opened:
        entries = tensors_in(opened, file.size_bytes, f"{setting}: {uri}")
    return None if entries is None else set(entries)


def _weights(uri: str, setting: str) -> str:
    """Name and size of a weights file. Raises what `_weights_file` raises."""
    file = _weights_file(uri, setting)
    return f"weights {file.name} ({size(file.size_bytes)})"


def _weights_file(uri: str, setting: str) -> File:
    """A weights file. Raises InputError when it is absent or holds no weights."""
    file = stat(uri)
    if file is None:
        raise InputError(f"{setting}: {uri}: need a weights file, found a folder")
    with open_uri(uri, in_order=False) as opened:
        head = opened.read(len(LFS_POINTER))
    if head == LFS_POINTER:
        raise InputError(f"{setting}: {uri}: {LFS_POINTER_MESSAGE}")
    if not head:
        raise InputError(f"{setting}: {uri}: need a weights file, got an empty file")
    return file
