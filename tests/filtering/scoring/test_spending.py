"""Budgets: a run stops when its budget is spent, and its cost is remembered."""

from __future__ import annotations

import time

import pyarrow.parquet as pq
import pytest

from dfn_ray.config import Prices
from dfn_ray.errors import BudgetSpentError
from dfn_ray.filtering import chain
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.scoring import spending
from dfn_ray.filtering.scoring.score_and_commit import ScoreAndCommit
from dfn_ray.filtering.scoring.spending import CostMeter, Spent, spent_before
from dfn_ray.on_ray.cells import Cell
from dfn_ray.run import Run, create_attempt, open_run
from dfn_ray.storage import Store
from dfn_ray.testing.sample_pools import write_pool


def rows(folder: str) -> list[dict]:
    found = [row for file in Store(folder).list() for row in pq.read_table(file.uri).to_pylist()]
    return sorted(found, key=lambda row: (row["shard"], row["row"]))


class TwoChunkScorer(ScoreAndCommit):
    """Scores two chunks and blocks on the third, so that the run stops before the pool is done."""

    chunks = 0

    def _scored(self, cell: Cell) -> Cell:
        self.chunks += 1
        while self.chunks > 2:
            time.sleep(1)
        return super()._scored(cell)


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_stopped_by_its_budget_three_times_ends_as_an_undisturbed_one(
    local_ray, recipe, tmp_path, monkeypatch
):
    pool = write_pool(tmp_path / "pool", shards=8, samples=16)
    settings = [
        "execution.chunks_per_part=1", "scorers.max_size=1", "select.threshold=0.0",
        "select.keep_fraction=none",
        "prices.cpu_hour=3600", "prices.currency=EUR",
    ]  # fmt: skip
    whole = recipe(pool, *settings, run="whole")
    selection = filter_pool(whole)

    spent, stopped, parts = 1e-6, recipe(pool, *settings), []
    with monkeypatch.context() as slowed:
        slowed.setattr(chain, "ScoreAndCommit", TwoChunkScorer)
        for _ in range(3):
            with pytest.raises(BudgetSpentError, match=r"of .* EUR .* of the pool is scored"):
                filter_pool(recipe(pool, *settings, f"prices.budget={spent * 1.000001}"))
            run = open_run(stopped.run_uri)
            spent = spent_before(run).cpu_hours * 3600
            parts.append(len(run.store.list("scores")))
        assert 0 < parts[0] < parts[1] < parts[2]
        with pytest.raises(BudgetSpentError):  # what was spent is not forgotten: no more is
            filter_pool(recipe(pool, *settings, f"prices.budget={spent / 2}"))
        assert spent_before(run).cpu_hours * 3600 == spent

    # Names of parts and files hold the number of the attempt.
    by_names = dict.fromkeys(("parts", "files"))
    assert filter_pool(stopped) | by_names == selection | by_names
    for folder in ("scores", "subset"):
        assert rows(f"{stopped.run_uri}/{folder}") == rows(f"{whole.run_uri}/{folder}")


@pytest.mark.ray
def test_a_budget_ends_the_wait_for_a_gpu_that_never_comes(local_ray, recipe, pool, monkeypatch):
    monkeypatch.setattr(spending, "MIN_WAIT_S", 2.0)
    waiting = recipe(pool, "scorers.gpus=9", f"execution.max_hours={2 / 3600}")
    with pytest.raises(BudgetSpentError, match=r"s of 2 s; 0\.0% of the pool"):
        filter_pool(waiting)


def held(store: Store) -> Run:
    """A run with nothing but the attempt that holds it."""
    return Run(store, {"format": 2, "kind": "filter"}, create_attempt(store, {}), held=True)


@pytest.fixture
def run(tmp_path) -> Run:
    return held(Store(str(tmp_path / "run")))


def test_all_nodes_alive_are_paid_for_by_the_second_and_the_sum_is_stored(run, recipe, pool):
    priced = recipe(pool, "prices.gpu_hour=7200", "prices.cpu_hour=36", "prices.budget=1e9")
    alive = {"CPU": 4.0}
    meter = CostMeter(priced, run, alive=lambda: alive)
    with meter:
        alive = {"CPU": 4.0, "GPU": 2.0}
        meter._look()
        before = meter.spent
        meter._look()
        after = meter.spent
    seconds = (after.hours - before.hours) * 3600
    prices = priced.prices
    assert prices is not None
    assert after.cost(prices) - before.cost(prices) == pytest.approx(seconds * (2 * 2.0 + 4 * 0.01))
    value = run.read_json("spending/000001.json")
    assert value is not None
    stored = Spent(**value)
    assert stored.hours >= after.hours
    assert spent_before(run) == stored
    # The next attempt adds to it, in a file of its own.
    with CostMeter(priced, held(run.store), alive=lambda: alive) as meter:
        assert meter.spent.hours >= stored.hours
    assert spent_before(run).hours > stored.hours


def test_the_wait_for_progress_is_no_longer_than_the_money_lasts(run, recipe, pool):
    priced = recipe(pool, "prices.cpu_hour=36", "prices.budget=8")
    with CostMeter(priced, run, alive=lambda: {"CPU": 8.0}) as meter:
        assert meter.limited_wait(7200) == pytest.approx(100, abs=1)
        assert meter.limited_wait(30) == 30


def test_what_was_used_before_there_were_prices_is_paid_for_by_those_there_are():
    used = Spent().plus(3600, {"GPU": 2}).plus(1800, {"GPU": 2, "CPU": 8})
    assert used == Spent(hours=1.5, cpu_hours=4, gpu_hours=3)
    assert used.cost(Prices(gpu_hour=3, cpu_hour=0.5)) == 9 + 2
