"""Comparison of two sets of rows in constant memory: hash sums by bucket, then rows of a bucket."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import isnan
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

BUCKETS = 1 << 14
"""Number of buckets; a differing row is searched among one bucket's rows only."""


class RowSums:
    """A multiset of rows as counts and hash sums by bucket, independent of the order of rows.

    Two different multisets agree with probability 2^-64.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BUCKETS, dtype=np.int64)
        self.totals = np.zeros(BUCKETS, dtype=np.uint64)

    @staticmethod
    def total(sums: Iterable[RowSums]) -> RowSums:
        """The sum of several RowSums."""
        total = RowSums()
        for some in sums:
            total.counts += some.counts
            total.totals += some.totals
        return total

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.counts.sum())

    def add(self, place: np.ndarray, columns: Iterable[np.ndarray]) -> None:
        """Adds rows: their places, which decide the buckets, and the words of their columns.

        All are uint64 of shape (N,).
        """
        bucket = buckets(place)
        mixed = mix(place)
        for words in columns:
            mixed = mix(mixed ^ words)
        self.counts += np.bincount(bucket, minlength=BUCKETS)
        np.add.at(self.totals, bucket, mixed)

    def first_difference(self, other: RowSums) -> int | None:
        """The first bucket in which two multisets differ; None if they are equal."""
        differs = (self.counts != other.counts) | (self.totals != other.totals)
        return int(np.argmax(differs)) if differs.any() else None


def buckets(place: np.ndarray) -> np.ndarray:
    """The bucket of each place, int64."""
    return (mix(place) % np.uint64(BUCKETS)).astype(np.int64)


def column_words(column: pa.ChunkedArray) -> np.ndarray:
    """One uint64 per row for a column of numbers, strings or lists of numbers; one for null."""
    array = column.combine_chunks()
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    null = array.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_string(array.type) or pa.types.is_large_string(array.type):
        words = _string_words(array.cast(pa.large_string()))
    elif pa.types.is_fixed_size_list(array.type):
        width = array.type.list_size
        words = _weighted(_numbers(array.fill_null([0] * width).flatten()).reshape(-1, width))
    elif pa.types.is_list(array.type):
        words = _list_words(array)
    else:
        words = _numbers(array)
    return np.where(null, np.uint64(0x9E3779B97F4A7C15), mix(words))


def _numbers(array: pa.Array) -> np.ndarray:
    """The bits of numbers as uint64; null as 0."""
    if array.null_count:
        array = pc.fill_null(array, 0)
    values = array.to_numpy(zero_copy_only=False)
    bits = np.dtype(f"u{values.dtype.itemsize}")
    return np.ascontiguousarray(values).view(bits).astype(np.uint64)


def _string_words(array: pa.Array) -> np.ndarray:
    """A hash of each string: the weighted sum of its bytes, and its length."""
    array = pc.fill_null(array, "")
    offsets = np.frombuffer(array.buffers()[1], np.int64)[
        array.offset : array.offset + len(array) + 1
    ]
    if len(offsets) == 0 or offsets[-1] == offsets[0]:
        return np.zeros(len(array), np.uint64)
    data = np.frombuffer(array.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return _sums_of_runs(data.astype(np.uint64) + np.uint64(1), np.diff(offsets))


def _list_words(array: pa.Array) -> np.ndarray:
    """A hash of each list: the weighted sum of its numbers and its length.

    A null in a list is hashed as a value that no number has.
    """
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy().astype(np.int64)
    values = array.flatten()
    null = values.is_null().to_numpy(zero_copy_only=False)
    return _sums_of_runs(mix(np.where(null, np.uint64(2**64 - 1), _numbers(values))), lengths)


def _sums_of_runs(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Sums of runs of uint64, values weighted by their place in the run, mixed with its length."""
    starts = np.cumsum(lengths) - lengths
    place = np.arange(len(values)) - np.repeat(starts, lengths)
    sums = np.zeros(len(lengths), np.uint64)
    np.add.at(
        sums, np.repeat(np.arange(len(lengths)), lengths), values * mix(place.astype(np.uint64))
    )
    return sums ^ lengths.astype(np.uint64)


def _weighted(values: np.ndarray) -> np.ndarray:
    """Sums of the rows of uint64 (N, W), each column multiplied by its own odd weight."""
    weights = mix(np.arange(values.shape[1], dtype=np.uint64)) | np.uint64(1)
    return (mix(values) * weights).sum(axis=1, dtype=np.uint64)


def first_different_row(
    due: Iterable[tuple[str, dict[str, Any]]],
    found: Iterable[tuple[str, dict[str, Any]]],
    columns: Sequence[str],
) -> str:
    """Description of the first row in which two sets of `rows_of_bucket` differ."""
    kept = Counter[int]()
    by_place: dict[int, dict[str, Any]] = {}
    for _, row in due:
        kept[row["place"]] += 1
        by_place[row["place"]] = row
    seen = Counter[int]()
    for where, row in found:
        name, place = f"{row['shard']} row {row['row']}", row["place"]
        seen[place] += 1
        if place not in by_place:
            return f"{where}: {name} is in the subset but the selection does not keep it"
        if seen[place] > kept[place]:
            return f"{where}: {name} is in the subset {_times(seen[place])}"
        for column in columns:
            if not _same(row[column], by_place[place][column]):
                return (
                    f"{where}: {column} of {name} is {row[column]!r}, its scores have "
                    f"{by_place[place][column]!r}"
                )
    for place, row in by_place.items():
        if seen[place] < kept[place]:
            return f"{row['shard']} row {row['row']} is kept by the selection but not in the subset"
    return "rows differ"


def _times(count: int) -> str:
    return "twice" if count == 2 else f"{count} times"


def _same(a: Any, b: Any) -> bool:
    both_nan = isinstance(a, float) and isinstance(b, float) and isnan(a) and isnan(b)
    return both_nan or a == b


def rows_of_bucket(
    tables: Iterable[tuple[str, pa.Table]], bucket: int
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of one bucket of tables with a column `place`, each with the file of its table."""
    for where, table in tables:
        here = buckets(table["place"].to_numpy()) == bucket
        if here.any():
            for row in table.filter(pa.array(here)).to_pylist():
                yield where, row


def mix(words: np.ndarray) -> np.ndarray:
    """splitmix64's finalizer (Steele, Lea, Flood 2014): spreads every input bit over 64 bits."""
    with np.errstate(over="ignore"):
        mixed = words.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
