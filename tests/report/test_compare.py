"""Comparison of filters, against numpy on the scores in the parts."""

from __future__ import annotations

import json

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.cli import run
from dfn_ray.errors import InputError
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.report.compare import compare_runs
from dfn_ray.report.comparison_report import draw_comparison
from dfn_ray.testing.sample_pools import write_pool

pytestmark = pytest.mark.ray


@pytest.fixture
def runs(finished, recipe, pool, other_network) -> list[str]:
    """Two filters of 300 samples."""
    second = recipe(pool, f'networks.0.model="local-dir:{other_network}"', run="second")
    filter_pool(second)
    return [finished.run_uri, second.run_uri]


def scores_of(run_uri: str) -> dict[str, float]:
    table = pq.read_table(f"{run_uri}/scores", columns=["uid", "score_dfn"])
    return dict(zip(table["uid"].to_pylist(), table["score_dfn"].to_pylist(), strict=True))


def test_overlap_rank_correlation_and_keep_rates_are_numpys(runs, tmp_path, capsys):
    a, b = (scores_of(uri) for uri in runs)
    uids = sorted(a)
    groups = pa.table({"uid": uids, "kind": [f"kind {uid[0] < '8'}" for uid in uids]})
    pq.write_table(groups, tmp_path / "groups.parquet")
    found = compare_runs(runs, keep_fraction=0.2, groups_uri=str(tmp_path / "groups.parquet"))
    best = [set(sorted(uids, key=lambda u, s=s: -s[u])[:60]) for s in (a, b)]
    assert found.samples == 300
    assert found.overlap[0, 1] == pytest.approx(len(best[0] & best[1]) / 60)
    assert found.overlap[0, 0] == 1
    ranks = [pd.Series([s[u] for u in uids]).rank() for s in (a, b)]
    assert found.spearman[0, 1] == pytest.approx(ranks[0].corr(ranks[1]))
    for kind, rates in found.keep_rates.items():
        members = [u for u in uids if f"kind {u[0] < '8'}" == kind]
        for rate, kept in zip(rates, best, strict=True):
            assert rate == pytest.approx(len(kept & set(members)) / len(members))

    assert draw_comparison(found).startswith(b"\x89PNG")
    picture = tmp_path / "compare.png"
    assert run(["compare", *runs, "--picture", str(picture)]) == 0
    assert "each keeps its best 30.0%" in capsys.readouterr().out
    assert picture.exists()


@pytest.mark.slow
def test_runs_of_two_pools_are_refused(runs, recipe, tmp_path):
    other = recipe(write_pool(tmp_path / "other", shards=1, samples=5), run="third")
    filter_pool(other)
    with pytest.raises(InputError, match="has another pool"):
        compare_runs([runs[0], other.run_uri])
    with pytest.raises(InputError, match="at least two runs"):
        compare_runs(runs[:1])


@pytest.mark.slow
def test_what_models_trained_on_a_storys_subset_achieve_stands_beside_the_filter(runs, tmp_path):
    for uri, own, induced in zip(runs, (0.9, 0.3), (0.2, 0.4), strict=True):
        value = {"arms": {"dfn": {"mean": induced}}, "network": own}
        with open(f"{uri}/comparison.json", "w") as file:
            json.dump({"format": 1, "metrics": {"set, acc1": value}}, file)
    found = compare_runs(runs)
    assert [item.own["set, acc1"] for item in found.filters] == [0.9, 0.3]
    assert [item.induced["set, acc1"] for item in found.filters] == [0.2, 0.4]
    assert draw_comparison(found).startswith(b"\x89PNG")
