from __future__ import annotations

from dfn_ray.doctor.placement import NodeType, placement_finding, placement_findings
from dfn_ray.on_ray.bundles import Bundle
from dfn_ray.on_ray.nodes import Node

CPU_NODE = Node(id="a", host="a", resources={"CPU": 8.0}, labels={"role": "decode"})
GPU_NODE = Node(id="b", host="b", resources={"CPU": 4.0, "GPU": 2.0}, labels={"role": "score"})


def test_a_label_that_no_node_has_is_reported():
    found = placement_finding(
        "decode tasks", Bundle({"CPU": 1.0}, {"role": "none"}), [CPU_NODE], []
    )
    assert not found.ok
    assert "label role = none: no node has that, and there is no autoscaler" in found.text


def test_what_an_autoscaler_can_add_counts():
    spot = NodeType({"GPU": 8.0}, {}, max_count=4)
    bundle = Bundle({"GPU": 1.0})
    found = placement_finding("scorers", bundle, [CPU_NODE], [spot], least=2, most=32)
    assert found.ok
    assert "0 fit now, 32 once nodes are added; the recipe starts with 2" in found.text
    assert (
        "max_size = 64 can never be reached"
        in placement_finding("scorers", bundle, [CPU_NODE], [spot], most=64).text
    )
    assert not placement_finding("scorers", bundle, [CPU_NODE, GPU_NODE], [], least=3).ok


def test_scorers_that_take_all_cpus_would_starve_the_decoders(recipe, pool):
    settings = ["scorers.cpus=4", "scorers.min_size=2", "scorers.max_size=2"]
    greedy = recipe(pool, *settings, "decode.placement=apart")
    found = [f for f in placement_findings(greedy, [CPU_NODE], []) if not f.ok]
    assert "no decode task can start" in found[0].text
    beside = recipe(pool, *settings)  # their own processes decode
    assert all(finding.ok for finding in placement_findings(beside, [CPU_NODE], []))
