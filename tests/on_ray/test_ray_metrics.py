"""The metrics that a run exports to Prometheus, and those that dashboard and alerts query."""

from __future__ import annotations

import json
import re
import runpy
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import promql_parser
import pyarrow.parquet as pq
import pytest
import yaml
from ray._private.ray_constants import PROMETHEUS_SERVICE_DISCOVERY_FILE

from dfn_ray.config import recipe_from
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.on_ray.ray_metrics import SCORE_BOUNDARIES, TrainingMetrics, run_label, score_buckets
from tests.filtering.damaged import write_damaged_pool
from tests.on_ray.scrape import of_run, once, scrape

CLUSTER = Path(__file__).parents[2] / "cluster"
DASHBOARD = json.loads((CLUSTER / "grafana_dashboard.json").read_text())
ALERTS = CLUSTER / "prometheus_alerts.yaml"
NEEDS_A_GPU = {"ray_node_gpus_utilization"}
"""Metrics exported only if there are any; checked in Ray's own dashboard instead."""


@pytest.fixture(scope="module")
def filtered(local_ray, network, tmp_path_factory):
    """A run over a half-damaged pool: its selection, its scores, and its exported metrics."""
    folder = tmp_path_factory.mktemp("metrics")
    write_damaged_pool(folder / "pool", shards=2, samples=40, damaged=0.5)
    recipe = recipe_from(
        {
            "run_uri": str(folder / "run"),
            "pool": {"uri": [str(folder / "pool")], "chunk_rows": 16},
            "networks": [{"name": "dfn", "model": f"local-dir:{network}"}],
            "select": {"keep_fraction": 0.3},
            "scorers": {"threads": 1},
            "execution": {
                "chunks_per_part": 3, "max_failed_fraction": 1.0, "max_bad_shard_fraction": 1.0
            },
        }
    )  # fmt: skip
    before = time.time()
    selection = filter_pool(recipe)

    def everything() -> None:
        found = of_run(recipe.run_uri, scrape())
        assert sum(found.get("samples_total", {}).values()) >= selection["samples"]
        assert found.keys() >= {"done_shards", "pool_shards", "scorers"}
        assert found["done_shards"] == found["pool_shards"]

    once(everything)
    time.sleep(1.5)  # whatever is counted twice has been exported by then
    scraped = scrape()
    return SimpleNamespace(
        recipe=recipe,
        run=Path(recipe.run_uri),
        selection=selection,
        exported=of_run(recipe.run_uri, scraped),
        names=set(scraped),
        took_s=time.time() - before,
    )


@pytest.mark.ray
def test_counters_agree_with_the_runs_own_counts_by_status_and_reason(filtered):
    exported = filtered.exported
    by_reason = {
        "/".join(reversed(key.split("/"))): n for key, n in filtered.selection["counts"].items()
    }
    assert len(by_reason) > 10
    assert exported["samples_total"] == by_reason
    parts = [pq.read_metadata(path).metadata for path in filtered.run.glob("scores/*.parquet")]
    chunks = [chunk for part in parts for chunk in json.loads(part[b"dfn_ray.chunks"])]
    assert exported["parts_total"] == {"": len(parts)}
    assert exported["chunks_total"] == {"": len(chunks)}
    assert exported["read_bytes_total"] == {"": sum(chunk.get("bytes_read", 0) for chunk in chunks)}
    assert exported["bad_shards_total"] == {"empty_shard": 1, "truncated_shard": 1}
    assert exported["forward_samples_total"] == {"dfn": filtered.selection["counts"]["scored"]}
    assert 0 < exported["forward_s_total"]["dfn"] < filtered.took_s


@pytest.mark.ray
def test_gauges_say_how_much_of_the_pool_is_done_and_who_works(filtered):
    exported, sizes = (
        filtered.exported,
        [p.stat().st_size for p in filtered.run.parent.glob("pool/*")],
    )
    assert exported["pool_shards"] == exported["done_shards"] == {"": len(sizes)}
    assert exported["pool_bytes"] == exported["done_bytes"] == {"": sum(sizes)}
    assert exported["done_samples"] == {"": filtered.selection["samples"]}
    assert exported["scorers"][""] >= 1
    assert 0 < time.time() - exported["last_commit_timestamp_s"][""] < 600


@pytest.mark.ray
def test_score_buckets_are_those_of_the_stored_scores(filtered):
    table = pq.read_table(filtered.run / "scores", columns=["score_dfn"])
    scores = table["score_dfn"].drop_null().to_numpy().astype(float)
    expected = {f"{end:g}/dfn": int((scores <= end).sum()) for end in SCORE_BOUNDARIES}
    expected["+Inf/dfn"] = len(scores)
    assert filtered.exported["scores_total"] == {k: n for k, n in expected.items() if n}


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_that_goes_on_counts_what_it_commits_and_gauges_say_what_all_attempts_did(filtered):
    lost = sorted(filtered.run.glob("scores/*.parquet"))[0]
    rows = pq.read_metadata(lost).num_rows
    lost.unlink()
    (filtered.run / "selection.json").unlink()
    assert filter_pool(filtered.recipe)["samples"] == filtered.selection["samples"]

    def counted() -> None:
        exported = of_run(filtered.recipe.run_uri, scrape())
        assert sum(exported["samples_total"].values()) == filtered.selection["samples"] + rows
        assert exported["done_samples"] == {"": filtered.selection["samples"]}

    once(counted)


@pytest.mark.ray
def test_dashboard_and_alerts_ask_only_for_what_is_exported(filtered):
    metrics = TrainingMetrics(str(filtered.run / "trained"), total_samples=100)
    figures = ("samples_seen", "samples_per_s", "loss", "logit_scale", "learning_rate", "data_wait")
    metrics.show(dict.fromkeys((*figures, "workers"), 1.0))
    asked = {name for expr in (*_dashboard_queries(), *_alert_queries()) for name in _names(expr)}
    own = {name for name in asked if name.startswith("ray_dfn_ray_")}
    assert len(own) > 15

    def exported() -> None:
        # Gauges of the run may have faded by now: they were there while it worked.
        assert asked - filtered.names - scrape().keys() == NEEDS_A_GPU

    once(exported)
    metrics.close()
    # The other way round: nothing is exported that no one explains.
    explained = set(re.findall(r"`dfn_ray_([a-z_]+)`", (CLUSTER / "METRICS.md").read_text()))
    ours = {name.removesuffix("_total") for name in filtered.exported} | {
        name.removeprefix("ray_dfn_ray_") for name in own if "_train_" in name
    }
    assert explained == ours


def test_what_needs_a_gpu_is_in_rays_own_dashboard():
    from ray.dashboard.modules.metrics.dashboards import default_dashboard_panels as panels

    text = Path(panels.__file__).read_text()
    assert all(name in text for name in NEEDS_A_GPU)


def test_the_dashboard_is_what_its_script_writes():
    board = runpy.run_path(str(CLUSTER / "grafana_dashboard.py"))
    assert board["build_dashboard"]() == (CLUSTER / "grafana_dashboard.json").read_text(), (
        "run python cluster/grafana_dashboard.py"
    )


def test_every_panel_says_what_it_shows_in_which_unit_and_what_to_do():
    panels = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
    assert len(panels) > 20
    for panel in panels:
        assert panel["title"], panel
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert len(panel["description"]) > 25, panel["title"]
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
    places = [tuple(panel["gridPos"].get(key, 0) for key in "xywh") for panel in panels]
    assert all(x + w <= 24 for x, _, w, _ in places)
    for number, (x, y, w, h) in enumerate(places):
        for a, b, c, d in places[:number]:
            assert x + w <= a or a + c <= x or y + h <= b or b + d <= y, panels[number]["title"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool (Debian: prometheus)")
def test_alerts_fire_when_a_run_is_stuck_starving_failing_or_left_alone_and_not_otherwise():
    for command in (
        ["check", "config", str(CLUSTER / "prometheus.yaml")],
        ["test", "rules", str(Path(__file__).with_name("alerts.yaml"))],
    ):
        done = subprocess.run(["promtool", *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_looks_for_nodes_where_ray_writes_them_and_finds_the_alerts():
    config = yaml.safe_load((CLUSTER / "prometheus.yaml").read_text())
    (job,) = config["scrape_configs"]
    (found,) = job["file_sd_configs"][0]["files"]
    assert found == f"/tmp/ray/session_latest/{PROMETHEUS_SERVICE_DISCOVERY_FILE}"
    assert config["rule_files"] == [ALERTS.name]
    # A gauge stands for 20 s after it was last set: rarer scrapes would miss one that is set for
    # the last time.
    assert int(config["global"]["scrape_interval"].removesuffix("s")) < 20


def test_run_labels_are_short_and_differ_by_the_whole_uri():
    assert run_label("memory://a/runs/dfn-15").startswith("dfn-15-")
    assert run_label("memory://a/dfn-15") != run_label("memory://b/dfn-15")
    assert run_label("/tmp/runs/x") == run_label("file:///tmp/runs/x/")
    assert len(run_label("/tmp/" + "long" * 100)) < 80


def test_score_buckets_count_what_is_at_most_their_end():
    scores = np.array([0.7, -0.19, 0.011, -0.9], np.float32)
    buckets = dict(zip((*SCORE_BOUNDARIES, "all"), score_buckets(scores), strict=True))
    assert (buckets[-0.2], buckets[0.0], buckets[0.02], buckets[0.6], buckets["all"]) == (
        1, 2, 3, 3, 4
    )  # fmt: skip
    assert score_buckets(np.zeros(0, np.float32)) == [0] * (len(SCORE_BOUNDARIES) + 1)


def _dashboard_queries() -> Iterator[str]:
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", ()):
            yield target["expr"].replace("$run", ".*")


def _alert_queries() -> Iterator[str]:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def _names(expr: str) -> set[str]:
    """The metrics in an expression, by Prometheus's grammar."""
    found: set[str] = set()

    def note(node) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            found.add(node.name)
        elif isinstance(node, promql_parser.MatrixSelector):
            found.add(node.vector_selector.name)

    promql_parser.walk(promql_parser.parse(expr), note)
    return found
