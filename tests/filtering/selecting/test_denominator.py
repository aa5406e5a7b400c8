"""N of keep_fraction is the same from the counts of a ledger and from the rows of the scores."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.config import Select
from dfn_ray.filtering.selecting.denominator import denominator, in_denominator
from dfn_ray.schema import Reason, Status, status_key

OUTCOMES = [(Status.SCORED, None), *((reason.status, reason) for reason in Reason)]
COUNTED = {
    "pool": {Status.SCORED, Status.REJECTED, Status.FAILED},
    "readable": {Status.SCORED, Status.REJECTED},
    "scored": {Status.SCORED},
}


@pytest.mark.parametrize("of", COUNTED)
@given(st.lists(st.sampled_from(OUTCOMES), max_size=30))
def test_counts_and_rows_yield_the_same_number(of, outcomes):
    select = Select(keep_fraction=0.5, of=of)
    counts = Counter(status_key(status, reason) for status, reason in outcomes)
    column = pa.array([status.value for status, _ in outcomes], pa.string())
    n = sum(status in COUNTED[of] for status, _ in outcomes)
    assert denominator(counts, select) == n
    assert (pc.sum(in_denominator(column, select)).as_py() or 0) == n
