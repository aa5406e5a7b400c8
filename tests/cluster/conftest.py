"""Recipes and observers for tests on clusters of several nodes, which take minutes.

    pytest -m cluster tests/cluster

Without `-m`, only tests without the marker run.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray

from dfn_ray.config import recipe_from
from dfn_ray.testing.clusters import ROLE
from dfn_ray.testing.sample_pools import write_pool
from dfn_ray.testing.slow_work import NOTES


def pytest_collection_modifyitems(config, items):
    if not config.option.markexpr:
        long = [item for item in items if item.get_closest_marker("cluster")]
        config.hook.pytest_deselected(items=long)
        items[:] = [item for item in items if item not in long]


@contextmanager
def connected(address: str, notes: Path):
    """This process as a driver of the cluster; its workers may leave notes."""
    environment = {"env_vars": {NOTES: str(notes)}}
    ray.init(address=address, log_to_driver=False, runtime_env=environment)
    try:
        yield
    finally:
        ray.shutdown()


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Path:
    """768 good samples in 48 chunks, two to a shard."""
    return write_pool(tmp_path_factory.mktemp("pool"), shards=24, samples=32)


@pytest.fixture(scope="session")
def recipe(network, pool):
    """Makes recipes that decode on nodes of one role and score, a GPU each, on those of another."""

    def make(run: Path, *overrides: str):
        return recipe_from(
            {
                "run_uri": str(run),
                "pool": {"uri": [str(pool)], "chunk_rows": 16},
                "networks": [{"model": f"local-dir:{network}"}],
                "select": {"keep_fraction": 0.3},
                "decode": {"placement": "apart", "labels": {ROLE: "decode"}},
                "scorers": {"threads": 1, "gpus": 1, "max_size": 2, "labels": {ROLE: "score"}},
                "calibration": {"shards": 2, "samples": 64},
                # Ray's own stalls after a lost node, rare ones, end as a user's would, but sooner.
                "execution": {"chunks_per_part": 2, "stall_timeout_s": 90},
            },
            overrides,
        )

    return make


def parts_of(recipe) -> int:
    """The number of parts that a run has committed."""
    return len(list(Path(recipe.run_uri).glob("scores/part-*.parquet")))


def say(text: str) -> None:
    """Prints a line with the time of day, visible with -s."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()
