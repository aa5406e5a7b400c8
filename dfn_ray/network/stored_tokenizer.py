"""A network's own tokenizer in a folder of open_clip's layout, which does not support one.

`train` writes the tokenizer's file into the network's folder, and the options that its tokens
depend on under `dfn_ray.tokenizer` in open_clip_config.json, a key that open_clip ignores.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from dfn_ray.errors import InputError
from dfn_ray.network.folder_tokenizer import SENTENCEPIECE_FILE, require_embeddings
from dfn_ray.network.open_clip_config import problems_in
from dfn_ray.network.small_files import NetworkFolder
from dfn_ray.network.tokenizer import TokenizerSpec, build

_STRICT = ConfigDict(extra="forbid", strict=True)
_Side = Literal["left", "right"]


@dataclass(kw_only=True)
class _Options:
    __pydantic_config__ = _STRICT

    pad: tuple[Annotated[int, Field(ge=0, le=2**24)], str]
    clean: Literal["lower", "whitespace", "canonicalize"] | None
    padding_side: _Side = "right"
    truncation_side: _Side = "right"
    lower_case: bool = False
    end: str | None = None
    unknown: str | None = None
    special: list[str] = field(default_factory=list)


@dataclass(kw_only=True)
class _Stored:
    __pydantic_config__ = _STRICT

    file: Literal["tokenizer.json", "spiece.model"]
    context_length: Annotated[int, Field(ge=1, le=2**16)]
    options: _Options


_STORED = TypeAdapter(_Stored)


def stored_options(spec: TokenizerSpec) -> dict[str, Any] | None:
    """Returns the value of `dfn_ray.tokenizer`; None for tokenizers in open_clip's config."""
    if spec.reader != "folder":
        return None
    return {
        "file": spec.files[0][0],
        "context_length": spec.context_length,
        "options": json.loads(spec.kwargs_json),
    }


def stored_tokenizer(
    folder: NetworkFolder, values: Any, *, rows: int, context: int
) -> TokenizerSpec:
    """Returns the tokenizer that `dfn_ray.tokenizer` describes.

    The network has `rows` embeddings and a context of `context` tokens. Raises InputError that
    names the key or the file.
    """
    place = f"{folder.label}/open_clip_config.json"
    if problems := problems_in(_STORED, "dfn_ray.tokenizer", values):
        raise InputError(f"{place}: " + "; ".join(problems[:5]))
    file = values["file"]
    if file not in folder:
        raise InputError(f"{place}: dfn_ray.tokenizer.file: {file} is not in the folder")
    if file == SENTENCEPIECE_FILE and None in map(values["options"].get, ("end", "unknown")):
        raise InputError(f"{place}: dfn_ray.tokenizer.options: {file} needs end and unknown")
    if values["context_length"] > context:
        raise InputError(
            f"{place}: dfn_ray.tokenizer.context_length: need at most text_cfg.context_length, "
            f"{context}, got {values['context_length']}"
        )
    spec = TokenizerSpec(
        context_length=values["context_length"],
        kwargs_json=json.dumps(values["options"], sort_keys=True),
        files=((file, folder.content(file)),),
        reader="folder",
    )
    try:
        tokenizer: Any = build(spec)
    except (TypeError, ValueError) as error:
        raise InputError(f"{folder.label}/{file}: cannot be used as a tokenizer: {error}") from None
    require_embeddings(tokenizer, rows, f"{folder.label}/{file}")
    return spec
