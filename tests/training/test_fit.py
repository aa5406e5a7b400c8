"""The end of a run of workers whose reports actor is lost; without Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from ray.exceptions import ActorDiedError

from dfn_ray.training import fit


@pytest.fixture
def lost_reports(monkeypatch):
    """The actor, which Ray reports as dead."""

    def get(_):
        raise ActorDiedError

    monkeypatch.setattr("dfn_ray.training.fit.ray.get", get)
    method = SimpleNamespace(remote=lambda: None)
    return SimpleNamespace(take=method, unplaced_counts=method)


def test_a_lost_reports_actor_does_not_replace_how_training_ended(lost_reports):
    progress = metrics = SimpleNamespace(show=lambda line: None)
    with fit._watching(lost_reports, progress, metrics):
        pass
    with (
        pytest.raises(RuntimeError, match="of a worker"),
        fit._watching(lost_reports, progress, metrics),
    ):
        raise RuntimeError("of a worker")


def test_counts_of_a_lost_reports_actor_are_said_to_be_absent(lost_reports):
    said = []
    assert fit._unplaced(lost_reports, SimpleNamespace(say=said.append)) == {}
    assert "are not counted" in said[0]
