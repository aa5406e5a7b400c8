"""Answers of Ray's head and of idle actors, which take milliseconds, within a time limit.

Ray 2.60 waits for them without a limit, and was seen to wait without end although the other side
was idle and had answered. So the question is asked again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import ray
from ray._private import state
from ray.exceptions import GetTimeoutError

from dfn_ray.errors import NoProgressError
from dfn_ray.storage.retries import call_within

_LOG = logging.getLogger(__name__)

ANSWER_S, ATTEMPTS = 60.0, 3
T = TypeVar("T")


def answer_of_head(question: Callable[[], T]) -> T:
    """The answer of Ray's head, asked again over a new connection if none comes.

    Raises NoProgressError after all attempts.
    """
    return _answer("Ray's head", lambda: call_within(question, ANSWER_S), _reconnect)


def answer_of_actor(call: Callable[[], ray.ObjectRef[T]], name: str) -> T:
    """The result of an actor's method that is safe to call again, which is done if none comes.

    Raises NoProgressError after all attempts, and what the method raises.
    """
    return _answer(name, lambda: ray.get(call(), timeout=ANSWER_S), lambda: None)


def _answer(of: str, ask: Callable[[], T], before_next: Callable[[], None]) -> T:
    for _ in range(ATTEMPTS):
        try:
            return ask()
        except (TimeoutError, GetTimeoutError):
            _LOG.warning("%s has not answered for %.0f s; asking it again", of, ANSWER_S)
            before_next()
    raise NoProgressError(
        f"{of} did not answer {ATTEMPTS} times, {ANSWER_S:.0f} s each; check that Ray's head runs "
        "(`ray status`), then run the same command again to resume"
    )


def _reconnect() -> None:
    state.state._global_state_accessor = None  # Ray has no public way
