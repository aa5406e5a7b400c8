"""The files of a run are a function of pool and recipe, wherever and by whatever they are made."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from dfn_ray.filtering import chain
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.scoring.score_and_commit import ScoreAndCommit
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.testing.sample_pools import write_pool
from dfn_ray.testing.waiting import meanwhile, until

pytestmark = pytest.mark.ray
SCORES = ("calibration.shards=2", "calibration.samples=20", "execution.chunks_per_part=2")


@pytest.fixture(scope="module")
def uneven_pool(tmp_path_factory) -> Path:
    """9 shards of 9 to 72 samples."""
    folder = tmp_path_factory.mktemp("uneven")
    for number in range(9):
        write_pool(folder / str(number), shards=1, samples=72 // (1 + number % 8))
        os.rename(folder / f"{number}/00000.tar", folder / f"{number}.tar")
        os.rmdir(folder / str(number))
    return folder


def files(run: str) -> dict[str, set[str]]:
    """Names of the files with rows; a name has a digest of the content."""
    return {
        folder: {path.name for path in (Path(run) / folder).glob("*.parquet")}
        for folder in ("scores", "subset")
    }


@pytest.fixture(scope="module")
def expected(local_ray, uneven_pool, network, tmp_path_factory) -> dict[str, set[str]]:
    from tests.conftest import _recipe

    run = tmp_path_factory.mktemp("expected") / "run"
    filter_pool(_recipe(run, uneven_pool, network, SCORES))
    assert len(files(str(run))["scores"]) > 9
    return files(str(run))


@pytest.mark.parametrize(
    "settings",
    [
        ["scorers.cpus=2"],
        pytest.param(["scorers.max_size=2", "scorers.min_size=2"], marks=pytest.mark.slow),
        ["decode.placement=apart", "decode.tasks=3"],
    ],
    ids=str,
)
def test_files_are_equal_whatever_makes_them(recipe, uneven_pool, expected, settings):
    made = recipe(uneven_pool, *SCORES, *settings)
    filter_pool(made)
    assert files(made.run_uri) == expected
    verify_run(made.run_uri, full=True)


class SlowChunks(ScoreAndCommit):
    """Takes a quarter of a second for a chunk, so that something can happen meanwhile."""

    def _scored(self, cell):
        import time

        time.sleep(0.25)
        return super()._scored(cell)


@pytest.mark.parametrize(
    ("victim", "placement"),
    [
        ("ray::MapWorker(MapBatches(SlowChunks", "beside"),
        pytest.param("ray::MapWorker(MapBatches(SlowChunks", "apart", marks=pytest.mark.slow),
        pytest.param("processes.server", "beside", marks=pytest.mark.slow),
        ("ray::_prepared", "apart"),
    ],
)
def test_files_are_equal_after_kills(recipe, uneven_pool, expected, monkeypatch, victim, placement):
    monkeypatch.setattr(chain, "ScoreAndCommit", SlowChunks)
    made = recipe(uneven_pool, *SCORES, f"decode.placement={placement}", "decode.tasks=2")
    killed: list[int] = []

    def kill_twice() -> None:
        for parts in (2, 6):
            until(lambda parts=parts: len(files(made.run_uri)["scores"]) >= parts)
            until(lambda: killed.append(_kill_one(victim)) or killed[-1])

    with meanwhile(kill_twice):
        filter_pool(made)
    assert sum(map(bool, killed)) == 2
    assert files(made.run_uri) == expected
    verify_run(made.run_uri, full=True)


def _kill_one(victim: str) -> int:
    """Kills a process with this in its command; returns its ID, 0 without one."""
    for process in psutil.process_iter(["cmdline"]):
        if victim in " ".join(process.info["cmdline"] or []):
            process.kill()
            return process.pid
    return 0


def test_a_slice_reports_while_a_part_takes_long(recipe, uneven_pool, expected, monkeypatch):
    """So that a slow network does not look like a stall."""

    class Impatient(SlowChunks):
        def __init__(self, **options):
            from dfn_ray.filtering.scoring import score_and_commit

            score_and_commit.SIGN_OF_LIFE_S = 0.1
            super().__init__(**options)

    monkeypatch.setattr(chain, "ScoreAndCommit", Impatient)
    streamed, seen = chain.score_stream, []

    def noted(*arguments, **options):
        for outcome in streamed(*arguments, **options):
            seen.append(outcome)
            yield outcome

    monkeypatch.setattr(chain, "score_stream", noted)
    made = recipe(uneven_pool, *SCORES, "execution.chunks_per_part=9")
    filter_pool(made)
    assert None in seen
    assert len(files(made.run_uri)["scores"]) < len(expected["scores"])
    verify_run(made.run_uri, full=True)


@pytest.mark.slow
def test_a_shard_that_kills_the_actor_is_named_and_the_others_are_committed(
    recipe, uneven_pool, expected, monkeypatch
):
    from dfn_ray.errors import IncompleteRunError

    class Dying(ScoreAndCommit):
        def _scored(self, cell):
            if cell.chunk.shard.endswith("/4.tar"):
                os._exit(1)
            return super()._scored(cell)

    monkeypatch.setattr(chain, "ScoreAndCommit", Dying)
    made = recipe(
        uneven_pool, *SCORES, "select.threshold=0.0", "select.keep_fraction=none",
        "execution.rounds=1",
    )  # fmt: skip
    with pytest.raises(
        IncompleteRunError, match=r"1 shards could not .*4\.tar among them: .*unavailable"
    ):
        filter_pool(made)
    monkeypatch.undo()
    assert filter_pool(replace(made))["samples"] > 0
    verify_run(made.run_uri, full=True)
