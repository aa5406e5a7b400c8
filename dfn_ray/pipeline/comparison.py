"""Comparison of a pipeline's arms: mean and spread over seeds, and wins of the DFN's subset."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any

from dfn_ray.report.compare import COMPARISON_FORMAT

DFN = "dfn"
Scores = dict[str, dict[int, dict[str, float]]]
"""Arm -> seed -> `set, metric` -> value."""


def compare_arms(scores: Scores, *, network: Mapping[str, float] | None) -> dict[str, Any]:
    """The comparison as JSON values, by metric and arm.

    Contains the value of each seed, mean, spread, and the number of seeds in which the DFN's subset
    is ahead. `network`: the filtering network's own values, which need not be the best.
    """
    metrics = {}
    for name in next(iter(scores[DFN].values())):
        best = {seed: values[name] for seed, values in scores[DFN].items()}
        arms = {}
        for arm, by_seed in scores.items():
            own = {seed: values[name] for seed, values in by_seed.items()}
            arms[arm] = {
                "by_seed": {str(seed): value for seed, value in own.items()},
                "mean": mean(own.values()),
                "spread": stdev(own.values()) if len(own) > 1 else 0.0,
                "dfn_ahead_in": sum(best[seed] > value for seed, value in own.items()),
            }
        metrics[name] = {"arms": arms, "network": None if network is None else network[name]}
    return {"format": COMPARISON_FORMAT, "seeds": sorted(scores[DFN]), "metrics": metrics}


def comparison_table(value: Mapping[str, Any]) -> str:
    """The comparison as a printed table."""
    seeds, lines = len(value["seeds"]), []
    for name, metric in value["metrics"].items():
        lines.append(f"{name}: mean +- std over {seeds} seeds, at equal samples seen")
        for arm, found in sorted(metric["arms"].items(), key=lambda item: -item[1]["mean"]):
            ahead = (
                "" if arm == DFN else f"   dfn better in {found['dfn_ahead_in']} of {seeds} seeds"
            )
            lines.append(
                f"  trained on {arm:<8} {found['mean']:.4f} +- {found['spread']:.4f}{ahead}"
            )
        if metric["network"] is not None:
            lines.append(f"  the filtering network itself {metric['network']:.4f}")
    return "\n".join(lines)
