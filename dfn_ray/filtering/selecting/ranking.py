"""The order of scored rows: best score first, then uid, shard and row, ascending.

Scores are compared through an order-preserving uint32 key; ties through four uint64 words, read as
16 digits of 16 bits.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

Rows = Mapping[str, np.ndarray]
"""Scored rows: `score` float32, `uid` records (`dfn_ray.uids.records.UID_DTYPE`), `shard` int64,
`row` int64, shape (N,). Without a tie at the threshold only `score` is read, so a mapping that
loads columns lazily avoids most of the reading."""

TIE_WORDS = 4
"""uid high, uid low, shard, row: uint64 each."""
_DIGITS_PER_WORD = 4
TIE_DIGITS = TIE_WORDS * _DIGITS_PER_WORD
"""Digits of 16 bits, the most significant first."""


def score_key(score: np.ndarray) -> np.ndarray:
    """uint32 keys in the order of float32 scores; -0 equals +0, and NaN is 0, below every score.

    The bits of a float, read as an integer, are in order for positive numbers and in reverse order
    for negative ones: the sign bit of the former is set, the latter are inverted.
    """
    values = np.ascontiguousarray(score, dtype=np.float32) + np.float32(0)  # -0 + 0 = +0
    bits = values.view(np.uint32)
    key = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return np.where(np.isnan(values), np.uint32(0), key)


def key_score(key: int) -> np.float32:
    """The score of a key."""
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return np.array([bits], dtype=np.uint32).view(np.float32)[0]


def tie_words(rows: Rows, which: np.ndarray) -> np.ndarray:
    """(N, 4) uint64: uid high, uid low, shard, row; their lexicographic order is the tie order."""
    uid, shard, row = (rows[name][which] for name in ("uid", "shard", "row"))
    return np.stack([uid["f0"], uid["f1"], shard.astype(np.uint64), row.astype(np.uint64)], axis=1)


def digit_of(words: np.ndarray, position: int) -> np.ndarray:
    """The 16-bit digit of each row at `position` (0 is the most significant), int64 (N,)."""
    word, place = divmod(position, _DIGITS_PER_WORD)
    return ((words[:, word] >> np.uint64(48 - 16 * place)) & np.uint64(0xFFFF)).astype(np.int64)


def greater(words: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Mask of the rows of (N, W) that come after `last` (W,) in the order of their words."""
    result = np.zeros(len(words), dtype=bool)
    equal = np.ones(len(words), dtype=bool)
    for column in range(words.shape[1]):
        result |= equal & (words[:, column] > last[column])
        equal &= words[:, column] == last[column]
    return result
