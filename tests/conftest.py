"""What all tests share: one local Ray and one S3 server for the session, started when first asked for."""

from __future__ import annotations

import os

import pytest

os.environ.setdefault("RAY_AUTH_MODE", "token")


def pytest_collection_modifyitems(items):
    """Tests that need Ray come last: some others fork, and a Ray driver that forks may wait for ever for its cluster."""
    items.sort(key=lambda item: "local_ray" in item.fixturenames)


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
