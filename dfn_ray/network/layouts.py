"""The layout of a network's folder or repository, determined by the names of its files.

There are two layouts: open_clip's, and transformers' for CLIP and SigLIP. In a folder with both,
open_clip's is used.
"""

from __future__ import annotations

from collections.abc import Collection
from enum import Enum
from pathlib import PurePosixPath
from typing import Any

from dfn_ray.errors import InputError, shortened
from dfn_ray.untrusted.json_text import parse_json


class Layout(Enum):
    """A layout, by the name of its config."""

    OPEN_CLIP = "open_clip_config.json"
    TRANSFORMERS = "config.json"


WEIGHT_NAMES = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""Weights in a folder, in open_clip's order of preference (factory._find_checkpoint_in_dir)."""
INDEX_ENDING = ".index.json"
"""Ending of the index of transformers' weights in several files."""
TRANSFORMERS_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""In order of preference; either may be split into several files, listed in an index."""
_TRANSFORMERS_WEIGHT_NAMES = tuple(
    f"{name}{ending}" for name in TRANSFORMERS_WEIGHTS for ending in ("", INDEX_ENDING)
)
LFS_POINTER = b"version https://git-lfs"
"""First bytes of a file that Git LFS has not fetched."""
LFS_POINTER_MESSAGE = "is a Git LFS pointer, not the weights; run `git lfs pull` in its folder"
_SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")


def layout_of(names: Collection[str], where: str) -> Layout:
    """Returns the layout of files with these names. Raises InputError if it is neither."""
    for layout in Layout:
        if layout.value in names:
            return layout
    raise InputError(
        f"{where}: need a folder with {Layout.OPEN_CLIP.value} (open_clip) or "
        f"{Layout.TRANSFORMERS.value} (transformers), found {_first_names(names)}. For a "
        "checkpoint alone, name its architecture as model and the file as pretrained"
    )


def weights_among(names: Collection[str], where: str) -> str:
    """Returns the weights file of a folder in open_clip's layout.

    Raises InputError if there is none, or several of which none has a known name.
    """
    for name in WEIGHT_NAMES:
        if name in names:
            return name
    found = sorted(name for name in names if PurePosixPath(name).suffix in _SUFFIXES)
    if len(found) != 1:
        raise InputError(
            f"{where}: need {WEIGHT_NAMES[0]} or exactly one file of weights, found "
            f"{', '.join(found) or 'none'}"
        )
    return found[0]


def has_transformers_weights(names: Collection[str]) -> bool:
    """True if weights, or an index of them, exist under transformers' names."""
    return any(name in names for name in _TRANSFORMERS_WEIGHT_NAMES)


def transformers_weights_among(names: Collection[str], where: str) -> str:
    """Returns the file, or index, of weights in transformers' layout. Raises InputError if none."""
    return _first_of(_TRANSFORMERS_WEIGHT_NAMES, names, where)


def json_object_of(data: bytes, where: str) -> dict[str, Any]:
    """Returns the JSON object in a small file of a network. Raises InputError otherwise."""
    try:
        value: Any = parse_json(data.decode("utf-8-sig"))
    except ValueError as error:
        raise InputError(f"{where}: cannot be read as JSON: {error}") from None
    if not isinstance(value, dict):
        raise InputError(f"{where}: need a JSON object, got {shortened(repr(value))}")
    return value


def weight_files_in(index: bytes, name: str, names: Collection[str], where: str) -> list[str]:
    """Returns the weights files that an index called `name` lists.

    `names` are the files in its folder. Raises InputError for an invalid index and for missing
    files.
    """
    ending = PurePosixPath(name.removesuffix(INDEX_ENDING)).suffix
    files = json_object_of(index, where).get("weight_map")
    if not isinstance(files, dict) or not files:
        raise InputError(f"{where}: weight_map: need an object, got {shortened(repr(files))}")
    for tensor, file in files.items():
        # `names` are of one folder, so an index cannot refer to files outside it.
        if not isinstance(file, str) or not file.endswith(ending) or file not in names:
            raise InputError(
                f"{where}: weight_map.{shortened(tensor)}: need a {ending} file of this folder, "
                f"got {shortened(repr(file))}"
            )
    return sorted(set(files.values()))


def is_checkpoint_file(source: str) -> bool:
    """True for a path or URI of a checkpoint, False for one of open_clip's tags."""
    return "/" in source or PurePosixPath(source).suffix in _SUFFIXES


def _first_of(needed: Collection[str], names: Collection[str], where: str) -> str:
    for name in needed:
        if name in names:
            return name
    raise InputError(
        f"{where}: has no weights: need {' or '.join(needed)}, found {_first_names(names)}"
    )


def _first_names(names: Collection[str]) -> str:
    shown = ", ".join(shortened(name) for name in sorted(names)[:5]) or "no files"
    return shown + (", ..." if len(names) > 5 else "")
