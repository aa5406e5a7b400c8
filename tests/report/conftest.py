"""Finished runs made without Ray and networks, on a pool of 100 samples."""

from __future__ import annotations

import pytest

from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import filter_without_ray, recipe_of

SHARDS, SAMPLES = 4, 25
BOTH = ("dfn", "against")
"""Networks with opposite scores."""


@pytest.fixture(scope="module")
def hundred(tmp_path_factory):
    return write_pool(tmp_path_factory.mktemp("pool"), shards=SHARDS, samples=SAMPLES)


@pytest.fixture
def made(tmp_path, hundred):
    """Makes a finished run; returns its recipe."""

    def make(name, keep_fraction=0.3, **networks):
        recipe = recipe_of(tmp_path / name, hundred, keep_fraction, **networks)
        filter_without_ray(recipe, part_chunks=5)
        return recipe

    return make
