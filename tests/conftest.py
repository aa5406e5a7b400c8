"""Shared fixtures, created on demand: a local Ray, an S3 server, a tiny network, a small pool."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import settings

# No example fails for being slow: a machine with other work on it is no fault of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

# Of every Ray that tests start, so that nobody else's driver comes in, and none of a user's files
# is needed.
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
# Ray's workers are of lower priority by default (nice 15): the tests beside them would get 97 % of
# a CPU that both want.
os.environ.setdefault("RAY_worker_niceness", "0")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Sorts tests that need Ray last: others fork, and a forking Ray driver may hang.

    Tests with their own cluster precede those that share the session's: a process has one Ray at a
    time.
    """
    for item in items:
        if "local_ray" in item.fixturenames and _scope_of(item.path) != "ray":
            raise pytest.UsageError(f"{item.nodeid}: uses Ray; mark it with pytest.mark.ray")
    items.sort(
        key=lambda item: (
            "local_ray" in item.fixturenames,
            item.get_closest_marker("ray") is not None,
        )
    )


def pytest_terminal_summary(terminalreporter, exitstatus, config):
    """Prints the seed of the order after a failure; -q hides pytest-randomly's own line."""
    seed = getattr(config.option, "randomly_seed", None)  # none with -p no:randomly
    if exitstatus and seed is not None:
        terminalreporter.write_line(f"--randomly-seed={seed}")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """With -n 3, assigns all files that share the session's Ray to one process.

    Those that start clusters of their own go to another one, the rest to any. The marks of
    pytest-xdist cannot be used: version 3.8 ignores them under pytest 9.2, and silently drops whole
    groups.
    """
    from xdist.scheduler import LoadScopeScheduling

    class RayInOneProcess(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _scope_of(config.rootpath / nodeid.partition("::")[0]) or nodeid

    return RayInOneProcess(config, log)


OWN_CLUSTERS = ("cluster", "jobs")
"""Folders of tests that start clusters of their own."""


@cache
def _scope_of(path: Path) -> str | None:
    """The process of a file's tests: ray, clusters, or None for any."""
    text = path.read_text()
    if "local_ray" not in text and "mark.ray" not in text:
        return None
    shares = "local_ray" in text or path.parent.name not in OWN_CLUSTERS
    return "ray" if shares else "clusters"


READ_TIMEOUT_S = 1
"""Short, so that injected stalls end soon."""


@pytest.fixture(scope="session")
def _s3(tmp_path_factory):
    """A real S3 server over HTTP behind a proxy that can inject faults.

    This process, and Ray if started later, find it as AWS's tools would.
    """
    import fsspec

    from dfn_ray.testing.s3_proxy import fault_proxy
    from dfn_ray.testing.s3_servers import serve_s3

    folder = tmp_path_factory.mktemp("s3")
    with serve_s3(folder, ["pools", "runs"]) as direct, fault_proxy(direct.endpoint) as proxy:
        server = replace(direct, endpoint=proxy.endpoint)
        settings = {"config_kwargs": {"read_timeout": READ_TIMEOUT_S}}
        variables = server.environment | {"FSSPEC_S3": json.dumps(settings)}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in variables.items():
                patch.setenv(name, value)
            # fsspec read the environment when it was imported; Ray's workers will do so.
            patch.setitem(fsspec.config.conf, "s3", settings)
            yield server, proxy


@pytest.fixture(scope="session")
def s3(_s3):
    """The S3 server: its folder, address and credentials."""
    return _s3[0]


@pytest.fixture
def proxy(_s3):
    """The proxy of the S3 server, for one test: set `proxy.faults`, read `proxy.counts`."""
    _, proxy = _s3
    proxy.reset()
    yield proxy
    proxy.reset()


@pytest.fixture
def fresh_s3():
    """S3 as in a new process: environment read, no request made yet."""
    from dfn_ray.storage.s3 import S3, _s3_of

    def forget():
        _s3_of.cache_clear()
        S3.clear_instance_cache()
        S3._served.clear()

    forget()
    yield forget
    forget()


@pytest.fixture(scope="session")
def _conditional_s3():
    """An S3 server that honours IfNoneMatch and IfMatch, behind its own fault proxy."""
    from dfn_ray.testing.s3_proxy import fault_proxy
    from dfn_ray.testing.s3_servers import serve_conditional_s3

    with serve_conditional_s3(["runs"]) as server, fault_proxy(server.endpoint) as proxy:
        yield replace(server, endpoint=proxy.endpoint), proxy


@pytest.fixture
def conditional_s3(_conditional_s3, fresh_s3, monkeypatch):
    """Makes s3:// refer to that server for a test; returns its proxy."""
    server, proxy = _conditional_s3
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    proxy.reset()
    yield proxy
    proxy.reset()


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
        runtime_env={"worker_process_setup_hook": "dfn_ray.testing.worker_setup.set_up"},
        _system_config={
            "metrics_report_interval_ms": 1000
        },  # 10 s is long for tests that read them
    )
    yield
    # On a daemon thread: Ray 2.60 asks its GCS to end a subscription without a time limit, and has
    # hung on that.
    ending = threading.Thread(target=ray.shutdown, daemon=True)
    ending.start()
    ending.join(15)


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> Path:
    from dfn_ray.testing.random_networks import save_tiny_network

    return save_tiny_network(tmp_path_factory.mktemp("network") / "tiny")


@pytest.fixture(scope="session")
def other_network(tmp_path_factory) -> Path:
    from dfn_ray.testing.random_networks import save_tiny_network

    return save_tiny_network(tmp_path_factory.mktemp("network") / "other", seed=1)


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Path:
    """6 shards of 50 good samples."""
    from dfn_ray.testing.sample_pools import write_pool

    return write_pool(tmp_path_factory.mktemp("pool"), shards=6, samples=50)


def _recipe(run: Path, pool: Path | str, network: Path, overrides: Sequence[str] = ()):
    from dfn_ray.config import recipe_from

    return recipe_from(
        {
            "run_uri": str(run),
            "pool": {"uri": [str(pool)], "chunk_rows": 16},
            "networks": [{"name": "dfn", "model": f"local-dir:{network}"}],
            "select": {"keep_fraction": 0.3},
            "scorers": {"threads": 1},
            "execution": {"chunks_per_part": 3},
        },
        overrides,
    )


@pytest.fixture
def recipe(tmp_path, network):
    """Makes recipes over a pool: `recipe(pool, "select.keep_fraction=0.3")`."""

    def make(pool: Path | str, *overrides: str, run: str = "run"):
        return _recipe(tmp_path / run, pool, network, overrides)

    return make


@pytest.fixture(scope="session")
def _finished(local_ray, tmp_path_factory, pool, network):
    from dfn_ray.filtering.filter_pool import filter_pool

    run = tmp_path_factory.mktemp("finished") / "run"
    filter_pool(_recipe(run, pool, network))
    return run


@pytest.fixture
def finished(_finished, recipe, pool):
    """The recipe of `recipe(pool)` with a copy of its finished run."""
    job = recipe(pool)
    shutil.copytree(_finished, job.run_uri)
    return job
