"""The metrics that this Ray exports to Prometheus, parsed by Prometheus's rules."""

from __future__ import annotations

import time
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping

import ray
from prometheus_client.parser import text_string_to_metric_families

from dfn_ray.on_ray.ray_metrics import run_label

EXPORT_S = 120.0
"""Metrics that are absent after this time will not come. The tests' Ray exports every second, but
its agent on a busy machine has been late by more than 15 s."""

Series = Mapping[frozenset[tuple[str, str]], float]
"""Labels -> value, summed over processes."""


def scrape() -> dict[str, dict[frozenset[tuple[str, str]], float]]:
    """Metric name -> values on all nodes, by the labels that dfn_ray sets."""
    found: dict[str, dict[frozenset[tuple[str, str]], float]] = defaultdict(
        lambda: defaultdict(float)
    )
    for node in ray.nodes():
        if not node["Alive"]:
            continue
        uri = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        with urllib.request.urlopen(uri, timeout=10) as answer:
            families = text_string_to_metric_families(answer.read().decode())
        for family in families:
            for sample in family.samples:
                labels = {k: v for k, v in sample.labels.items() if k.islower() and "otel" not in k}
                found[sample.name][frozenset(labels.items())] += sample.value
    return found


def of_run(run_uri: str, scraped: Mapping[str, Series]) -> dict[str, dict[str, float]]:
    """Metric name without prefix -> values of a run, by its other labels as `a/b`."""
    run = ("run", run_label(run_uri))
    return {
        name.removeprefix("ray_dfn_ray_"): {
            "/".join(value for _, value in sorted(labels - {run}) if value): number
            for labels, number in series.items()
            if run in labels
        }
        for name, series in scraped.items()
        if name.startswith("ray_dfn_ray_")
    }


def once(condition: Callable[[], None]) -> None:
    """Waits until the assertions of `condition` hold; they fail after EXPORT_S."""
    deadline = time.monotonic() + EXPORT_S
    while True:
        try:
            condition()
        except AssertionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return
