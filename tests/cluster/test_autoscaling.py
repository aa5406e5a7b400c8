"""A run on a cluster that has no worker nodes before it starts and after it ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfn_ray.filtering import chain
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.testing.clusters import ROLE, NodeType, autoscaling_cluster, roles
from dfn_ray.testing.slow_work import SlowScorer
from dfn_ray.testing.timeline import recorded_timeline, timeline_table
from dfn_ray.testing.waiting import until
from tests.cluster.conftest import connected, say

pytestmark = pytest.mark.cluster
IDLE_S = 6.0
NODE_TYPES = {
    "decode": NodeType(cpus=2, labels={ROLE: "decode"}, max_nodes=1),
    "score": NodeType(gpus=1, labels={ROLE: "score"}, max_nodes=3),
}


def test_gpu_nodes_come_with_the_work_up_to_the_recipes_max_and_go_after_it(
    recipe, tmp_path, monkeypatch, capsys
):
    class Slower(SlowScorer):
        # A second node takes half a minute: throughput is measured, the node requested, started,
        # noticed.
        seconds = 2.0

    monkeypatch.setattr(chain, "ScoreAndCommit", Slower)
    scaled = recipe(tmp_path / "scaled", "scorers.max_size=2", "calibration.samples=16")
    with (
        autoscaling_cluster(NODE_TYPES, idle_timeout_s=IDLE_S) as address,
        connected(address, tmp_path / "notes"),
        recorded_timeline() as moments,
    ):
        assert not roles()
        filter_pool(scaled)
        until(lambda: not roles(), within_s=120)
    with capsys.disabled():
        say("\n" + timeline_table(moments))
    most = [max(getattr(moment, name) for moment in moments) for name in ("score_nodes", "scorers")]
    assert most == [2, 2], (
        "as many nodes and actors as the recipe's max, though the cluster may have 3"
    )
    assert moments[-1].score_nodes == moments[-1].decode_nodes == 0
    verify_run(scaled.run_uri, full=True)
    assert Path(scaled.run_uri, "selection.json").exists()
