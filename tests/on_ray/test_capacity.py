"""Reports of a run while the cluster lacks nodes for it."""

from __future__ import annotations

import time

import pytest

from dfn_ray.config import Scorers, Workers
from dfn_ray.on_ray import capacity
from dfn_ray.on_ray.capacity import (
    reporting_missing_capacity,
    scorer_requirement,
    worker_requirement,
)

pytestmark = pytest.mark.ray


def test_lacks_are_told_by_setting_room_and_terms(local_ray):
    assert scorer_requirement(Scorers()).shortfall() is None
    assert scorer_requirement(Scorers(gpus=0.25, min_size=8, max_size=8)).shortfall() is None
    assert scorer_requirement(Scorers(gpus=1, min_size=3, max_size=9)).shortfall() == (
        "waiting for nodes: 1 alive, with room for 2 of the 3 that scorers.min_size requires (each "
        "needs 1 GPU)"
    )
    labelled = scorer_requirement(
        Scorers(gpus=1, labels={"dfn-role": "score"}, resources={"slot": 2})
    )
    assert labelled.shortfall() == (
        "waiting for nodes: 1 alive, with room for 0 of the 1 that scorers.min_size requires (each "
        "needs 1 GPU, 2 slot, label dfn-role = score)"
    )
    assert worker_requirement(Workers()).shortfall() is None
    assert "room for 2 of the 3 that workers.min_size requires (each needs 1 GPU, 1 CPU)" in (
        worker_requirement(Workers(device="cuda", min_size=3, max_size=3)).shortfall() or ""
    )


def test_a_lack_is_told_once_and_again_after_a_while(local_ray, monkeypatch):
    monkeypatch.setattr(capacity, "CHECK_INTERVAL_S", 0.1)
    monkeypatch.setattr(capacity, "REPEAT_INTERVAL_S", 1.0)
    said = []
    with reporting_missing_capacity([scorer_requirement(Scorers(gpus=3))], said.append):
        time.sleep(0.8)
        assert len(said) == 1
        time.sleep(0.8)
    assert len(said) == 2
    with reporting_missing_capacity([scorer_requirement(Scorers(gpus=2))], said.append):
        time.sleep(0.3)
    assert len(said) == 2
