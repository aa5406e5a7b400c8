"""Two drivers on one run: one paused at each of its writes while the other takes over and finishes.

Also one that dies there.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dfn_ray.errors import InputError, RunTakenOverError
from dfn_ray.filtering.scoring.bounds import Bounds
from dfn_ray.filtering.scoring.commit import Committer
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.run import SELECTION, open_run, scan_subset
from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import (
    NEAR,
    TOO_HIGH,
    TOO_LOW,
    Moment,
    at_writes,
    dies_at,
    expected,
    filter_without_ray,
    moments_of,
    recipe_of,
    scored_cells,
)

FIRST, OTHER = 0.5, 0.25


@pytest.fixture(scope="module")
def small_pool(tmp_path_factory):
    return write_pool(tmp_path_factory.mktemp("pool"), shards=2, samples=14)


def moments(recipe, bounds) -> list[Moment]:
    """The moments before and after each write of an undisturbed driver."""
    return moments_of(lambda: filter_without_ray(recipe, bounds=bounds))


def finish_after(run: Path | str, pool: Path, fraction: float) -> None:
    """The second driver: with its own rule, or the first one's if the run is settled to that."""
    for rule in (fraction, FIRST):
        try:
            filter_without_ray(recipe_of(run, pool, rule), part_chunks=3)
            return
        except InputError as error:
            if "another selection" not in str(error):
                raise
    raise AssertionError("neither rule is taken")


def check(run: Path | str, pool: Path) -> None:
    """Asserts that the run is final for one rule, and contains just what that rule keeps."""
    opened = open_run(str(run))
    value = opened.read_json(SELECTION)
    assert value is not None
    assert value["state"] == "final"
    verify_run(str(run), full=True)
    uids = [uid for _, table in scan_subset(opened, ["uid"]) for uid in table["uid"].to_pylist()]
    assert len(uids) == value["k"]
    assert set(uids) == expected(pool, value["select"]["keep_fraction"])


def drive_interleaved(run: Path | str, pool: Path, moment: Moment, fraction, bounds) -> str:
    """Runs both drivers, the second at one write of the first; returns the first one's outcome."""

    def meet(now: int, at: str) -> None:
        if (now, at) == (moment.number, moment.when) and not met:
            met.append(True)
            finish_after(run, pool, fraction)

    met: list[bool] = []
    ended = "done"
    with at_writes(meet):
        try:
            filter_without_ray(recipe_of(run, pool, FIRST), bounds=bounds)
        except (RunTakenOverError, InputError) as error:
            ended = type(error).__name__
    assert met
    return ended


CASES = [
    (OTHER, NEAR),
    pytest.param(FIRST, NEAR, marks=pytest.mark.slow),
    pytest.param(OTHER, TOO_HIGH, marks=pytest.mark.slow),
    pytest.param(OTHER, TOO_LOW, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("fraction", "bounds"), CASES)
def test_a_driver_that_lost_its_run_changes_nothing_whenever_it_was_stopped(
    small_pool, tmp_path, fraction, bounds
):
    all_moments = moments(recipe_of(tmp_path / "calm", small_pool, FIRST), bounds)
    opened = next(m for m in all_moments if "attempts/" in m.name and m.when == "after")
    for place, moment in enumerate(all_moments):
        run = tmp_path / "run"
        with moment.noted():
            ended = drive_interleaved(run, small_pool, moment, fraction, bounds)
            check(run, small_pool)
            # Stopped before it held the run, it is the second driver, and goes on or is refused.
            late = place < all_moments.index(opened)
            assert (ended == "RunTakenOverError") is not late, ended
        shutil.rmtree(run)


def test_a_driver_that_lost_its_run_changes_nothing_on_s3_either(
    small_pool, tmp_path, conditional_s3
):
    all_moments = moments(recipe_of(tmp_path / "calm", small_pool, FIRST), NEAR)
    run = f"s3://runs/{tmp_path.name}"
    settling = next(moment for moment in all_moments if moment.name == "replace selection.json")
    assert drive_interleaved(run, small_pool, settling, OTHER, NEAR) == "RunTakenOverError"
    check(run, small_pool)
    assert open_run(run).read_json(SELECTION)["select"]["keep_fraction"] == OTHER


@pytest.mark.parametrize(
    "bounds", [NEAR, *(pytest.param(b, marks=pytest.mark.slow) for b in (TOO_HIGH, TOO_LOW))]
)
def test_after_a_crash_at_any_write_the_next_attempt_ends_as_an_undisturbed_one(
    small_pool, tmp_path, bounds
):
    calm = recipe_of(tmp_path / "calm", small_pool, FIRST)
    all_moments = moments(calm, bounds)
    value, uids = (
        open_run(calm.run_uri).read_json(SELECTION),
        (tmp_path / "calm" / "subset_uids.npy").read_bytes(),
    )
    assert value is not None
    by_names = ("parts", "files")  # whose names hold the number of the attempt
    recipe = recipe_of(tmp_path / "run", small_pool, FIRST)
    for moment in all_moments:
        with moment.noted():
            dies_at(moment, lambda: filter_without_ray(recipe, bounds=bounds))
            again = filter_without_ray(recipe, part_chunks=3, bounds=bounds)
            check(tmp_path / "run", small_pool)
            assert {k: v for k, v in again.items() if k not in by_names} == {
                k: v for k, v in value.items() if k not in by_names
            }
            assert (tmp_path / "run" / "subset_uids.npy").read_bytes() == uids
        shutil.rmtree(tmp_path / "run")


def test_a_part_that_a_task_commits_late_is_none_of_a_finished_run(small_pool, tmp_path):
    """Ray reruns a task whose node it has lost; the first run may write its part last."""
    recipe = recipe_of(tmp_path / "run", small_pool, FIRST)
    filter_without_ray(recipe)
    run = open_run(recipe.run_uri)
    before = run.part_names(), run.subset_files()
    late = Committer(replace(run, held=True), Bounds(*TOO_LOW), "dfn")
    for cells in scored_cells(recipe):
        late.commit(cells)
    assert (run.part_names(), run.subset_files()) == before
    assert len(run.store.list("scores")) > len(before[0])
    said: list[str] = []
    verify_run(recipe.run_uri, full=True, say=said.append)
    strays = [line for line in said if "do not belong to the run" in line]
    assert [line.split(" in ")[1].split("/")[0] for line in strays] == [
        "scores",
        "subset",
        "borderline",
    ]


def test_the_writes_of_a_driver_are_those_of_every_step(small_pool, tmp_path):
    made = moments(recipe_of(tmp_path / "near", small_pool, FIRST), NEAR)
    made += moments(recipe_of(tmp_path / "high", small_pool, FIRST), TOO_HIGH)
    kinds = " ".join(moment.name for moment in made)
    for step in (
        "run.json", "pool.parquet", "attempts/", "bounds/dfn.json", "scores/", "subset/part-",
        "borderline/", "parts-", "subset_uids.npy", "files-", "replace selection.json",
        "delete borderline/", "subset/shard-",
    ):  # fmt: skip
        assert step in kinds, step
