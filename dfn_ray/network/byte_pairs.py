"""CLIP's own tokenizer: byte pair encoding with open_clip's vocabulary, without importing torch.

Tokens equal those of `open_clip.SimpleTokenizer`, whose import takes 4 s and 700 MB in a decode
worker. Time and memory are bounded for any caption.
"""

from __future__ import annotations

import gzip
import heapq
import html
import string
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import ftfy
import numpy as np
import regex

MAX_CAPTION_CHARS = 4096
"""Characters of a caption that are read. Cleaning takes quadratic time: ftfy undoes one level of
HTML entities per pass, so `&amp;amp;amp;...` takes 6 s with 64,000 characters and about 25 ms with
4,096. 77 tokens of English are about 300 characters."""
_MAX_CACHED_WORDS = 2**17
"""open_clip's BPE caches every word without limit; this many (about 30 MB) cover the frequent
ones."""
_MAX_TOKEN_BYTES = 32
"""Bytes of the longest token of CLIP's BPE."""
_MERGES = 49152 - 256 - 2
"""Merges that CLIP takes from the vocabulary file: 49,152 tokens minus 256 bytes and 2 special
tokens."""
_START, _END = "<start_of_text>", "<end_of_text>"
_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def bounded_caption(caption: str, *, keep_end: bool = False) -> str:
    """Returns the part of a caption that tokenizers read: its start or, on request, its end."""
    if len(caption) <= MAX_CAPTION_CHARS:
        return caption
    if keep_end:
        return caption[-MAX_CAPTION_CHARS:]
    return caption.lstrip()[:MAX_CAPTION_CHARS]


class BytePairTokenizer:
    """A tokenizer with the tokens of `open_clip.SimpleTokenizer` for the same arguments."""

    def __init__(
        self,
        *,
        context_length: int,
        clean: str = "lower",
        additional_special_tokens: Sequence[str] | None = None,
    ) -> None:
        special = [_START, _END, *(additional_special_tokens or ())]
        tokens, merges = tokens_and_merges()
        self._letters = _letters_of_bytes()
        self._ids = {token: number for number, token in enumerate([*tokens, *special])}
        self._ranks = {merge: rank for rank, merge in enumerate(merges)}
        self._words = regex.compile(f"{'|'.join(special)}|{_WORDS}", regex.IGNORECASE)
        self._clean = CLEANERS[clean]
        self._context_length = context_length
        self._longest = 2 * _MAX_TOKEN_BYTES * context_length
        """Letters of a word that are read: twice as many as the context can hold."""
        self._seeded: dict[str, tuple[int, ...]] = {token: (self._ids[token],) for token in special}
        self._cache = dict(self._seeded)

    @property
    def vocab_size(self) -> int:
        """Number of tokens; ids are smaller."""
        return len(self._ids)

    def __call__(self, captions: Sequence[str]) -> np.ndarray:
        """Returns the tokens of each caption, int32 (N, context_length), padded with 0.

        Longer captions are cut to the context, with the end token last.
        """
        tokens_NL = np.zeros((len(captions), self._context_length), np.int32)
        start, end = self._ids[_START], self._ids[_END]
        for row_L, caption in zip(tokens_NL, captions, strict=True):
            tokens = [start, *self._encoded(caption), end][: self._context_length]
            row_L[: len(tokens)] = tokens
            if len(tokens) == self._context_length:
                row_L[-1] = end
        return tokens_NL

    @property
    def cached_words(self) -> int:
        """Number of words in the cache."""
        return len(self._cache)

    def _encoded(self, caption: str) -> Iterator[int]:
        for word in self._words.findall(self._clean(bounded_caption(caption))):
            yield from self._encoded_word("".join(self._letters[byte] for byte in word.encode()))

    def _encoded_word(self, word: str) -> tuple[int, ...]:
        if (known := self._cache.get(word)) is not None:
            return known
        if len(self._cache) > _MAX_CACHED_WORDS:
            self._cache = dict(self._seeded)
        parts = list(word[: self._longest])
        parts[-1] += "</w>"
        self._cache[word] = tokens = tuple(
            self._ids[part] for part in merge_pairs(parts, self._ranks)
        )
        return tokens


def tokens_and_merges() -> tuple[list[str], list[tuple[str, str]]]:
    """Returns CLIP's tokens by id, without special ones, and its merges by rank."""
    merges: list[Any] = [tuple(line.split()) for line in _vocabulary()[1 : 1 + _MERGES]]
    letters = list(_letters_of_bytes().values())
    ends = [f"{letter}</w>" for letter in letters]
    return [*letters, *ends, *map("".join, merges)], merges


def merge_pairs(parts: list[str], ranks: dict[tuple[str, ...], int]) -> list[str]:
    """Returns the parts after byte pair encoding: pairs merge by rank, then from left to right.

    Equals open_clip's `bpe`, but uses a heap of pairs instead of one pass over the word per merge
    (0.13 s for 4,096 random letters).
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
                continue  # one of the two is merged with another neighbour already
            parts[left], parts[right] = parts[left] + parts[right], ""
            after[left] = after[right]
            if after[left] < count:
                before[after[left]] = left
            changed += (before[left], left)
        for left in changed:
            offer(left)
    return [part for part in parts if part]


def _fixed(text: str) -> str:
    return html.unescape(html.unescape(ftfy.fix_text(text)))


def _spaced(text: str) -> str:
    return " ".join(text.split())


CLEANERS: dict[str, Callable[[str], str]] = {
    "lower": lambda text: _spaced(_fixed(text)).lower(),
    "whitespace": lambda text: _spaced(_fixed(text)),
    "canonicalize": lambda text: _spaced(
        _fixed(text).replace("_", " ").translate(_NO_PUNCTUATION).lower()
    ),
}
"""Functions that clean a caption before it is split into words, by open_clip's names."""


def _vocabulary() -> list[str]:
    """The lines of the vocabulary file that open_clip ships."""
    package = find_spec("open_clip")  # which does not import it
    assert package is not None
    assert package.origin is not None
    file = Path(package.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    return gzip.decompress(file.read_bytes()).decode().split("\n")


def _letters_of_bytes() -> dict[int, str]:
    """A letter for each byte, in the order of CLIP's vocabulary.

    Printable bytes stand for themselves; the others are mapped to letters from 256 on.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), 256),
    ]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    return letters | {byte: chr(256 + number) for number, byte in enumerate(others)}
