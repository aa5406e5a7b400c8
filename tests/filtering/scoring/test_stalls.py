"""Runs without progress: retried if there are nodes, waiting if there are none."""

from __future__ import annotations

import re
import time

import pytest

from dfn_ray.errors import NoProgressError
from dfn_ray.filtering import chain
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.scoring.score_and_commit import ScoreAndCommit
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.on_ray.cells import Cell

pytestmark = pytest.mark.ray


@pytest.fixture
def stalls(tmp_path, monkeypatch):
    """Makes scorers stall forever at their second chunk, in that many rounds."""

    def make(times: int) -> None:
        class StallingScorer(ScoreAndCommit):
            chunks = 0

            def _scored(self, cell: Cell) -> Cell:
                self.chunks += 1
                stalled = tmp_path / "stalled"
                if self.chunks == 2 and sum(1 for _ in stalled.iterdir()) < times:
                    (stalled / str(time.time_ns())).touch()
                    while True:
                        time.sleep(1)
                return super()._scored(cell)

        (tmp_path / "stalled").mkdir()
        monkeypatch.setattr(chain, "ScoreAndCommit", StallingScorer)

    return make


@pytest.mark.slow
def test_what_a_stalled_round_left_is_scored_by_the_next(local_ray, recipe, pool, stalls, capsys):
    settings = ["scorers.max_size=1", "calibration.shards=1", "execution.chunks_per_part=1"]
    selection = filter_pool(recipe(pool, *settings, run="calm"))
    stalls(1)
    stalling = recipe(pool, *settings, "execution.stall_timeout_s=20", "execution.rounds=6")
    assert filter_pool(stalling) == selection
    verify_run(stalling.run_uri, full=True)
    told = [line for line in capsys.readouterr().err.splitlines() if "this round stopped" in line]
    assert told
    assert all("execution.stall_timeout_s" in line for line in told)


def test_a_run_that_always_stalls_ends_and_says_so(local_ray, recipe, pool, stalls):
    stalls(9)
    with pytest.raises(NoProgressError, match=r"no progress for .*stall_timeout_s.*has the nodes"):
        filter_pool(
            recipe(pool, "select.threshold=0.0", "select.keep_fraction=none",
                   "scorers.max_size=1", "execution.rounds=1", "execution.stall_timeout_s=5")
        )  # fmt: skip


@pytest.mark.slow
def test_nodes_that_never_come_are_waited_for_past_the_stall_limit(local_ray, recipe, pool, capsys):
    with pytest.raises(
        NoProgressError, match=r"no_progress_timeout_s.*room for 0 of the 1 that scorers"
    ) as told:
        filter_pool(
            recipe(pool, "scorers.gpus=9", "execution.stall_timeout_s=2",
                   "execution.no_progress_timeout_s=20")
        )  # fmt: skip
    (waited_s,) = re.findall(r"no progress for (\d+) s", str(told.value))
    assert int(waited_s) >= 20
    assert "this round stopped" not in capsys.readouterr().err
