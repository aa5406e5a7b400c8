"""A tokenizer that travels as data: an actor builds it without network access.

CLIP's own BPE ships with open_clip. A Hugging Face tokenizer (SigLIP, multilingual networks) needs the
`transformers` package; its files are carried along.
"""

from __future__ import annotations

import functools
import hashlib
import heapq
import json
import tempfile
from collections.abc import Callable, Iterable
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
_LONGEST_CAPTION = 4096
"""Characters of a caption that are looked at. Cleaning takes time quadratic in them: ftfy undoes one level of
HTML entities a pass, so `&amp;amp;amp;...` of 64,000 characters takes 6 s and of 4,096 about 25 ms. 77 tokens of
English are about 300 characters."""
_LONGEST_TOKEN = 32
"""Bytes of the longest token of CLIP's BPE."""


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
        tokenizer = HFTokenizer(
            folder, context_length=spec.context_length, tokenizer_mode=spec.mode, **kwargs
        )
        return _bounded(tokenizer)


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


def cut_captions(captions: Iterable[str]) -> int:
    """How many captions are longer than what any tokenizer here looks at."""
    return sum(len(caption.strip()) > _LONGEST_CAPTION for caption in captions)


def _bounded(tokenizer: Any) -> Tokenize:
    """open_clip's tokenizer with bounds on time and memory that no caption of a pool can break."""
    clean = tokenizer.clean_fn
    tokenizer.clean_fn = lambda text: clean(
        text if len(text) <= _LONGEST_CAPTION else text.lstrip()[:_LONGEST_CAPTION]
    )
    if isinstance(tokenizer, open_clip.SimpleTokenizer):
        _bound_words(tokenizer)
    return tokenizer


def _bound_words(tokenizer: Any) -> None:
    """Make CLIP's BPE forget words, and linear in their length (4,096 random letters: 0.13 s before)."""
    seeded, ranks = dict(tokenizer.cache), tokenizer.bpe_ranks
    longest = 2 * _LONGEST_TOKEN * tokenizer.context_length  # twice as far as the context can reach

    def bpe(word: str) -> str:
        if (known := tokenizer.cache.get(word)) is not None:
            return known
        if len(tokenizer.cache) > _MOST_CACHED_WORDS:
            tokenizer.cache = dict(seeded)
        parts = list(word[:longest])
        parts[-1] += "</w>"
        tokenizer.cache[word] = found = " ".join(merged(parts, ranks))
        return found

    tokenizer.bpe = bpe


def merged(parts: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """Byte pair encoding: of all pairs that have a rank the lowest is merged, from left to right wherever it occurs.

    As open_clip's `bpe`, but with a heap of the pairs instead of one pass over the word for each merge.
    """
    count = len(parts)
    before, after = list(range(-1, count - 1)), list(range(1, count + 1))
    heap: list[tuple[int, int]] = []

    def offer(left: int) -> None:
        if left >= 0 and parts[left] and after[left] < count:
            rank = ranks.get((parts[left], parts[after[left]]))
            if rank is not None:
                heapq.heappush(heap, (rank, left))

    for left in range(count):
        offer(left)
    while heap:
        lowest, changed = heap[0][0], list[int]()
        while heap and heap[0][0] == lowest:
            _, left = heapq.heappop(heap)
            right = after[left]
            if right >= count or ranks.get((parts[left], parts[right])) != lowest:
                continue  # one of the two was merged with another neighbour
            parts[left], parts[right] = parts[left] + parts[right], ""
            after[left] = after[right]
            if after[left] < count:
                before[after[left]] = left
            changed += (before[left], left)
        for left in changed:
            offer(left)
    return [part for part in parts if part]
