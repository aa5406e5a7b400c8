"""The plan's figures agree with a real run of the same recipe; its arithmetic is exact."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dfn_ray.config import Prices, Select, recipe_from
from dfn_ray.demo.filter_demo import demo_recipe
from dfn_ray.errors import NotReadyError, RecipeError
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.forecast.costs import PIPELINE_FRACTION, cluster_forecast, options
from dfn_ray.forecast.estimate import (
    GETS_PER_PART,
    PUTS_PER_PART,
    Estimate,
    Interval,
    _bootstrap,
    _kept_in_pilot,
    requests,
)
from dfn_ray.forecast.pilot import PilotShard
from dfn_ray.forecast.plan import plan
from dfn_ray.pool import Shard
from dfn_ray.storage import READ_AHEAD_BYTES


def folder_bytes(folder: str) -> int:
    return sum(path.stat().st_size for path in Path(folder).iterdir())


@pytest.mark.ray
@pytest.mark.slow
def test_the_pilot_of_half_the_demo_pool_predicts_the_run(local_ray, tmp_path):
    recipe = demo_recipe(tmp_path / "run")
    printed: list[str] = []
    found = plan(recipe, shards=4, samples=4096, say=printed.append)
    assert not (tmp_path / "run").exists()
    assert "4 of 8 shards" in printed[0]
    selection = filter_pool(recipe)
    assert found.samples.low <= selection["samples"] <= found.samples.high
    assert found.samples.high - found.samples.low < 0.2 * selection["samples"]
    assert found.kept.low <= selection["k"] <= found.kept.high
    subset = folder_bytes(f"{recipe.run_uri}/subset")
    assert found.subset_bytes.low <= subset <= found.subset_bytes.high
    # Files have a fixed overhead, which is large relative to 1,444 rows.
    scores = folder_bytes(f"{recipe.run_uri}/scores")
    assert 0.5 * scores <= found.scores_bytes.value <= 1.5 * scores
    assert sum(found.statuses.values()) == pytest.approx(1)


@pytest.mark.ray
def test_a_cluster_without_capacity_for_the_recipe_is_reported_before_the_pilot(
    local_ray, recipe, pool
):
    with pytest.raises(NotReadyError, match="scorers: each needs 9 GPU: no node has that"):
        plan(recipe(pool, "scorers.gpus=9"), shards=2, samples=32, say=print)


def estimated(**changed) -> Estimate:
    exact = {
        "shards": 10,
        "pool_bytes": 10**9,
        "samples": Interval(1e6, 0.9e6, 1.1e6),
        "statuses": {"scored": 1.0},
        "decode_per_s": Interval(100, 100, 100),
        "read_fraction": 0.1,
        "forward_per_s": Interval(1000, 1000, 1000),
        "kept": Interval(1e5, 1e5, 1e5),
        "subset_bytes": Interval(1e8, 1e8, 1e8),
        "scores_bytes": Interval(1e7, 1e7, 1e7),
        "gets": 0.0,
        "puts": 0.0,
        "remote_bytes": 0.0,
    }
    return Estimate(**{**exact, **changed})


@pytest.fixture
def gpu_recipe():
    return recipe_from(
        {
            "run_uri": "run",
            "pool": {"uri": "pool"},
            "networks": [{"model": "ViT-B-32", "random_weights_seed": 0}],
            "scorers": {"device": "cuda", "gpus": 0.5, "max_size": 6},
            "prices": {"gpu_hour": 2.0, "cpu_hour": 0.05},
        }
    )


def test_hours_and_money_are_those_of_scorers_and_the_decoders_that_feed_them(gpu_recipe):
    rows = list(options(gpu_recipe, estimated(), gpu_recipe.scorers.max_size))
    assert [(row.scorers, row.gpus, row.cpus) for row in rows] == [
        (1, 0.5, 10), (2, 1.0, 20), (4, 2.0, 40), (6, 3.0, 60),
    ]  # fmt: skip
    hours = 1e6 / (1000 * PIPELINE_FRACTION) / 3600
    assert rows[0].hours.value == pytest.approx(hours)
    assert rows[3].hours.value == pytest.approx(hours / 6)
    assert rows[0].hours.low == pytest.approx(0.9 * hours)
    money = rows[3].money
    assert money is not None
    assert money.value == pytest.approx(hours / 6 * (3 * 2.0 + 60 * 0.05))


def test_the_bottleneck_of_decode_and_forward_is_named(gpu_recipe):
    few_cpus = cluster_forecast(gpu_recipe, estimated(), {"CPU": 8.0, "GPU": 1.0})
    assert (few_cpus.bottleneck, few_cpus.decode_per_s, few_cpus.forward_per_s) == (
        "decode",
        800,
        2000,
    )
    few_gpus = cluster_forecast(gpu_recipe, estimated(), {"CPU": 64.0, "GPU": 1.0})
    assert few_gpus.bottleneck == "forward"
    assert few_gpus.hours.value == pytest.approx(1e6 / (2000 * PIPELINE_FRACTION) / 3600)


def test_requests_are_those_of_walking_tars_and_of_the_parts_on_object_storage():
    def recipe(run_uri: str):
        network = {"model": "ViT-B-32", "random_weights_seed": 0}
        return recipe_from({"run_uri": run_uri, "pool": {"uri": "p"}, "networks": [network]})

    tars = [Shard(f"s3://b/{n}.tar", f"{n}.tar", 2 * READ_AHEAD_BYTES + 1) for n in range(1001)]
    local = [Shard("/pool/0.tar", "0.tar", 10**9)]
    assert requests(recipe("/runs/a"), tars, parts=5) == (
        1001 * 4, 2, 1001 * (2 * READ_AHEAD_BYTES + 1),
    )  # fmt: skip
    assert requests(recipe("s3://b/run"), local, parts=5) == (
        5 * GETS_PER_PART, 5 * PUTS_PER_PART, 0,
    )  # fmt: skip
    assert requests(recipe("/runs/a"), local, parts=5) == (0, 0, 0)


def pilot_shard(rows: int) -> PilotShard:
    return PilotShard(
        rows=rows, bytes_read=1000, chunks=1, read_s=1.0, prepare_s=1.0, score_s=1.0, counts={},
        score_N=np.zeros(rows, np.float32), kept_bytes_N=np.zeros(rows), scores=pa.table({}),
    )  # fmt: skip


def test_shards_that_differ_widen_the_interval_and_it_covers_what_was_not_read():
    def samples(drawn) -> list[float]:
        return [sum(shard.rows for shard in drawn) / len(drawn)]

    alike = _bootstrap([pilot_shard(50)] * 8, samples, whole=1000)
    assert alike[0] == Interval(50, 50, 50)
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(40):
        pool = rng.poisson(50, 200)
        drawn = [pilot_shard(int(rows)) for rows in rng.choice(pool, 8, replace=False)]
        (found,) = _bootstrap(drawn, samples, whole=200)
        covered += found.low <= pool.mean() <= found.high
    assert covered >= 31  # 36 of 40 expected


def test_what_is_kept_of_the_pilot_is_what_the_rule_keeps():
    score = np.array([0.1, 0.5, -np.inf, 0.3, 0.2], np.float32)
    assert _kept_in_pilot(Select(keep_fraction=0.4), score, 1.0).tolist() == [0, 1, 0, 1, 0]
    assert _kept_in_pilot(Select(keep_count=30), score, 10.0).tolist() == [0, 1, 0, 1, 1]
    assert _kept_in_pilot(Select(threshold=0.2), score, 1.0).tolist() == [0, 1, 0, 1, 1]
    assert _kept_in_pilot(Select(keep_fraction=1.0), score, 1.0).tolist() == [1, 1, 0, 1, 1]


def test_prices_of_nothing_give_a_budget_nothing_to_count():
    with pytest.raises(RecipeError, match="needs gpu_hour or cpu_hour"):
        Prices(budget=10.0)
