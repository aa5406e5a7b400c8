"""Figures of agreement against plain definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dfn_ray.parity.agreement import agreement, floor_of, spearman

values = st.lists(st.integers(-3, 3).map(float), min_size=2, max_size=12)


@given(values, st.randoms())
def test_spearman_is_the_correlation_of_mean_ranks(a, random):
    b = random.sample(a, len(a))

    def ranks(x):
        return [np.mean([1 + sorted(x).index(v), len(x) - sorted(x)[::-1].index(v)]) for v in x]

    if len(set(a)) < 2:
        assert np.isnan(spearman(np.array(a), np.array(b)))
    else:
        expected = np.corrcoef(ranks(a), ranks(b))[0, 1]
        assert spearman(np.array(a), np.array(b)) == pytest.approx(expected)


def test_scores_on_one_side_only_are_counted_and_never_agree():
    here, there = np.array([0.1, np.nan, 0.3, np.nan]), np.array([0.1, 0.2, np.nan, np.nan])
    found = agreement(here, there, is_half=False, precision="fp32")
    assert (found.samples, found.only_recipe, found.only_reference, found.beyond) == (1, 1, 1, 2)
    assert not found.agrees


@given(st.floats(-1, 1))
def test_rounding_to_float16_is_always_below_its_floor(score):
    half = np.array([score]).astype(np.float16).astype(np.float64)
    floor = floor_of(half, is_half=True, precision="fp32")
    found = agreement(np.array([score]), half, is_half=True, precision="fp32")
    assert found.agrees
    assert floor[0] >= np.abs(half - score)[0]
    assert floor_of(half, is_half=False, precision="fp32")[0] == 1e-5
