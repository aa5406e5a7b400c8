"""Exactly the k best of any number of scores, in constant memory.

Scores are compared through an order-preserving uint32 key. Two passes of 65,536-bin histograms find
the exact threshold key. If more samples share it than may be kept, further passes of the same kind
over (uid, shard, row) find the last kept one, for any number of k at once. The result is a
predicate of a few numbers. Histograms add up, so the passes may be spread over parts, threads and
machines in any order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol

import numpy as np

from dfn_ray.filtering.selecting.ranking import (
    TIE_DIGITS,
    TIE_WORDS,
    Rows,
    digit_of,
    greater,
    key_score,
    score_key,
    tie_words,
)

BINS = 1 << 16
RowSource = Callable[[], Iterable[Rows]]
"""Returns every scored row once, in any order and grouping; called once per pass."""


class MapSlices(Protocol):
    """Applies a function to slices that together cover all rows; called once per pass."""

    def __call__(
        self, find: Callable[[Iterable[Any]], Any], read: Callable[[Rows], Any] | None = None
    ) -> Iterable[Any]:
        """The results of `find` for the slices, computed in any process.

        With `read`, `find` is given its results instead of the rows. It is called by the threads
        that read, so the columns that it loads are read in parallel.
        """
        ...


COLLECT_ROWS = 1 << 18
"""Number of tied rows from which on they are no longer sorted in memory (32 bytes each)."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """A predicate of the kept rows: all above the threshold, and the first in tie order at it.

    A row is kept when key > threshold_key, or key == threshold_key and (uid, shard, row) <=
    last_tie.
    """

    k: int
    """Number of kept rows."""
    threshold_key: int
    """Key of the lowest kept score; BINS * BINS when nothing is kept."""
    last_tie: tuple[int, int, int, int] | None
    """(uid high, uid low, shard, row) of the last kept row at the threshold; None keeps all of
    them."""
    above: int
    """Number of rows above the threshold."""
    at: int
    """Number of rows at the threshold."""

    @property
    def threshold(self) -> float | None:
        """The lowest kept score, or None when nothing is kept."""
        return None if self.k == 0 else float(key_score(self.threshold_key))

    def keeps(self, rows: Rows) -> np.ndarray:
        """Mask of the kept rows, bool (N,). NaN is never kept."""
        key = score_key(rows["score"])
        kept = key >= self.threshold_key
        if self.last_tie is not None and len(tied := np.flatnonzero(key == self.threshold_key)):
            last = np.array(self.last_tie, dtype=np.uint64)
            kept[tied] = ~greater(tie_words(rows, tied), last)
        return kept & ~np.isnan(rows["score"])


def select_best(source: RowSource, k: int, map_slices: MapSlices | None = None) -> Selection:
    """The selection of the k best scored rows, or of all when there are fewer.

    Ties at the threshold are broken by uid, then shard, then row, ascending. `map_slices` replaces
    `source` if the rows are read in slices.
    """
    return select_best_each(source, [k], map_slices)[0]


def select_best_each(
    source: RowSource, counts: Sequence[int], map_slices: MapSlices | None = None
) -> list[Selection]:
    """`select_best` for each of several k, in as many passes as for one."""
    map_slices = map_slices or _as_one_slice(source)
    high = _total(map_slices(_count_high))
    targets = [min(k, int(high.sum())) for k in counts]
    cuts = [_descend(high, k) for k in targets]  # the bin of upper halves that contains the k-th
    bins = tuple(sorted({cut.bin for cut, k in zip(cuts, targets, strict=True) if k}))
    low = _total(map_slices(partial(_count_low, high_bins=bins)), len(bins)) if bins else None
    found, ties = [], []
    for cut, k in zip(cuts, targets, strict=True):
        if low is None or k == 0:
            found.append(Selection(k=0, threshold_key=BINS * BINS, last_tie=None, above=0, at=0))
            continue
        counted = low[bins.index(cut.bin)]
        lowest = _descend(counted, k - cut.above)
        above, at = cut.above + lowest.above, int(counted[lowest.bin])
        key = cut.bin << 16 | lowest.bin
        found.append(Selection(k=k, threshold_key=key, last_tie=None, above=above, at=at))
        if k - above < at:
            ties.append(_Tie(len(found) - 1, key, k - above, at))
    for tie, last in zip(ties, _last_ties(map_slices, ties), strict=True):
        found[tie.selection] = replace(found[tie.selection], last_tie=last)
    return found


def select_threshold(
    source: RowSource, threshold: float, map_slices: MapSlices | None = None
) -> Selection:
    """The selection of every row with score >= threshold, compared in float32."""
    key = int(score_key(np.array([threshold], dtype=np.float32))[0])
    above = at = 0
    lowest = BINS * BINS
    for smallest, here, more in (map_slices or _as_one_slice(source))(
        partial(_count_from, key=key)
    ):
        if here and smallest < lowest:
            above, at, lowest = above + at, 0, int(smallest)
        at += int(here) if smallest == lowest else 0
        above += int(more) + (int(here) if smallest != lowest else 0)
    return Selection(k=above + at, threshold_key=lowest, last_tie=None, above=above, at=at)


def _as_one_slice(source: RowSource) -> MapSlices:
    """A MapSlices with all rows as one slice, read by the source."""
    return lambda find, read=None: [find(map(read, source()) if read else source())]


def _keys(rows: Iterable[Rows]) -> Iterable[np.ndarray]:
    """The keys of all rows that have a score."""
    for some in rows:
        score = some["score"]
        yield score_key(score[~np.isnan(score)])


def _count_high(rows: Iterable[Rows]) -> np.ndarray:
    """Histogram (BINS,) of the upper halves of the keys."""
    return _total(np.bincount(key >> 16, minlength=BINS) for key in _keys(rows))


def _count_low(rows: Iterable[Rows], *, high_bins: Sequence[int]) -> np.ndarray:
    """Histograms (B, BINS) of the lower halves of the keys with each of these upper halves."""
    place = np.full(BINS, -1, np.int64)
    place[list(high_bins)] = range(len(high_bins))
    total = np.zeros(len(high_bins) * BINS, np.int64)
    for key in _keys(rows):
        of = place[key >> 16]
        within = of >= 0
        np.add.at(total, of[within] * BINS + (key[within] & 0xFFFF), 1)
    return total.reshape(-1, BINS)


def _count_from(rows: Iterable[Rows], *, key: int) -> np.ndarray:
    """The lowest key >= `key`, the number of rows with it, and the number of rows above it."""
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


def _total(counts: Iterable[np.ndarray], rows: int | None = None) -> np.ndarray:
    """The sum of histograms, (BINS,) or (rows, BINS)."""
    total = np.zeros(BINS if rows is None else (rows, BINS), dtype=np.int64)
    for some in counts:
        total += some
    return total


class _Cut(NamedTuple):
    bin: int
    above: int
    """Number of rows in the bins above it."""


def _descend(counts: np.ndarray, k: int) -> _Cut:
    """The bin that contains the k-th row from the top."""
    from_top = np.cumsum(counts[::-1])
    position = min(int(np.searchsorted(from_top, k)), BINS - 1)
    return _Cut(BINS - 1 - position, int(from_top[position] - counts[BINS - 1 - position]))


_TieQuery = tuple[int, tuple[int, ...]]
"""Identifies tied rows: the key of their score, and the first digits of their tie words."""


@dataclass
class _Tie:
    """A search for the row of a given rank, in tie order, among the rows at a threshold."""

    selection: int
    """Index of the selection that it is for."""
    threshold_key: int
    rank: int
    """Rank of the row, from 1, among the rows that begin with `prefix`."""
    rows: int
    """Number of rows that begin with `prefix`."""
    prefix: tuple[int, ...] = ()
    """Leading digits of the row's tie words, as far as they are found."""

    @property
    def fits_in_memory(self) -> bool:
        """True if the remaining rows can be sorted in memory."""
        return self.rows <= COLLECT_ROWS or len(self.prefix) == TIE_DIGITS

    @property
    def query(self) -> _TieQuery:
        """Key and prefix of the remaining rows."""
        return self.threshold_key, self.prefix


def _last_ties(map_slices: MapSlices, ties: Sequence[_Tie]) -> Iterator[tuple[int, int, int, int]]:
    """(uid high, uid low, shard, row) of the last kept row of each tie.

    Each pass finds one 16-bit digit for all ties, most significant first, until few enough rows
    share the digits found.
    """
    while many := [tie for tie in ties if not tie.fits_in_memory]:
        count = partial(_count_digits, positions=[len(tie.prefix) for tie in many])
        tied = partial(_tied, queries=[tie.query for tie in many])
        for tie, counts in zip(many, _total(map_slices(count, tied), len(many)), strict=True):
            before = np.cumsum(counts) - counts
            digit = int(np.searchsorted(before + counts, tie.rank))
            tie.rank -= int(before[digit])
            tie.rows = int(counts[digit])
            tie.prefix += (digit,)
    if not ties:
        return
    tied = partial(_tied, queries=[tie.query for tie in ties])
    collected = map_slices(partial(_joined, queries=len(ties)), tied)
    for tie, *some in zip(ties, *collected, strict=True):
        words = np.concatenate(some)
        last = words[np.lexsort(words.T[::-1])[tie.rank - 1]]
        yield int(last[0]), int(last[1]), int(last[2]), int(last[3])


def _count_digits(tied: Iterable[list[np.ndarray]], *, positions: Sequence[int]) -> np.ndarray:
    """Histograms (Q, BINS) of the digit at the position of each query, of its rows' tie words."""
    total = np.zeros((len(positions), BINS), dtype=np.int64)
    for some in tied:
        for counts, position, words in zip(total, positions, some, strict=True):
            np.add.at(counts, digit_of(words, position), 1)
    return total


def _joined(tied: Iterable[list[np.ndarray]], *, queries: int) -> list[np.ndarray]:
    """The tie words of all rows of each query, (N, 4) each."""
    nothing = [np.empty((0, TIE_WORDS), np.uint64) for _ in range(queries)]
    return [np.concatenate(some) for some in zip(nothing, *tied, strict=True)]


def _tied(rows: Rows, *, queries: Sequence[_TieQuery]) -> list[np.ndarray]:
    """The tie words, (N, 4), of the rows of each query; loaded only if there are any."""
    key = score_key(rows["score"])
    found = []
    for threshold_key, prefix in queries:
        tied = np.flatnonzero(key == threshold_key)
        words = tie_words(rows, tied) if len(tied) else np.empty((0, TIE_WORDS), np.uint64)
        for position, digit in enumerate(prefix):
            words = words[digit_of(words, position) == digit]
        found.append(words)
    return found
