"""The samples that were seen."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.training.data.seen import Seen, merge_spans, unseen

spans = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 30), st.integers(1, 6)).map(
        lambda t: (t[0], t[1], t[1] + t[2])
    ),
    max_size=20,
)


def places(span_list) -> set[tuple[int, int]]:
    return {(group, at) for group, first, end in span_list for at in range(first, end)}


@given(spans, spans)
def test_the_union_holds_each_place_that_was_noted_and_no_other(first, second):
    seen = Seen()
    for some in (first, second):
        seen = seen.with_spans(np.array(some, dtype=np.int64).reshape(-1, 3), closed=0)
    left = {group: unseen(40, seen.of_group(group) or ()) for group in range(5)}
    found = {(group, at) for group, mask in left.items() for at in range(40) if not mask[at]}
    assert found == places(first) | places(second)


@given(spans, st.integers(0, 5))
def test_groups_that_all_have_left_behind_are_seen_whole(some, closed):
    seen = Seen().with_spans(np.array(some, dtype=np.int64).reshape(-1, 3), closed=closed)
    assert all(seen.of_group(group) is None for group in range(closed))
    assert all(group >= closed for group in seen.spans)


@given(spans)
def test_it_comes_back_from_json(some):
    seen = Seen().with_spans(np.array(some, dtype=np.int64).reshape(-1, 3), closed=1)
    assert Seen.from_json(seen.to_json()) == seen


def test_spans_that_touch_become_one_and_others_stay():
    given_ = np.array([(1, 5, 7), (0, 0, 2), (0, 2, 5), (1, 0, 3)])
    assert merge_spans(given_).tolist() == [[0, 0, 5], [1, 0, 3], [1, 5, 7]]
