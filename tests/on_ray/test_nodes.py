"""Ray's head is asked with a time limit, and again over a new connection."""

from __future__ import annotations

from threading import Event

import pytest
from ray._private import state

from dfn_ray.errors import NoProgressError
from dfn_ray.on_ray import nodes


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(nodes, "ANSWER_S", 0.1)
    monkeypatch.setattr(state.state, "_global_state_accessor", "the connection")


def test_a_lost_answer_is_asked_for_again_over_a_new_connection(short, monkeypatch, caplog):
    over, never = [], Event()

    def resources():
        over.append(state.state._global_state_accessor)
        if len(over) == 1:
            never.wait(30)
        return {"CPU": 2.0}

    monkeypatch.setattr("ray.cluster_resources", resources)
    assert nodes.cluster_resources() == {"CPU": 2.0}
    never.set()
    assert over == ["the connection", None]
    assert caplog.text.count("has not answered") == 1


def test_a_head_that_never_answers_ends_in_a_sentence(short, monkeypatch):
    never = Event()
    monkeypatch.setattr("ray.nodes", lambda: never.wait(30))
    with pytest.raises(NoProgressError, match=r"did not answer 3 times, 0 s each; check"):
        nodes.alive_nodes()
    never.set()


def test_an_error_of_ray_is_raised_at_once(short, monkeypatch, caplog):
    def fail():
        raise ConnectionError("no head")

    monkeypatch.setattr("ray.nodes", fail)
    with pytest.raises(ConnectionError, match="no head"):
        nodes.alive_nodes()
    assert not caplog.text


@pytest.mark.ray
def test_after_a_new_connection_rays_head_answers(local_ray):
    before = nodes.cluster_resources()
    state.state._global_state_accessor = None
    assert nodes.cluster_resources() == before
    assert before["CPU"] == sum(node.resources.get("CPU", 0) for node in nodes.alive_nodes())
