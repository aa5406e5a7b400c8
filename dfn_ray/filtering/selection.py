"""Exactly the k best of any number of scores, in constant memory.

Scores are compared through an order-preserving uint32 key. Two passes of 65,536-bin histograms find
the exact threshold key, and, where more samples share it than may be kept, further passes of the same
kind over (uid, shard, row) find the exact last one. The result is a predicate of a few numbers.
Histograms add up, so the passes may be spread over parts, threads and machines in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

BINS = 1 << 16
Rows = Mapping[str, np.ndarray]
"""Scored rows: `score` float32, `uid` records (`dfn_ray.uids.UID_DTYPE`), `shard` int64, `row` int64, shape (N,). Only `score` is read of
rows without a tie at the threshold, so a mapping that loads columns when asked saves most of the reading."""
Source = Callable[[], Iterable[Rows]]
"""Gives every scored row once, in any order and grouping; called once per pass."""
Find = Callable[[Iterable[Rows]], np.ndarray]
Over = Callable[[Find], Iterable[np.ndarray]]
"""What a function finds in slices of the rows that cover them all, wherever they are read; called once per pass."""

COLLECT_ROWS = 1 << 18
"""Once so few rows are in question they are sorted in memory (32 bytes each)."""
_TIE_WORDS = 4  # uid high, uid low, shard, row: uint64 each
_DIGITS_PER_WORD = 4


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which scored rows are kept: those above the threshold, and of those at it the first in tie order.

    A row is kept when key > threshold_key, or key == threshold_key and (uid, shard, row) <= last_tie.
    """

    k: int
    """Rows kept, exactly."""
    threshold_key: int
    """Key of the lowest kept score; BINS * BINS when nothing is kept."""
    last_tie: tuple[int, int, int, int] | None
    """(uid high, uid low, shard, row) of the last kept row at the threshold; None keeps all of them."""
    above: int
    """Rows above the threshold."""
    at: int
    """Rows at the threshold."""

    @property
    def threshold(self) -> float | None:
        """The lowest kept score, or None when nothing is kept."""
        return None if self.k == 0 else float(key_score(self.threshold_key))

    def keeps(self, rows: Rows) -> np.ndarray:
        """Which rows are kept, bool (N,). NaN never is."""
        key = score_key(rows["score"])
        kept = key >= self.threshold_key
        if self.last_tie is not None and len(tied := np.flatnonzero(key == self.threshold_key)):
            last = np.array(self.last_tie, dtype=np.uint64)
            kept[tied] = ~_greater(_tie_words(rows, tied), last)
        return kept & ~np.isnan(rows["score"])


def score_key(score: np.ndarray) -> np.ndarray:
    """uint32 keys in the order of float32 scores; -0 equals +0, NaN gets 0, below every score.

    The bits of a float, read as an integer, are in order for positive numbers and in reverse for
    negative ones: set the sign bit of the former, invert the latter.
    """
    values = np.ascontiguousarray(score, dtype=np.float32) + np.float32(0)  # -0 + 0 = +0
    bits = values.view(np.uint32)
    key = np.where(bits >> 31, ~bits, bits | np.uint32(1 << 31))
    return np.where(np.isnan(values), np.uint32(0), key)


def key_score(key: int) -> np.float32:
    """The score of a key."""
    bits = key & 0x7FFFFFFF if key >> 31 else ~key & 0xFFFFFFFF
    return np.array([bits], dtype=np.uint32).view(np.float32)[0]


def select_best(source: Source, k: int, over: Over | None = None) -> Selection:
    """The selection of the k best scored rows, or of all when there are fewer.

    Ties at the threshold are broken by uid, then shard, then row, ascending. `over` takes the place of `source` where
    the rows are read in slices.
    """
    over = over or _here(source)
    high = _total(over(_count_high))
    available = int(high.sum())
    k = min(k, available)
    if k == 0:
        return Selection(k=0, threshold_key=BINS * BINS, last_tie=None, above=0, at=0)
    high_bin, above = _descend(high, k)
    low = _total(over(partial(_count_low, high_bin=high_bin)))
    low_bin, more = _descend(low, k - above)
    above, at = above + more, int(low[low_bin])
    threshold_key = high_bin << 16 | low_bin
    wanted = k - above
    last = None if wanted == at else _last_tie(over, threshold_key, wanted)
    return Selection(k=k, threshold_key=threshold_key, last_tie=last, above=above, at=at)


def select_threshold(source: Source, threshold: float, over: Over | None = None) -> Selection:
    """The selection of every row with score >= threshold, compared in float32."""
    key = int(score_key(np.array([threshold], dtype=np.float32))[0])
    above = at = 0
    lowest = BINS * BINS
    for smallest, here, more in (over or _here(source))(partial(_count_from, key=key)):
        if here and smallest < lowest:
            above, at, lowest = above + at, 0, int(smallest)
        at += int(here) if smallest == lowest else 0
        above += int(more) + (int(here) if smallest != lowest else 0)
    return Selection(k=above + at, threshold_key=lowest, last_tie=None, above=above, at=at)


def _here(source: Source) -> Over:
    """All rows as one slice, read by the source."""
    return lambda find: [find(source())]


def _keys(rows: Iterable[Rows]) -> Iterable[np.ndarray]:
    """The keys of all rows that have a score."""
    for some in rows:
        score = some["score"]
        yield score_key(score[~np.isnan(score)])


def _count_high(rows: Iterable[Rows]) -> np.ndarray:
    """How many keys have which upper half."""
    return _total(np.bincount(key >> 16, minlength=BINS) for key in _keys(rows))


def _count_low(rows: Iterable[Rows], *, high_bin: int) -> np.ndarray:
    """How many keys with that upper half have which lower half."""
    found = (key[key >> 16 == high_bin] & 0xFFFF for key in _keys(rows))
    return _total(np.bincount(key, minlength=BINS) for key in found)


def _count_from(rows: Iterable[Rows], *, key: int) -> np.ndarray:
    """The lowest key from `key` on, how many rows have it, and how many are above it."""
    at = above = 0
    lowest = BINS * BINS
    for keys in _keys(rows):
        kept = keys[keys >= key]
        if len(kept):
            smallest = int(kept.min())
            if smallest < lowest:
                above, at, lowest = above + at, 0, smallest
            here = int((kept == lowest).sum())
            at, above = at + here, above + len(kept) - here
    return np.array([lowest, at, above], dtype=np.int64)


def _total(counts: Iterable[np.ndarray]) -> np.ndarray:
    total = np.zeros(BINS, dtype=np.int64)
    for some in counts:
        total += some
    return total


def _descend(counts: np.ndarray, k: int) -> tuple[int, int]:
    """The bin that holds the k-th from the top, and how many are in the bins above it."""
    from_top = np.cumsum(counts[::-1])
    position = int(np.searchsorted(from_top, k))
    return BINS - 1 - position, int(from_top[position] - counts[BINS - 1 - position])


def _last_tie(over: Over, threshold_key: int, wanted: int) -> tuple[int, int, int, int]:
    """(uid high, uid low, shard, row) of the `wanted`-th of the rows at the threshold, in tie order.

    One 16-bit digit a pass, most significant first, until few enough rows share the digits found.
    """
    prefix: list[int] = []
    while True:
        tied = {"threshold_key": threshold_key, "prefix": tuple(prefix)}
        counts = _total(over(partial(_count_tied, **tied)))
        before = np.cumsum(counts) - counts
        digit = int(np.searchsorted(before + counts, wanted))
        wanted -= int(before[digit])
        prefix.append(digit)
        if counts[digit] <= COLLECT_ROWS or len(prefix) == _TIE_WORDS * _DIGITS_PER_WORD:
            break
    found = partial(_collect_tied, threshold_key=threshold_key, prefix=tuple(prefix))
    words = np.concatenate(list(over(found)))
    last = words[np.lexsort(words.T[::-1])[wanted - 1]]
    return int(last[0]), int(last[1]), int(last[2]), int(last[3])


def _count_tied(rows: Iterable[Rows], *, threshold_key: int, prefix: Sequence[int]) -> np.ndarray:
    """How many rows at the threshold whose first digits are `prefix` have which next digit."""
    words = _tied(rows, threshold_key, prefix)
    return _total(np.bincount(_digit(some, len(prefix)), minlength=BINS) for some in words)


def _collect_tied(rows: Iterable[Rows], *, threshold_key: int, prefix: Sequence[int]) -> np.ndarray:
    """The tie words of those rows."""
    nothing = np.empty((0, _TIE_WORDS), np.uint64)
    return np.concatenate([nothing, *_tied(rows, threshold_key, prefix)])


def _tied(rows: Iterable[Rows], threshold_key: int, prefix: Sequence[int]) -> Iterable[np.ndarray]:
    """The tie words, (N, 4), of the rows at the threshold whose first digits are `prefix`."""
    for some in rows:
        tied = np.flatnonzero(score_key(some["score"]) == threshold_key)
        if len(tied):
            words = _tie_words(some, tied)
            for position, digit in enumerate(prefix):
                words = words[_digit(words, position) == digit]
            yield words


def _tie_words(rows: Rows, which: np.ndarray) -> np.ndarray:
    """(N, 4) uint64: uid high, uid low, shard, row. Compared left to right they are the tie order."""
    uid, shard, row = (rows[name][which] for name in ("uid", "shard", "row"))
    return np.stack([uid["f0"], uid["f1"], shard.astype(np.uint64), row.astype(np.uint64)], axis=1)


def _digit(words: np.ndarray, position: int) -> np.ndarray:
    """The 16-bit digit at `position` (0 is the most significant of the first word) of each row, int64."""
    word, place = divmod(position, _DIGITS_PER_WORD)
    return ((words[:, word] >> np.uint64(48 - 16 * place)) & np.uint64(0xFFFF)).astype(np.int64)


def _greater(words: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Which rows of (N, W) come after `last` (W,) in the order of their words."""
    result = np.zeros(len(words), dtype=bool)
    equal = np.ones(len(words), dtype=bool)
    for column in range(words.shape[1]):
        result |= equal & (words[:, column] > last[column])
        equal &= words[:, column] == last[column]
    return result
