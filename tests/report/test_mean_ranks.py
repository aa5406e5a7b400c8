"""Ranks against their plain definition, for both uses: comparisons of runs, and parity."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.parity import agreement
from dfn_ray.report import compare
from dfn_ray.report.mean_ranks import mean_ranks


@given(st.lists(st.integers(-3, 3).map(float), max_size=12))
def test_a_rank_is_the_number_of_smaller_values_and_half_the_number_of_equal_ones(values):
    expected = [
        sum(other < value for other in values) + (values.count(value) - 1) / 2 for value in values
    ]
    assert mean_ranks(np.array(values)).tolist() == expected


def test_comparisons_and_parity_share_one_definition():
    assert agreement.mean_ranks is compare.mean_ranks is mean_ranks
