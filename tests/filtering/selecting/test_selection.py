"""Exact selection against plain numpy: ties, NaN, signed zeros, infinities, any grouping, any k."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfn_ray.filtering.selecting import exact_k as module
from dfn_ray.filtering.selecting.exact_k import (
    key_score,
    score_key,
    select_best,
    select_best_each,
    select_threshold,
)
from dfn_ray.uids.records import UID_DTYPE

HEAVY = np.array([0.1, 0.2, 0.25, -0.0, 0.0, -0.3, np.nan, np.inf, -np.inf], dtype=np.float32)


def rows(score, uid_high, uid_low, shard, row):
    uid = np.empty(len(score), UID_DTYPE)
    uid["f0"], uid["f1"] = uid_high, uid_low
    return {
        "score": np.asarray(score, np.float32),
        "uid": uid,
        "shard": np.asarray(shard, np.int64),
        "row": np.asarray(row, np.int64),
    }


def parts(table, cuts):
    edges = [0, *sorted(cuts), len(table["score"])]
    return [
        {name: values[a:b] for name, values in table.items()} for a, b in itertools.pairwise(edges)
    ]


def by_sorting(table, k):
    """The independent reference: one stable sort in memory."""
    score = table["score"] + np.float32(0)
    scored = np.flatnonzero(~np.isnan(score))
    order = scored[
        np.lexsort(
            (
                table["row"][scored],
                table["shard"][scored],
                table["uid"]["f1"][scored],
                table["uid"]["f0"][scored],
                -score[scored],
            )
        )
    ]
    mask = np.zeros(len(score), bool)
    mask[order[:k]] = True
    return mask


@st.composite
def tables(draw):
    count = draw(st.integers(0, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    spread = draw(st.sampled_from([1, 3, 2**63]))
    scores = rng.choice(HEAVY, count) if draw(st.booleans()) else rng.normal(size=count)
    return rows(
        scores,
        rng.integers(0, spread, count, dtype=np.uint64),
        rng.integers(0, spread, count, dtype=np.uint64),
        rng.integers(0, 3, count),
        rng.permutation(count),
    )


@given(tables(), st.integers(0, 70), st.lists(st.integers(0, 60), max_size=4), st.booleans())
@settings(max_examples=300, deadline=None)
def test_select_best_keeps_what_a_sort_keeps(table, k, cuts, tiny_collect):
    cuts = [min(cut, len(table["score"])) for cut in cuts]
    before = module.COLLECT_ROWS
    module.COLLECT_ROWS = 1 if tiny_collect else before
    try:
        selection = select_best(lambda: parts(table, cuts), k)
    finally:
        module.COLLECT_ROWS = before
    kept = np.concatenate([selection.keeps(part) for part in parts(table, cuts)])
    expected = by_sorting(table, k)
    assert kept.tolist() == expected.tolist()
    assert selection.k == expected.sum()


@given(tables(), st.lists(st.integers(0, 70), max_size=6), st.booleans())
@settings(max_examples=200, deadline=None)
def test_several_k_at_once_are_what_each_is_alone_in_as_many_passes_as_one(table, counts, tiny):
    before = module.COLLECT_ROWS
    module.COLLECT_ROWS = 1 if tiny else before
    passes: list[int] = []

    def source():
        passes.append(0)
        return parts(table, [7, 20])

    try:
        together = select_best_each(source, counts)
        together_passes = len(passes)
        alone, most = [], 1
        for k in counts:
            passes.clear()
            alone.append(select_best(source, k))
            most = max(most, len(passes))
    finally:
        module.COLLECT_ROWS = before
    assert together == alone
    assert together_passes == most


def in_slices(table, cuts):
    """A MapSlices of a table cut into slices of one part each; it counts its passes."""
    passes: list[int] = []

    def map_slices(find, read=None):
        passes.append(0)
        for part in parts(table, cuts):
            yield find(map(read, [part]) if read else [part])

    return map_slices, passes


def unread():
    raise AssertionError("the source was read although the rows come in slices")


CUTS = st.lists(st.integers(0, 60), max_size=4)


@given(tables(), st.sampled_from([-1.0, -0.3, 0.0, 0.1, 0.25, 1.0]), CUTS, st.booleans())
@settings(max_examples=200, deadline=None)
def test_select_threshold_keeps_every_score_at_or_above_it(table, threshold, cuts, sliced):
    cuts = [min(cut, len(table["score"])) for cut in cuts]
    map_slices, _ = in_slices(table, cuts)
    selection = (
        select_threshold(unread, threshold, map_slices)
        if sliced
        else select_threshold(lambda: parts(table, cuts), threshold)
    )
    expected = table["score"] >= np.float32(threshold)
    assert selection.keeps(table).tolist() == expected.tolist()
    assert selection.k == expected.sum()
    require_counts(selection, table)


@given(tables(), st.integers(0, 70), CUTS)
@settings(max_examples=200, deadline=None)
def test_rows_in_slices_give_the_selection_of_all_rows(table, k, cuts):
    cuts = [min(cut, len(table["score"])) for cut in cuts]
    map_slices, passes = in_slices(table, cuts)
    selection = select_best(unread, k, map_slices)
    assert selection == select_best(lambda: [table], k)
    assert passes
    require_counts(selection, table)


def require_counts(selection, table):
    """The numbers of rows at and above the threshold; zero when nothing is kept."""
    scores = table["score"][~np.isnan(table["score"])]
    threshold = np.inf if selection.k == 0 else selection.threshold
    kept = selection.k > 0
    assert (selection.above, selection.at) == (
        (scores > threshold).sum() * kept,
        (scores == threshold).sum() * kept,
    )
    if kept:
        assert threshold == scores[selection.keeps(table)[~np.isnan(table["score"])]].min()


def test_ties_are_broken_only_when_some_of_them_are_left_out():
    table = rows([0.5, 0.5, 0.7], [3, 2, 1], [0] * 3, [0] * 3, [0, 1, 2])
    assert select_best(lambda: [table], 3).last_tie is None
    assert select_best(lambda: [table], 2).last_tie == (2, 0, 0, 1)


def test_nan_has_the_lowest_key_and_scores_of_another_type_are_compared_in_float32():
    assert score_key(np.array([np.nan, -np.inf], np.float32)).tolist()[0] == 0
    double = np.array([0.1, 0.3])
    assert score_key(double).tolist() == score_key(double.astype(np.float32)).tolist()


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=50))
def test_keys_are_in_the_order_of_scores_and_give_them_back(values):
    score = np.array(values, dtype=np.float32)
    key = score_key(score).astype(np.int64)
    assert ((key[:, None] < key[None]) == (score[:, None] < score[None])).all()
    assert [key_score(int(k)) for k in key] == score.tolist()


def test_nan_is_never_kept_even_when_everything_is_wanted():
    table = rows([np.nan, 0.5, np.nan], [1, 2, 3], [0, 0, 0], [0, 0, 0], [0, 1, 2])
    selection = select_best(lambda: [table], 3)
    assert selection.keeps(table).tolist() == [False, True, False]
    assert selection.k == 1


def test_ties_go_by_uid_then_shard_then_row():
    table = rows([0.5] * 4, [7, 1, 1, 1], [0, 5, 5, 5], [0, 2, 1, 1], [0, 0, 9, 3])
    kept = [np.flatnonzero(select_best(lambda: [table], k).keeps(table)).tolist() for k in range(5)]
    assert kept == [[], [3], [2, 3], [1, 2, 3], [0, 1, 2, 3]]


@pytest.mark.slow
def test_ten_million_scores_with_heavy_ties_give_the_set_of_a_sort():
    rng = np.random.default_rng(0)
    count, k = 10_000_000, 1_500_000
    score = np.round(rng.normal(size=count), 2).astype(np.float32)
    score[:1000:2], score[1:1000:2] = np.nan, np.inf
    score[1000:2000] = -np.inf
    score[2000:3000:2], score[2001:3000:2] = 0.0, -0.0
    table = rows(
        score,
        rng.integers(0, 2**63, count, dtype=np.uint64),
        rng.integers(0, 2**63, count, dtype=np.uint64),
        rng.integers(0, 1000, count),
        np.arange(count),
    )
    selection = select_best(lambda: parts(table, range(0, count, 700_001)), k)
    assert selection.at - (k - selection.above) > 0, "the cut must fall inside a tie"
    assert (selection.keeps(table) == by_sorting(table, k)).all()


class Generated:
    """Generates any number of rows, 2^16 at a time: more than fit in memory."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self) -> Iterator[dict[str, np.ndarray]]:
        for start in range(0, self.count, 1 << 16):
            number = np.arange(start, min(self.count, start + (1 << 16)), dtype=np.uint64)
            mixed = number * np.uint64(0x9E3779B97F4A7C15)
            yield rows(
                (mixed >> np.uint64(54)).astype(np.float32) / 1024,
                mixed,
                number,
                np.zeros(len(number)),
                number.astype(np.int64),
            )


@pytest.mark.slow
def test_memory_is_flat_from_a_million_to_a_hundred_million_rows():
    peaks = []
    for count in (1_000_000, 100_000_000):
        tracemalloc.start()
        selection = select_best(Generated(count), count // 7)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert selection.k == count // 7
    assert peaks[1] < 1.5 * peaks[0] + 2**20
