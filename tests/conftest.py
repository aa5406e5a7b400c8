"""What all tests share: one local Ray for the session, started when the first test asks for it."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "token")


@pytest.fixture(scope="session")
def local_ray():
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
    )
    yield
    ray.shutdown()
