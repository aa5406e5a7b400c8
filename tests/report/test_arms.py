"""The picture of a comparison: bars as long as their means."""

from __future__ import annotations

import pytest

from dfn_ray.pipeline.comparison import compare_arms
from dfn_ray.report.arms import _DFN, _OTHER, draw_arms
from tests.report.test_picture import count_of, pixels


def comparison(dfn: float, pool: float, metrics: int = 1):
    """A comparison of two arms with one seed."""
    return compare_arms(
        {
            arm: {0: {f"set, metric {number}": value for number in range(metrics)}}
            for arm, value in (("dfn", dfn), ("pool", pool))
        },
        network=None,
    )


@pytest.mark.parametrize(("dfn", "pool"), [(0.8, 0.2), (0.3, 0.6)])
def test_the_length_of_a_bar_is_the_mean_of_its_arm(dfn, pool):
    data = draw_arms(comparison(dfn, pool))
    assert count_of(_DFN, data) / count_of(_OTHER, data) == pytest.approx(dfn / pool, rel=0.05)


def test_each_metric_has_a_panel():
    one, two = [pixels(draw_arms(comparison(0.5, 0.4, metrics))) for metrics in (1, 2)]
    assert two.shape[1] == pytest.approx(2 * one.shape[1], abs=2)
