"""A driver's storage settings reach a node that was set up without them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dfn_ray.testing.clusters import DECODE_NODE, ROLE, local_cluster
from tests.cluster.conftest import connected

pytestmark = pytest.mark.ray

SAID = {
    "AWS_ENDPOINT_URL": "http://store.example:9000",
    "AWS_DEFAULT_REGION": "eu-north-1",
    "FSSPEC_S3_REQUESTER_PAYS": "true",
}
UNSAID = {
    "AWS_ACCESS_KEY_ID": "not-for-others",
    "AWS_SECRET_ACCESS_KEY": "not-for-others",
    "AWS_SESSION_TOKEN": "not-for-others",
    "AWS_ENDPOINT_URL_S3": "http://key:not-for-others@store.example:9000",
}
DRIVER = f"""
import json, os, ray
from dfn_ray.on_ray.session import connect

@ray.remote(label_selector={{{ROLE!r}: "decode"}})
def environment():
    return ray.get_runtime_context().get_node_id(), dict(os.environ)

connect()
print(json.dumps([ray.get_runtime_context().get_node_id(), *ray.get(environment.remote())]))
"""


def test_settings_reach_workers_of_another_node_and_credentials_do_not(tmp_path, monkeypatch):
    for name in (*SAID, *UNSAID):
        monkeypatch.delenv(name, raising=False)
    with local_cluster() as cluster, connected(cluster.address, tmp_path / "notes"):
        cluster.add_nodes({"decode": DECODE_NODE})
        told = subprocess.run(
            [sys.executable, "-c", DRIVER],
            env={**os.environ, **SAID, **UNSAID, "RAY_ADDRESS": cluster.address},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    assert told.returncode == 0, told.stderr
    here, there, environment = json.loads(told.stdout)
    assert here != there
    assert {name: environment.get(name) for name in SAID} == SAID
    assert not [name for name, value in environment.items() if "not-for-others" in value]
