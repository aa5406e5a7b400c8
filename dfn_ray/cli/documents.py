"""Results of verbs as plain values for --json: the data that the printed tables are made from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfn_ray.dry_run.finding import Finding
    from dfn_ray.evaluation.evaluate import Evaluation
    from dfn_ray.forecast.costs import ClusterForecast, Option
    from dfn_ray.forecast.estimate import Estimate
    from dfn_ray.pool import PoolReport
    from dfn_ray.report.compare import FilterComparison


def finding_values(finding: Finding) -> dict[str, Any]:
    """One line of the doctor or of a dry run."""
    return {
        "name": finding.name,
        "ok": finding.ok,
        "checked": finding.checked,
        "text": finding.text,
    }


def inspect_values(report: PoolReport) -> dict[str, Any]:
    """Counts and examples of a pool."""
    values = asdict(report)
    return {"size_bytes": values.pop("bytes"), **values}


def comparison_values(found: FilterComparison) -> dict[str, Any]:
    """Filters side by side; rows, columns and rates are in the order of `filters`."""
    return {
        "samples": found.samples,
        "keep_fraction": found.keep_fraction,
        "filters": [
            {"name": item.name, "own_metrics": item.own, "induced_metrics": item.induced}
            for item in found.filters
        ],
        "overlap": found.overlap,
        "spearman": found.spearman,
        "keep_rates": found.keep_rates,
    }


def evaluation_values(evaluation: Evaluation) -> dict[str, Any]:
    """The results of all sets, and DataComp's averages of groups of them."""
    return {
        "results": [
            {
                **asdict(result),
                "main_metric": result.main_metric[0],
                "main_metric_value": result.main_metric[1],
            }
            for result in evaluation.results
        ],
        "groups": evaluation.groups,
    }


def plan_values(
    estimate: Estimate, now: ClusterForecast, options: Iterable[Option], currency: str | None
) -> dict[str, Any]:
    """The forecast for a pool; figures with an interval are `value`, `low` and `high`."""
    values = asdict(estimate)
    return {
        **values,
        "this_cluster": asdict(now),
        "options": [asdict(option) for option in options],
        "currency": currency,
    }


def verified_values(run_uri: str, counts: Mapping[str, int], rescored: int) -> dict[str, Any]:
    """Counts of a run whose promises hold."""
    return {"run_uri": run_uri, **counts, "rescored_chunks": rescored}
