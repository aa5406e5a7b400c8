"""A tokenizer that travels as data: an actor builds it without network access.

CLIP's own BPE ships with open_clip. A Hugging Face tokenizer (SigLIP, multilingual networks) needs the
`transformers` package; its files are carried along.
"""

from __future__ import annotations

import functools
import hashlib
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, HFTokenizer

from dfn_ray.errors import InputError
from dfn_ray.versions import package_versions

TOKENIZER_VERSION = 2
"""Part of every fingerprint. Raise it by one with each change after which a caption gives other tokens; not for what only
changes speed."""
_READ_BY = {
    "clip": ("ftfy", "regex"),
    "huggingface": ("tokenizers", "sentencepiece"),
}
"""Packages that the tokens of a kind of tokenizer depend on."""

Tokenize = Callable[[list[str]], torch.Tensor]

_MOST_CACHED_WORDS = 2**17
"""open_clip's BPE remembers every word it ever saw; this many (about 30 MB) cover the frequent ones."""
_LONGEST_WORD = 4096
"""Characters of one word that BPE looks at. It takes time quadratic in them (16,384 random letters: 2 s), and
the longest token has 32, so 77 tokens never reach as far."""


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """Everything that decides the tokens of a caption; hashable, picklable."""

    context_length: int
    """Tokens per caption, padding included."""
    kwargs_json: str = "{}"
    """Keyword arguments of open_clip's tokenizer class, as a JSON object."""
    mode: str | None = None
    """open_clip's `tokenizer_mode`; Hugging Face only."""
    files: tuple[tuple[str, bytes], ...] = ()
    """Name and content of a Hugging Face tokenizer's files; empty: CLIP's own BPE."""

    def fingerprint(self) -> dict[str, Any]:
        """The spec as JSON values, files as one digest."""
        kind = "huggingface" if self.files else "clip"
        return {
            "kind": kind,
            "versions": {"tokenizer": TOKENIZER_VERSION, **package_versions(_READ_BY[kind])},
            "context_length": self.context_length,
            "kwargs": json.loads(self.kwargs_json),
            "mode": self.mode,
            "files_sha256": _digest(self.files) if self.files else None,
        }


def resolve(model_cfg: dict[str, Any], source: str | None) -> TokenizerSpec:
    """The tokenizer of a model config, as open_clip's `get_tokenizer` picks it; `source` is Hugging Face's.

    Raises InputError if it cannot be fetched or does not give the same tokens each time.
    """
    text_cfg = model_cfg["text_cfg"]
    kwargs = text_cfg.get("tokenizer_kwargs") or {}
    if kwargs.get("reduction_mask"):
        raise InputError(
            f"text_cfg.tokenizer_kwargs.reduction_mask: {kwargs['reduction_mask']!r} drops tokens at random;"
            " scores would not repeat"
        )
    spec = TokenizerSpec(
        context_length=text_cfg.get("context_length", DEFAULT_CONTEXT_LENGTH),
        kwargs_json=json.dumps(kwargs, sort_keys=True),
        mode=text_cfg.get("tokenizer_mode") if source else None,
        files=_fetch(source, kwargs) if source else (),
    )
    build(spec)
    return spec


@functools.cache
def build(spec: TokenizerSpec) -> Tokenize:
    """open_clip's tokenizer for `spec`; built once per process."""
    kwargs = json.loads(spec.kwargs_json)
    if not spec.files:
        return _bounded(open_clip.SimpleTokenizer(context_length=spec.context_length, **kwargs))
    with tempfile.TemporaryDirectory() as folder:
        for name, content in spec.files:
            (Path(folder) / name).write_bytes(content)
        return HFTokenizer(
            folder, context_length=spec.context_length, tokenizer_mode=spec.mode, **kwargs
        )


def _fetch(source: str, kwargs: dict[str, Any]) -> tuple[tuple[str, bytes], ...]:
    """Name and content of the files that a Hugging Face tokenizer saves."""
    try:
        tokenizer = HFTokenizer(source, **kwargs)
    except ImportError:
        raise InputError(
            f"tokenizer {source!r}: needs the transformers package; pip install transformers"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"tokenizer {source!r}: cannot be loaded: {error}") from error
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return tuple((path.name, path.read_bytes()) for path in sorted(Path(folder).iterdir()))


def _digest(files: tuple[tuple[str, bytes], ...]) -> str:
    digest = hashlib.sha256()
    for name, content in files:
        digest.update(f"{name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _bounded(tokenizer: Any) -> Tokenize:
    """CLIP's tokenizer with bounds on memory and time that no caption of a pool can break."""
    bpe, seeded = tokenizer.bpe, dict(tokenizer.cache)

    def bounded_bpe(word: str) -> str:
        if len(tokenizer.cache) > _MOST_CACHED_WORDS:
            tokenizer.cache = dict(seeded)
        return bpe(word[:_LONGEST_WORD])

    tokenizer.bpe = bounded_bpe
    return tokenizer
