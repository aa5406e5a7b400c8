"""Nodes that are removed, drained, or broken during a run do not change its result."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest
import ray

from dfn_ray.config import Recipe
from dfn_ray.filtering import chain
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.scoring import score_pool
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.on_ray.actor_pools import NODE_TRIES
from dfn_ray.testing.clusters import DECODE_NODE, SCORE_NODE, local_cluster, node_id, roles
from dfn_ray.testing.slow_work import Note, SlowScorer, note, noted_prepare, read_notes
from dfn_ray.testing.timeline import recorded_timeline, timeline_table
from dfn_ray.testing.waiting import meanwhile, until
from tests.chaos.kill_everything import filtered
from tests.cluster.conftest import connected, parts_of, say

pytestmark = pytest.mark.ray
ROLES = {"decode": DECODE_NODE, "score": SCORE_NODE}
NODES = {f"{role}-{n}": node for role, node in ROLES.items() for n in (1, 2)}
"""Nodes at the start of a test: two that decode and two that score."""
UNDER_WAY_S = 5.0
"""Limit on the work that a node had started or queued when it was drained."""


@pytest.fixture(scope="module")
def notes(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("notes") / "notes"


@pytest.fixture(scope="module")
def shared_cluster(notes):
    with local_cluster() as cluster, connected(cluster.address, notes):
        yield cluster


@pytest.fixture
def cluster(shared_cluster):
    shared_cluster.set_nodes(NODES)
    return shared_cluster


@pytest.fixture(scope="module")
def undisturbed(shared_cluster, recipe, tmp_path_factory) -> Path:
    shared_cluster.set_nodes(NODES)
    calm = recipe(tmp_path_factory.mktemp("runs") / "calm")
    filter_pool(calm)
    return Path(calm.run_uri)


@dataclass
class Trial:
    """A slow run, and the result that it must equal."""

    recipe: Recipe
    undisturbed: Path
    notes: Path
    began_s: float

    def filter(self) -> None:
        """Runs and verifies; scores, threshold, subset and uids equal the undisturbed run's."""
        filter_pool(self.recipe)
        run = Path(self.recipe.run_uri)
        assert filtered(self.undisturbed) == filtered(run)
        verify_run(str(run), full=True)

    def worked(self, stage: str, *, after_s: float) -> list[Note]:
        """The chunks that a stage started after that."""
        return [n for n in read_notes(self.notes) if n.stage == stage and n.at_s > after_s]


@pytest.fixture
def trial(recipe, undisturbed, notes, monkeypatch, tmp_path) -> Trial:
    monkeypatch.setattr(chain, "ScoreAndCommit", SlowScorer)
    monkeypatch.setattr(score_pool, "prepare", noted_prepare)
    return Trial(recipe(tmp_path / "disturbed"), undisturbed, notes, time.time())


@pytest.mark.slow
def test_a_killed_gpu_node_leaves_no_trace(cluster, trial):
    def kill() -> None:
        until(lambda: parts_of(trial.recipe) >= 3)
        cluster.kill_node("score-1")

    with meanwhile(kill):
        trial.filter()


@pytest.mark.cluster
@pytest.mark.parametrize("role", ROLES)
def test_three_nodes_killed_in_one_run_leave_no_trace(cluster, trial, role):
    victims = [f"{role}-1", f"{role}-2", f"{role}-3"]

    def kill() -> None:
        for number, victim in enumerate(victims):
            until(lambda parts=3 + 5 * number: parts_of(trial.recipe) >= parts)
            cluster.kill_node(victim)
            say(f"killed {victim} at {parts_of(trial.recipe)} parts")
            cluster.add_nodes({f"{role}-{number + 3}": ROLES[role]})

    with recorded_timeline() as moments, meanwhile(kill):
        try:
            trial.filter()
        finally:
            say("\n" + timeline_table(moments))


@pytest.mark.cluster
@pytest.mark.parametrize("role", ROLES)
def test_a_node_that_is_to_go_gets_no_new_work(cluster, trial, role, monkeypatch):
    if role == "decode":  # else all is decoded long before all is scored
        monkeypatch.setattr(score_pool, "prepare", partial(noted_prepare, seconds=1.2))
    leaving, told = node_id(f"{role}-1"), []

    def drain() -> None:
        until(lambda: parts_of(trial.recipe) >= 3)
        cluster.drain_node(f"{role}-1", deadline_s=600)
        told.append(time.time())

    with meanwhile(drain):
        trial.filter()
    there = [
        begun.at_s - told[0]
        for begun in trial.worked(role, after_s=told[0])
        if begun.node == leaving
    ]
    say(f"begun there after the notice, by seconds: {[round(at_s, 1) for at_s in there]}")
    assert max(there, default=0.0) < UNDER_WAY_S
    assert trial.worked(role, after_s=told[0] + UNDER_WAY_S), (
        "all was done before: nothing is shown"
    )


@pytest.mark.cluster
def test_a_late_gpu_is_awaited_and_reported_to_the_user(cluster, trial, capsys):
    for number in (1, 2):
        cluster.kill_node(f"score-{number}")
    until(lambda: "score" not in roles())
    stall_s = 20.0
    execution = replace(trial.recipe.execution, stall_timeout_s=stall_s)
    trial.recipe = replace(trial.recipe, execution=execution)

    def come() -> None:
        time.sleep(2.5 * stall_s)
        cluster.add_nodes({f"score-{number}": SCORE_NODE for number in (1, 2)})

    with meanwhile(come):
        trial.filter()
    told = (
        "alive, with room for 0 of the 1 that scorers.min_size requires (each needs 1 GPU, label "
        "dfn-role = score)"
    )
    said = capsys.readouterr().err
    assert told in said
    assert "this round stopped" not in said


def out_of_memory():
    raise RuntimeError("CUDA out of memory")


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.cluster
@pytest.mark.parametrize("fail", [out_of_memory, killed])
def test_a_node_on_which_no_scorer_starts_is_avoided(cluster, trial, monkeypatch, fail):
    bad = node_id("score-1")

    class FailingScorer(SlowScorer):
        def __init__(self, *, steps, supervisor):
            def start_elsewhere():
                if ray.get_runtime_context().get_node_id() == bad:
                    note("fail")
                    fail()
                return steps.start()

            changed = replace(steps, start=start_elsewhere)
            super().__init__(steps=changed, supervisor=supervisor)

    monkeypatch.setattr(chain, "ScoreAndCommit", FailingScorer)
    trial.recipe = replace(trial.recipe, scorers=replace(trial.recipe.scorers, min_size=2))
    trial.filter()
    scored = {begun.node for begun in trial.worked("score", after_s=trial.began_s)}
    assert scored == {node_id("score-2")}
    tries = len(trial.worked("fail", after_s=trial.began_s))
    say(f"{tries} starts failed")
    # Of two pools, calibration's and the main pass's; in each the good node's first start takes
    # some seconds too.
    assert 2 <= tries < 2 * (NODE_TRIES + 2)
