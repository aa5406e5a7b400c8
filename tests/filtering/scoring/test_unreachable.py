"""Shards that a web server rejects: the run stops, or skips them if the recipe allows it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfn_ray.errors import ErrorLimitExceededError, StorageError
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.run import open_run, part_names, read_parts
from dfn_ray.testing.http_server import Fault, serve_http
from dfn_ray.testing.sample_pools import TarBuilder, write_pool
from tests.filtering.damaged import encoded

pytestmark = pytest.mark.ray

REFUSED = "00001.tar"
ONCE = (
    "execution.rounds=1",
    "scorers.max_size=1",
    "select.keep_fraction=none",
    "select.threshold=-1.0",
)
"""Settings without calibration, which would be a round of its own."""


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, bytes]:
    """4 shards of 20 good samples."""
    folder = write_pool(tmp_path_factory.mktemp("files"), shards=4, samples=20)
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def server(files):
    with serve_http(files) as server:
        yield server


@pytest.fixture
def web_recipe(server, recipe):
    """Makes recipes over the server's shards that try each shard once and keep every sample."""

    def make(*overrides: str):
        pool = server.uri("{00000..00003}.tar")
        return recipe(pool, *ONCE, *overrides)

    return make


def committed(run_uri: str) -> dict[str, int]:
    """Rows of committed chunks by name of their shard."""
    store = open_run(run_uri).store
    rows: dict[str, int] = {}
    for part in read_parts(store, part_names(store)):
        for chunk in part.chunks:
            name = chunk.shard.rpartition("/")[2]
            rows[name] = rows.get(name, 0) + chunk.rows
    return rows


@pytest.mark.parametrize(
    "fault",
    [
        Fault.STATUS_403,
        # 10 requests with waits of up to 20 s between them
        pytest.param(Fault.STATUS_500, marks=pytest.mark.slow),
    ],
)
def test_a_shard_that_its_server_refuses_stops_the_run_which_goes_on_when_it_is_given(
    local_ray, server, web_recipe, fault
):
    job = web_recipe()
    server.plan(fault, only=REFUSED)
    with pytest.raises(StorageError) as stopped:
        filter_pool(job)
    assert (type(stopped.value), stopped.value.exit_code) == (StorageError, 1)
    said = str(stopped.value)
    unread = "1 of 4 shards could not be read, with execution.rounds = 1"
    assert f"{unread} ({server.uri(REFUSED)}): " in said
    assert fault.value in said
    assert "set execution.give_up_unreachable = true to finish without these" in said
    assert committed(job.run_uri) == {"00000.tar": 20, "00002.tar": 20, "00003.tar": 20}
    assert not (Path(job.run_uri) / "selection.json").exists()

    parts = {path: path.read_bytes() for path in Path(job.run_uri).glob("scores/*.parquet")}
    server.recover()
    value = filter_pool(job)
    assert (value["counts"], value["faults"]) == ({"scored": 80}, {})
    assert {path: path.read_bytes() for path in parts} == parts
    assert verify_run(job.run_uri, full=True)["compared"] == 80


def test_a_shard_that_is_given_up_counts_as_bad_and_stays_given_up(local_ray, server, web_recipe):
    give_up = "execution.give_up_unreachable=true"
    server.plan(Fault.STATUS_403, only=REFUSED)
    with pytest.raises(
        ErrorLimitExceededError, match=r"1 of 4 shards are bad.*unreachable_shard.*allows 20%"
    ):
        filter_pool(web_recipe(give_up, "execution.max_bad_shard_fraction=0.2"))

    job = web_recipe(give_up)
    value = filter_pool(job)
    ((shard, (fault, detail)),) = value["faults"].items()
    assert (shard, fault) == (server.uri(REFUSED), "unreachable_shard")
    assert "403 Forbidden" in detail
    assert (value["counts"], value["k"]) == ({"scored": 60}, 60)
    counted = verify_run(job.run_uri, full=True)
    assert (counted["shards"], counted["compared"]) == (4, 60)

    server.recover()
    assert filter_pool(job) == value


@pytest.mark.slow
def test_what_was_read_of_a_shard_before_it_was_refused_is_kept_when_it_is_given_up(
    local_ray, server, web_recipe
):
    noise = np.random.default_rng(0).integers(0, 255, (600, 600, 3), dtype=np.uint8)
    image = encoded(Image.fromarray(noise), "JPEG", quality=95)
    tar = TarBuilder()
    for number in range(40):
        tar.sample(f"{number:03d}", image=image, caption=f"noise {number}")
    server.files[REFUSED] = tar.getvalue()
    server.plan(Fault.STATUS_403, only=REFUSED, from_byte=8 * 2**20)
    job = web_recipe("execution.give_up_unreachable=true")
    value = filter_pool(job)
    rows = committed(job.run_uri)[REFUSED]
    assert rows in (16, 32)  # whole chunks
    assert value["counts"] == {"scored": 60 + rows}
    assert [fault for fault, _ in value["faults"].values()] == ["unreachable_shard"]
    verify_run(job.run_uri, full=True)
