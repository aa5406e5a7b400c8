"""Target: tokens, which match open_clip's up to 4,096 characters and are bounded beyond."""

from __future__ import annotations

import functools
import time
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np
import open_clip

from dfn_ray.network.tokenizer import TokenizerSpec, tokenize
from tests.fuzz import odd_text
from tests.fuzz.case import Case, Target, require
from tests.fuzz.mutate import mutate

_EQUAL_CHARACTERS = 4096
_MAX_CAPTION_BYTES = 64 * 2**10
_MAX_S = 1.0
"""For one long caption, in CPU time."""


def make(rng: Random) -> Case:
    """Some captions, one of them long."""
    short = [_short(rng)[:_EQUAL_CHARACTERS] for _ in range(3)]
    valid = rng.random() < 0.5
    if not valid:
        short = [
            mutate(rng, caption.encode() or b"a").data.decode("utf-8", "replace")
            for caption in short
        ]
        short = [caption[:_EQUAL_CHARACTERS] for caption in short]
    long = _long(rng)
    context = rng.choice((77, 77, 16, 256))

    def check(folder: Path) -> Counter[str]:
        del folder
        spec = TokenizerSpec(context_length=context)
        mine = tokenize(spec, short)
        due = _independent(context)(short).numpy()
        for caption, tokens, others in zip(short, mine, due, strict=True):
            require(
                np.array_equal(tokens, others),
                "tokens are not open_clip's",
                caption,
                tokens,
                others,
            )
        started = time.process_time()
        tokens = tokenize(spec, [long])
        taken_s = time.process_time() - started
        require(
            taken_s < _MAX_S, "a caption takes too long", f"{taken_s:.1f} s", long[:40], len(long)
        )
        require(
            tokens.shape == (1, context) and tokens.max() < 49408, "tokens out of range", tokens
        )
        return Counter({"ok": 4})

    files = {f"{at}.txt": caption.encode() for at, caption in enumerate([*short, long])}
    return Case(valid=valid, note=f"captions, context {context}", files=files, check=check)


def _short(rng: Random) -> str:
    return (
        odd_text.text(rng, rng.choice((0, 1, 5, 20, 300)))
        if rng.random() < 0.8
        else _repeated(rng, 4096)
    )


def _long(rng: Random) -> str:
    """A caption of the maximum length of a pool."""
    text = _repeated(rng, _MAX_CAPTION_BYTES) if rng.random() < 0.7 else odd_text.text(rng, 4000)
    return text.encode()[:_MAX_CAPTION_BYTES].decode("utf-8", "ignore")


def _repeated(rng: Random, most: int) -> str:
    """One piece repeated: reveals quadratic time."""
    start, piece = rng.choice((
        ("&", "amp;"), ("", "&amp;"), ("&lt;" * 3, "amp;lt;"), ("", "a"), ("", "é"),
        ("", "e\u0301"), ("", "\u0301"), ("", "👩‍"), ("", "\u200d"), ("", "!"), ("", "1"),
        ("", "漢"), ("", " "), ("", "Ã©"), ("", "â€™"), ("", "<"), ("", "&#38;"), ("", "\x1b[0m"),
        ("", "a'b"), ("", "ﬁ"), ("", "Ａ"), ("", "\ud7a3"), ("", "a "), ("", "\0"),
        ("", "&amp;amp;"), ("", "Ãƒ"), ("", "'"), ("", "\u2019"), ("", "<|endoftext|>"),
    ))  # fmt: skip
    return (start + piece * (most // len(piece.encode())))[:most]


@functools.cache
def _independent(context: int) -> open_clip.SimpleTokenizer:
    return open_clip.SimpleTokenizer(context_length=context)


TARGET = Target("caption", 1, make)
