"""Runs resumed differently: with another network, verb or version, or after losing parts."""

from __future__ import annotations

import shutil
from itertools import permutations
from pathlib import Path
from unittest.mock import patch

import pytest

from dfn_ray.errors import DamagedRunError, IncompleteRunError, InputError
from dfn_ray.filtering.filter_pool import filter_pool, materialize, select
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.run import Ledger, newest_first, open_run, resuming, scan_subset, versions
from dfn_ray.schema import Chunk
from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import (
    NEAR,
    TOO_HIGH,
    TOO_LOW,
    dies_at,
    filter_without_ray,
    moments_of,
    no_ray,
    recipe_of,
    score_without_ray,
)

BOTH = ("dfn", "against")


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"), shards=2, samples=14)


@pytest.fixture(autouse=True)
def unsynced(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


def kept(run: str) -> list[str]:
    tables = scan_subset(open_run(run), ["uid"])
    return sorted(uid for _, table in tables for uid in table["uid"].to_pylist())


def last_before_the_end(recipe, name: str):
    """The moment after the last write of that name in an undisturbed run."""
    moments = moments_of(lambda: filter_without_ray(recipe))
    return [moment for moment in moments if name in moment.name and moment.when == "after"][-1]


@pytest.mark.parametrize(
    "bounds", [NEAR, *(pytest.param(b, marks=pytest.mark.slow) for b in (TOO_HIGH, TOO_LOW))]
)
def test_a_run_that_goes_on_with_another_deciding_network_keeps_what_that_network_keeps(
    pool, tmp_path, bounds
):
    def of(name: str, networks=BOTH, deciding=None):
        return recipe_of(tmp_path / name, pool, 0.5, networks=networks, deciding=deciding)

    def begin(name: str):
        return filter_without_ray(of(name), bounds=bounds)

    calm = of("calm", deciding="against")
    filter_without_ray(calm, bounds=bounds)
    for moment in moments_of(lambda: begin("counted")):
        if "replace selection.json" in moment.name:
            break  # from here on the run's subset is being made by the first one's rule
        # The network is named, or is the first one of the recipe.
        for other in (of("run", deciding="against"), of("run", networks=BOTH[::-1])):
            with moment.noted():
                dies_at(moment, lambda: begin("run"))
                value = filter_without_ray(other, bounds=bounds)
                assert value["network"] == "against"
                assert kept(other.run_uri) == kept(calm.run_uri)
                verify_run(other.run_uri, full=True)
                shutil.rmtree(other.run_uri)


@pytest.mark.parametrize("state", ["settling", "final"])
def test_a_subset_that_one_network_decides_is_not_that_of_another(pool, tmp_path, state):
    first = recipe_of(tmp_path / "run", pool, 0.5, networks=BOTH)
    other = recipe_of(tmp_path / "run", pool, 0.5, networks=BOTH[::-1])
    calm = recipe_of(tmp_path / "calm", pool, 0.5, networks=BOTH)
    if state == "settling":
        moment = next(
            moment
            for moment in moments_of(lambda: filter_without_ray(calm))
            if moment.name == "replace selection.json" and moment.when == "after"
        )
        dies_at(moment, lambda: filter_without_ray(first))
    else:
        filter_without_ray(first)
    for verb in (filter_without_ray, materialize):
        with pytest.raises(InputError, match=r"another selection, .*network = dfn"):
            verb(other)
    spelled_out = recipe_of(tmp_path / "run", pool, 0.5, networks=BOTH, deciding="dfn")
    assert filter_without_ray(spelled_out)["network"] == "dfn"


def test_selections_of_two_networks_are_kept_apart(pool, tmp_path):
    recipes = [recipe_of(tmp_path / "run", pool, 0.5, networks=n) for n in (BOTH, BOTH[::-1])]
    score_without_ray(recipes[0])
    assert [select(recipe)["network"] for recipe in recipes] == ["dfn", "against"]
    assert sorted(path.name for path in (tmp_path / "run/selections").iterdir()) == [
        "fraction-0.5-of-pool-by-against",
        "fraction-0.5-of-pool-by-dfn",
    ]


def test_a_run_that_is_not_complete_is_not_taken_from_who_scores_it(pool, tmp_path):
    recipe = recipe_of(tmp_path / "run", pool, 0.5)
    dies_at(
        last_before_the_end(recipe_of(tmp_path / "calm", pool, 0.5), "scores/"),
        lambda: filter_without_ray(recipe),
    )
    last = sorted((tmp_path / "run/scores").iterdir())[-1]
    last.unlink()
    with pytest.raises(IncompleteRunError):
        materialize(recipe)
    assert [path.name for path in (tmp_path / "run/attempts").iterdir()] == ["000001.json"]


def test_versions_that_only_held_a_run_do_not_stand_for_those_that_scored(pool, tmp_path):
    recipe = recipe_of(tmp_path / "run", pool, 0.5)
    score_without_ray(recipe)
    scored_by = versions()
    with patch.object(resuming, "versions", lambda: {**scored_by, "torch": "9.9"}):
        select(recipe)
        with no_ray():
            materialize(recipe)
    record = open_run(recipe.run_uri).last.record
    assert record["versions"] == scored_by
    assert record["holder_versions"]["torch"] == "9.9"


@pytest.mark.parametrize("state", ["final", "settling"])
def test_a_lost_part_that_a_selection_rests_on_is_named_and_selecting_anew_mends_the_run(
    pool, tmp_path, state
):
    calm, recipe = (recipe_of(tmp_path / name, pool, 0.5) for name in ("calm", "run"))
    if state == "settling":
        moment = last_before_the_end(calm, "files-")
        dies_at(moment, lambda: filter_without_ray(recipe))
    else:
        filter_without_ray(calm)
        filter_without_ray(recipe)
    part = next((tmp_path / "run/scores").iterdir())
    part.unlink()
    for _ in range(2):
        with pytest.raises(DamagedRunError, match=rf"{part.name}: is missing, but selection\.json"):
            filter_without_ray(recipe)
    (tmp_path / "run/selection.json").unlink()
    assert filter_without_ray(recipe)["state"] == "final"
    assert kept(recipe.run_uri) == kept(calm.run_uri)
    verify_run(recipe.run_uri, full=True)


def test_filter_into_a_run_of_another_kind_is_a_mistake(pool, tmp_path):
    recipe, out = recipe_of(tmp_path / "run", pool, 0.5), tmp_path / "out"
    filter_without_ray(recipe)
    with no_ray():
        materialize(recipe, out_uri=str(out))
    with pytest.raises(InputError):
        filter_pool(recipe_of(out, pool, 0.5))


def test_the_end_of_a_shard_is_one_whatever_came_late():
    """A shard given up at row 5, and chunks of a driver that had already lost the run."""
    of_parts = {
        "part-000001-a": [(0, 5, False)],
        "part-000002-a": [(5, 0, True)],
        "part-000001-b": [(5, 5, False)],
        "part-000001-c": [(10, 4, True)],
        "part-000003-a": [(10, 4, True)],
        "part-000003-b": [(5, 5, False)],
    }
    given_up = of_parts.keys() - {"part-000003-a", "part-000003-b"}
    for names in permutations(sorted(given_up)):
        ledger = _ledger(of_parts, newest_first(names))
        assert ledger.is_complete("s")
        assert ledger.samples == 5
    # Who came after that end was written read on, because it was not there yet.
    for late in ({"part-000003-a"}, {"part-000003-b"}, {"part-000003-a", "part-000003-b"}):
        ledger = _ledger(of_parts, newest_first({"part-000001-a", "part-000002-a", *late}))
        missing = {(5, 5, False), (10, 4, True)} - {c for name in late for c in of_parts[name]}
        for chunk in missing:
            ledger.add("part-000004-a", [_chunk(*chunk)], {})
        assert ledger.is_complete("s")
        assert ledger.samples == 14


def _ledger(of_parts, names) -> Ledger:
    ledger = Ledger()
    for name in names:
        ledger.add(name, [_chunk(*chunk) for chunk in of_parts[name]], {})
    return ledger


def _chunk(first_row: int, rows: int, last: bool) -> Chunk:
    return Chunk(shard="s", first_row=first_row, rows=rows, last=last)
