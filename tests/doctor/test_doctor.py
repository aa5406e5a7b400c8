"""Every finding is provoked once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dfn_ray.cli import run
from dfn_ray.config import recipe_values
from dfn_ray.doctor.doctor import doctor, examine
from dfn_ray.doctor.node_facts import (
    node_findings,
    query_nodes,
    shared_finding,
    thread_finding,
    version_finding,
)
from dfn_ray.doctor.object_store import InFlight, in_flight, memory_findings
from dfn_ray.doctor.one_batch import device_findings
from dfn_ray.dry_run.finding import Finding
from dfn_ray.errors import NotReadyError
from dfn_ray.on_ray.nodes import alive_nodes
from dfn_ray.pool import inspect_pool
from dfn_ray.resolving.fetch_networks import fetch_networks
from dfn_ray.testing.sample_pools import TarBuilder, jpeg_bytes

pytestmark = pytest.mark.ray

OF_THIS_MACHINE = {"open files", "/dev/shm", "spill disk"}
"""Independent of the recipe: the machine that runs the tests may really fail them."""


NAMES = ("samples", "uids", "network dfn", "permissions", "scorers", "threads")


def wrong(findings: list[Finding]) -> dict[str, str]:
    return {f.name: f.text for f in findings if not f.ok and f.name not in OF_THIS_MACHINE}


@pytest.fixture(scope="module")
def broken_pool(tmp_path_factory) -> Path:
    """2 shards; half of the samples have no caption or no image; some have a uid, others none."""
    folder = tmp_path_factory.mktemp("broken")
    for shard in range(2):
        tar = TarBuilder()
        for n in range(20):
            own = {"uid": f"{shard:016x}{n:016x}"} if n % 4 == 0 else None
            tar.sample(
                f"{n:03d}",
                image=jpeg_bytes() if n % 4 < 3 else b"<html>gone</html>",
                caption="grey" if n % 4 != 1 else "",
                metadata=own,
            )
        (folder / f"{shard}.tar").write_bytes(tar.getvalue())
    return folder


@pytest.fixture(scope="module")
def facts(local_ray):
    found, failures = query_nodes(alive_nodes(), "s3://runs/facts/run", None, None)
    assert failures == {}
    return found


def test_a_recipe_that_is_ready_gets_ok_for_every_check_and_nothing_is_written(
    local_ray, recipe, pool
):
    ready = recipe(pool)
    findings = list(examine(ready))
    assert wrong(findings) == {}
    printed = {finding.name: finding.text for finding in findings}
    assert "6 shards" in printed["pool"]
    assert "96 samples, 96 readable; about" in printed["samples"]
    assert "stored with the samples" in printed["uids"]
    assert "a batch of 16 takes" in printed["device"]
    assert {"captions", "network dfn", "run", "permissions", "nodes", "versions", "threads",
            "clocks", "pool on nodes", "run_uri", "decode tasks", "scorers", "object store",
            *OF_THIS_MACHINE} <= set(printed)  # fmt: skip
    assert not Path(ready.run_uri).exists()


def test_every_mistake_is_found_in_one_go(local_ray, recipe, broken_pool):
    mistaken = recipe(
        broken_pool,
        "run_uri=s3://no-such-bucket/run",
        "networks.0.model=local-dir:/no/such/network",
        "scorers.gpus=9",
        "scorers.threads=4096",
    )
    reported: list[Finding] = []
    with pytest.raises(NotReadyError, match="things to change"):
        doctor(mistaken, report=reported.append)
    printed = [finding.printed() for finding in reported]
    assert all(line.startswith(("ok      ", "CHANGE  ")) for line in printed)
    changes = " ".join(" ".join(printed).split()).split("CHANGE ")[1:]
    found = {name: text for text in changes for name in NAMES if text.startswith(name)}
    assert "50.0% failed" in found["samples"]
    assert "max_failed_fraction = 25%" in found["samples"]
    assert "uid lists would contain both kinds" in found["uids"]
    assert "/no/such/network" in found["network dfn"]
    assert "no-such-bucket" in found["permissions"]
    assert "needs 9 GPU: no node has that" in found["scorers"]
    assert "4096 threads: no node has that many" in found["threads"]


def test_rights_are_checked_from_the_driver_and_from_a_worker(
    local_ray, s3, recipe, pool, seen_by_driver
):
    there = recipe(pool, "run_uri=s3://runs/rights/run", "networks.0.model=local-dir:/none")
    seen_by_driver(replace(s3, secret="not-the-secret"))
    found = [finding for finding in examine(there) if finding.name == "permissions"]
    assert [finding.ok for finding in found] == [False, True]
    assert found[0].text.startswith("from the driver: s3://runs/rights/run")
    assert found[1].text.startswith("from a node of 4 CPU, 2 GPU")


def test_an_absent_device_is_reported(local_ray, recipe, pool):
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    asking = recipe(pool, "scorers.device=cuda", "scorers.gpus=1")
    (found,) = device_findings(asking, fetch_networks(asking), alive_nodes())
    assert not found.ok
    assert "finds no CUDA device" in found.text


def test_an_object_store_that_is_too_small_is_reported_with_the_required_size(facts, recipe, pool):
    large = recipe(pool, "pool.chunk_rows=65536")
    flight = in_flight(large, fetch_networks(large), inspect_pool(large.pool))
    found = wrong(list(memory_findings(large, flight, facts)))
    assert "--object-store-memory=" in found["object store"]
    assert wrong(list(memory_findings(large, InFlight(1, 1, 1), facts))) == {}


def test_nodes_that_differ_are_named(facts, recipe, pool):
    (good,) = facts
    other = replace(
        good,
        node=replace(good.node, host="other"),
        versions={**good.versions, "torch": "2.0.0"},
        skew_s=1200.0,
        open_files=1024,
        sees_probe=False,
        pool="s3://pools/0.tar: no permission to open it",
    )
    assert version_finding([good]).ok
    found = wrong(
        list(node_findings(recipe(pool), [replace(good, sees_probe=True), other], tries_pool=True))
    )
    assert "other: torch 2.0.0 (driver" in found["versions"]
    assert "off by 1,200 s" in found["clocks"]
    assert "use object storage" in found["run_uri"]
    assert "no permission to open it" in found["pool on nodes"]
    low = [
        f for f in node_findings(recipe(pool), [other], tries_pool=False) if f.name == "open files"
    ]
    assert "limit is 1,024" in low[0].text
    assert shared_finding(recipe(pool), [replace(good, sees_probe=True)]).ok


def test_scorers_with_more_threads_than_cpus_are_reported(facts, recipe, pool):
    crowd = recipe(pool, "scorers.threads=1", "scorers.min_size=9999", "scorers.max_size=9999")
    assert "more than the CPUs of the cluster" in thread_finding(crowd, facts).text


def test_the_verb_exits_1_when_something_is_to_change_and_2_when_the_recipe_is_wrong(
    local_ray, recipe, tmp_path, capsys
):
    values = recipe_values(recipe(tmp_path / "nothing", "networks.0.model=local-dir:/none"))
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'run_uri = "{values["run_uri"]}"\npool = {{uri = "{tmp_path}/nothing"}}\n'
        '[[networks]]\nmodel = "local-dir:/none"\n'
    )
    assert run(["doctor", str(path)]) == 1
    said = capsys.readouterr()
    assert "CHANGE  pool" in said.out
    assert "2 things to change" in said.err
    assert run(["doctor", str(path), "--set", "pool.x=1"]) == 2
