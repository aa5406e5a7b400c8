"""Tokenizers as data that can be sent to workers, which build them without network access.

`byte_pairs` implements CLIP's own tokenizer, `folder_tokenizer` those of networks in transformers'
layout. A Hugging Face tokenizer that an open_clip config names (SigLIP, multilingual networks) is
built by open_clip and needs the `transformers` package. Files are part of the data. Only the last
kind imports torch, which decode workers do not need otherwise.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from dfn_ray.errors import InputError
from dfn_ray.network.byte_pairs import (
    CLEANERS,
    MAX_CAPTION_CHARS,
    BytePairTokenizer,
    bounded_caption,
)
from dfn_ray.network.download_errors import download_error
from dfn_ray.network.folder_tokenizer import JSON_FILE, folder_tokenizer
from dfn_ray.versions import package_versions

TOKENIZER_VERSION = 3
"""Part of every fingerprint. Increment it with every change that alters the tokens of a caption;
not for changes that only affect speed."""
_PACKAGES = {
    "clip": ("ftfy", "regex"),
    "huggingface": ("tokenizers", "sentencepiece"),
    "tokenizer.json": ("tokenizers",),
    "sentencepiece": ("sentencepiece",),
}
"""Packages that the tokens depend on, by kind of tokenizer."""

Tokenize = Callable[[Sequence[str]], np.ndarray]
_CONTEXT_LENGTH = 77
"""Context length of CLIP, for configs that specify none."""


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """Everything that the tokens of a caption depend on; hashable and picklable."""

    context_length: int
    """Tokens per caption, padding included."""
    kwargs_json: str = "{}"
    """Options of the tokenizer (of open_clip's class, or of `folder_tokenizer`), as a JSON
    object."""
    mode: str | None = None
    """open_clip's `tokenizer_mode`; for Hugging Face tokenizers only."""
    files: tuple[tuple[str, bytes], ...] = ()
    """Name and content of the tokenizer's files; empty: CLIP's own BPE."""
    reader: Literal["open_clip", "folder"] = "open_clip"
    """`folder`: `folder_tokenizer` reads the single file; `open_clip`: the tokenizer open_clip
    picks."""

    @property
    def kind(self) -> str:
        """The kind of tokenizer: `clip`, `huggingface`, `tokenizer.json` or `sentencepiece`."""
        if self.reader == "folder":
            return "tokenizer.json" if self.files[0][0] == JSON_FILE else "sentencepiece"
        return "huggingface" if self.files else "clip"

    def fingerprint(self) -> dict[str, Any]:
        """The spec as JSON values, with one digest for all files."""
        kwargs = json.loads(self.kwargs_json)
        packages = _PACKAGES[self.kind]
        if self.reader == "folder" and kwargs["clean"]:
            packages = (*packages, "ftfy")
        return {
            "kind": self.kind,
            "versions": {"tokenizer": TOKENIZER_VERSION, **package_versions(packages)},
            "context_length": self.context_length,
            "kwargs": kwargs,
            "mode": self.mode,
            "files_sha256": _digest(self.files) if self.files else None,
        }


def resolve(model_cfg: dict[str, Any], source: str | None) -> TokenizerSpec:
    """Returns the tokenizer of a model config, chosen as in open_clip's `get_tokenizer`.

    `source` is the name or folder of a Hugging Face tokenizer; None: CLIP's own BPE. Raises
    InputError if it does not exist, has an unknown option, or drops tokens at random; StorageError
    if it cannot be downloaded.
    """
    text_cfg = model_cfg["text_cfg"]
    kwargs = dict(text_cfg.get("tokenizer_kwargs") or {})
    if mask := kwargs.pop("reduction_mask", None):
        raise InputError(
            f"text_cfg.tokenizer_kwargs.reduction_mask: {mask!r} drops tokens at random, "
            "so scores would not repeat"
        )
    if source is None:
        _require_known(kwargs)
    spec = TokenizerSpec(
        context_length=text_cfg.get("context_length", _CONTEXT_LENGTH),
        kwargs_json=json.dumps(kwargs, sort_keys=True),
        mode=text_cfg.get("tokenizer_mode") if source else None,
        files=_fetch(source, kwargs) if source else (),
    )
    tokenizer = build(spec)
    if isinstance(tokenizer, BytePairTokenizer):
        _require_rows(text_cfg, tokenizer)
    return spec


def _require_rows(text_cfg: Mapping[str, Any], tokenizer: BytePairTokenizer) -> None:
    """Raises InputError if the network has no embedding for some of the tokens."""
    rows = text_cfg.get("vocab_size", tokenizer.vocab_size)
    if rows < tokenizer.vocab_size:
        raise InputError(
            f"text_cfg.vocab_size: {rows:,} embeddings, but CLIP's tokenizer has "
            f"{tokenizer.vocab_size:,} tokens; set text_cfg.hf_tokenizer_name to the network's own "
            "tokenizer, or correct vocab_size"
        )


def _require_known(kwargs: Mapping[str, Any]) -> None:
    """Raises InputError for an option that BytePairTokenizer does not have."""
    name = "text_cfg.tokenizer_kwargs"
    if unknown := sorted(kwargs.keys() - {"clean", "additional_special_tokens"}):
        raise InputError(
            f"{name}.{unknown[0]}: not an option of CLIP's tokenizer; need clean or "
            "additional_special_tokens"
        )
    if kwargs.get("clean", "lower") not in CLEANERS:
        raise InputError(
            f"{name}.clean: need one of {', '.join(CLEANERS)}, got {kwargs['clean']!r}"
        )
    tokens = kwargs.get("additional_special_tokens") or []
    if not (isinstance(tokens, list) and all(isinstance(token, str) for token in tokens)):
        raise InputError(
            f"{name}.additional_special_tokens: need a list of strings, got {tokens!r}"
        )


def tokenize(spec: TokenizerSpec, captions: Sequence[str]) -> np.ndarray:
    """Returns the tokens of each caption by the network's tokenizer, int32 (N, context_length)."""
    if not captions:
        return np.zeros((0, spec.context_length), np.int32)
    return build(spec)(captions)


@functools.cache
def build(spec: TokenizerSpec) -> Tokenize:
    """Returns the tokenizer for `spec`; built once per process."""
    kwargs = json.loads(spec.kwargs_json)
    if spec.reader == "folder":
        name, content = spec.files[0]
        return folder_tokenizer(name, content, context_length=spec.context_length, options=kwargs)
    if not spec.files:
        return BytePairTokenizer(context_length=spec.context_length, **kwargs)
    with tempfile.TemporaryDirectory() as folder:
        for name, content in spec.files:
            (Path(folder) / name).write_bytes(content)
        tokenizer = _hugging_face(
            folder, context_length=spec.context_length, tokenizer_mode=spec.mode, **kwargs
        )
    return lambda captions: (
        tokenizer([bounded_caption(text) for text in captions]).numpy().astype(np.int32)
    )


def _hugging_face(source: str, **kwargs: Any) -> Any:
    from open_clip.tokenizer import HFTokenizer  # noqa: PLC0415  imports torch

    return HFTokenizer(source, **kwargs)


def _fetch(source: str, kwargs: dict[str, Any]) -> tuple[tuple[str, bytes], ...]:
    """Name and content of the files that a Hugging Face tokenizer saves."""
    try:
        tokenizer = _hugging_face(source, **kwargs)
    except ImportError:
        raise InputError(
            f"tokenizer {source!r}: needs the transformers package; pip install transformers"
        ) from None
    except (OSError, ValueError) as error:
        message = f"tokenizer {source!r}: cannot be loaded: {error}"
        raise download_error(message, error, otherwise=InputError) from error
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return tuple((path.name, path.read_bytes()) for path in sorted(Path(folder).iterdir()))


def _digest(files: tuple[tuple[str, bytes], ...]) -> str:
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def count_cut_captions(captions: Iterable[str]) -> int:
    """Returns the number of captions that tokenizers do not read to the end."""
    return sum(len(caption.strip()) > MAX_CAPTION_CHARS for caption in captions)
