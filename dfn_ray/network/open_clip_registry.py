"""open_clip's architectures, tags and configs, read from its files without importing it and torch.

Architectures are JSON files. Tags and the dataclasses of configs are in modules that also import
torch: of these modules, only the statements that define them are executed.
"""

from __future__ import annotations

import ast
import copy
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from dfn_ray.errors import InputError

_TABLE = (ast.Assign, ast.AugAssign, ast.For, ast.Expr)
"""Statements of pretrained.py that build its table of tags."""


def architectures() -> tuple[str, ...]:
    """Returns the names of all architectures with a complete config in open_clip, sorted."""
    return tuple(sorted(_architectures()))


def architecture_config(name: str) -> dict[str, Any] | None:
    """Returns a copy of open_clip's model config of an architecture; None if it does not exist."""
    return copy.deepcopy(_architectures().get(name))


def pretrained_tags(name: str) -> dict[str, dict[str, Any]]:
    """Returns the tags of an architecture and the values that open_clip has for their weights.

    These are `hf_hub`, `url`, `quick_gelu`, `mean` and so on.
    """
    return copy.deepcopy(_tags().get(name, {}))


def tag_config(name: str, tag: str) -> dict[str, Any] | None:
    """Returns open_clip's values for a tag in any accepted spelling; None if it does not exist."""
    return pretrained_tags(name).get(tag.lower().replace("-", "_"))


@cache
def config_classes() -> Mapping[str, Any]:
    """Returns open_clip's config dataclasses: CLIPVisionCfg, CLIPTextCfg and MultimodalCfg."""
    namespace: dict[str, Any] = {**vars(typing), "dataclass": dataclass, "__name__": __name__}
    _run("model.py", lambda node: _is_class(node, "CLIPVisionCfg", "CLIPTextCfg"), namespace)
    _run("coca_model.py", lambda node: _is_class(node, "MultimodalCfg"), namespace)
    return namespace


@cache
def model_arguments() -> frozenset[str]:
    """Returns the names of the arguments of open_clip's CLIP and CustomTextCLIP."""
    names: set[str] = set()
    for node in _parsed("model.py").body:
        if isinstance(node, ast.ClassDef) and node.name in ("CLIP", "CustomTextCLIP"):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and method.name == "__init__":
                    names |= {argument.arg for argument in method.args.args}
    return frozenset(names - {"self"})


@cache
def zero_shot_metadata() -> Mapping[str, Any]:
    """Returns the values in open_clip's zero_shot_metadata.py.

    These are IMAGENET_CLASSNAMES, and OPENAI_IMAGENET_TEMPLATES and SIMPLE_IMAGENET_TEMPLATES,
    which are functions of a class name.
    """
    namespace: dict[str, Any] = {}
    _run("zero_shot_metadata.py", lambda node: isinstance(node, ast.Assign), namespace)
    return namespace


@cache
def _architectures() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for path in (_folder() / "model_configs").glob("*.json"):
        values = json.loads(path.read_text(encoding="utf-8"))
        if {"embed_dim", "vision_cfg", "text_cfg"} <= values.keys():  # as open_clip's factory does
            found[path.stem] = values
    return found


@cache
def _tags() -> dict[str, dict[str, dict[str, Any]]]:
    namespace: dict[str, Any] = {"copy": copy}
    _run("constants.py", lambda node: isinstance(node, ast.Assign), namespace)
    _run("pretrained.py", _makes_tags, namespace)
    return namespace["_PRETRAINED"]


def _makes_tags(node: ast.stmt) -> bool:
    """True for statements of the table of tags, and for `_cfg`, `_pcfg`, ..., which they call."""
    if isinstance(node, ast.FunctionDef):
        return node.name.startswith("_") and node.name.endswith("cfg")
    return isinstance(node, _TABLE)


def _is_class(node: ast.stmt, *names: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name in names


def _run(file: str, keep: Callable[[ast.stmt], bool], namespace: dict[str, Any]) -> None:
    """Executes the statements of one of open_clip's files that `keep` selects, in a namespace."""
    kept = [node for node in _parsed(file).body if keep(node)]
    code = compile(
        ast.Module(kept, type_ignores=[]), str(_folder() / file), "exec", dont_inherit=True
    )
    exec(code, namespace)


def _parsed(file: str) -> ast.Module:
    return ast.parse((_folder() / file).read_text(encoding="utf-8"))


def _folder() -> Path:
    spec = find_spec("open_clip")
    if spec is None or not spec.submodule_search_locations:
        raise InputError("open_clip is not installed; pip install open_clip_torch")
    return Path(spec.submodule_search_locations[0])
