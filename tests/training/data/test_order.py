"""The order of samples is a pure function."""

from __future__ import annotations

from collections import Counter
from itertools import islice, takewhile

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.training.data.order import shuffled_groups

chunk_sizes = st.lists(st.integers(0, 40), min_size=1, max_size=12).filter(any)


def plan(samples, weights=None, group_samples=50, seed=0):
    counts = [np.array(some) for some in samples]
    return shuffled_groups(counts, weights, group_samples=group_samples, seed=seed)


@given(st.lists(chunk_sizes, min_size=1, max_size=3), st.integers(1, 200), st.integers(0, 5))
def test_each_pass_over_a_source_has_each_of_its_chunks_once(samples, group_samples, seed):
    groups = list(islice(plan(samples, None, group_samples, seed), 60))
    for source, counts in enumerate(samples):
        used = sorted(number for number, count in enumerate(counts) if count)
        taken = [p for group in groups for p in group.chunks if p.source == source]
        turns = Counter(p.turn for p in taken)
        for turn in turns:
            numbers = sorted(p.number for p in taken if p.turn == turn)
            whole = turn + 1 in turns
            assert numbers == used if whole else len(set(numbers)) == len(numbers)
        assert all(p.samples == counts[p.number] for p in taken)


@given(st.lists(chunk_sizes, min_size=1, max_size=3), st.integers(1, 200))
def test_no_sample_comes_twice_in_a_group(samples, group_samples):
    for group in islice(plan(samples, None, group_samples), 60):
        chunks = [(p.source, p.number) for p in group.chunks]
        assert len(set(chunks)) == len(chunks)


@given(st.lists(st.floats(0.05, 1), min_size=2, max_size=4))
def test_sources_keep_their_weights_to_within_a_chunk(weights):
    samples = [[20] * 10 for _ in weights]
    taken = Counter()
    for group in islice(plan(samples, weights), 300):
        for piece in group.chunks:
            taken[piece.source] += piece.samples
    total = sum(taken.values())
    for source, weight in enumerate(weights):
        # Where every source is ahead of or behind its share by at most a chunk, so is each by a
        # few.
        assert abs(taken[source] - total * weight / sum(weights)) <= 20 * len(weights)


def test_sources_without_weights_come_in_proportion_to_their_size():
    taken = Counter()
    for group in islice(plan([[10] * 30, [10] * 10]), 200):
        for piece in group.chunks:
            taken[piece.source] += piece.samples
    assert 2.9 < taken[0] / taken[1] < 3.1


def test_the_order_is_new_in_each_pass_and_with_each_seed_and_repeats_with_the_seed():
    def order(seed, turn):
        groups = takewhile(lambda g: g.chunks[0].turn <= turn, plan([[5] * 40], seed=seed))
        return [p.number for group in groups for p in group.chunks if p.turn == turn]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(2, 0)
    assert order(1, 0) != order(1, 1)


def test_a_group_ends_where_a_pass_ends():
    groups = list(islice(plan([[10] * 7], group_samples=40), 6))
    assert [group.samples for group in groups] == [40, 30] * 3
