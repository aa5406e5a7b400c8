"""Ray's head and actors are asked with a time limit, and then again."""

from __future__ import annotations

from threading import Event

import pytest
from ray._private import state
from ray.exceptions import GetTimeoutError

from dfn_ray.errors import NoProgressError
from dfn_ray.on_ray import answers, nodes


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(answers, "ANSWER_S", 0.1)
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


class _Reference:
    """Of an answer that comes at once, or never."""

    def __init__(self, answer: str | None) -> None:
        self.answer = answer


@pytest.fixture
def references(short, monkeypatch):
    def get(reference, timeout):
        if reference.answer is None:
            raise GetTimeoutError(f"Get timed out: {timeout}")
        return reference.answer

    monkeypatch.setattr("ray.get", get)


def test_an_actor_whose_answer_is_lost_is_asked_again(references, caplog):
    given = iter([_Reference(None), _Reference("ready")])
    assert answers.answer_of_actor(lambda: next(given), "the log") == "ready"
    assert caplog.text.count("the log has not answered") == 1


def test_an_actor_that_never_answers_ends_in_a_sentence(references):
    with pytest.raises(NoProgressError, match=r"^the log did not answer 3 times, 0 s each; check"):
        answers.answer_of_actor(lambda: _Reference(None), "the log")
