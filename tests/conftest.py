"""What all tests share, made when first asked for: one local Ray, one S3 server, a tiny network, a small pool."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "token")


def pytest_collection_modifyitems(items):
    """Tests that need Ray come last: some others fork, and a Ray driver that forks may wait for ever for its cluster.

    Those with a cluster of their own come before those that share the session's: a process has one Ray at a time.
    """
    items.sort(
        key=lambda item: (
            "local_ray" in item.fixturenames,
            item.get_closest_marker("ray") is not None,
        )
    )


@pytest.fixture(scope="session")
def s3(tmp_path_factory):
    """A real S3 server over HTTP; this process, and Ray if started later, find it as AWS's tools would."""
    from dfn_ray.testing.s3 import serve_s3

    with serve_s3(tmp_path_factory.mktemp("s3"), ["pools", "runs"]) as server:
        before = {name: os.environ.get(name) for name in server.environment}
        os.environ.update(server.environment)
        yield server
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@pytest.fixture(scope="session")
def local_ray(s3):
    """A Ray on this machine with logical CPUs and GPUs; starting one costs about 8 s."""
    import ray

    ray.init(
        address="local",
        num_cpus=4,
        num_gpus=2,
        include_dashboard=False,
        object_store_memory=400 * 2**20,
        log_to_driver=False,
        _temp_dir="/tmp/dfn_ray-tests",
        runtime_env={"worker_process_setup_hook": "dfn_ray.testing.lethal.arm"},
        _system_config={
            "metrics_report_interval_ms": 1000
        },  # 10 s is long for tests that read them
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> Path:
    from dfn_ray.testing.networks import save_tiny_network

    return save_tiny_network(tmp_path_factory.mktemp("network") / "tiny")


@pytest.fixture(scope="session")
def other_network(tmp_path_factory) -> Path:
    from dfn_ray.testing.networks import save_tiny_network

    return save_tiny_network(tmp_path_factory.mktemp("network") / "other", seed=1)


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Path:
    """6 shards of 50 good samples."""
    from dfn_ray.testing.pools import write_pool

    return write_pool(tmp_path_factory.mktemp("pool"), shards=6, samples=50)


@pytest.fixture
def recipe(tmp_path, network):
    """Makes recipes over a pool: `recipe(pool, "select.keep_fraction=0.3")`."""

    from dfn_ray.config import recipe_from

    def make(pool: Path | str, *overrides: str, run: str = "run"):
        return recipe_from(
            {
                "run_uri": str(tmp_path / run),
                "pool": {"uri": [str(pool)], "chunk_rows": 16},
                "networks": [{"name": "dfn", "model": f"local-dir:{network}"}],
                "select": {"keep_fraction": 0.3},
                "scorers": {"threads": 1},
                "execution": {"chunks_per_part": 3},
            },
            overrides,
        )

    return make
