"""Supervision of the actors that run networks: failed starts, nodes to avoid, and termination.

Relies on these facts (Ray 2.60). An actor whose constructor raises is dead. Ray Data replaces it,
by default not even once, and wherever a GPU is free, so possibly on the same broken node. An actor
whose process dies while it starts is restarted by Ray's core forever. So dfn_ray decides itself: a
node that fails while others succeed is avoided, and when no actor can start anywhere, the run stops
with the reason.

When an execution ends, Ray Data only drops its references to the actors. An actor that anything
else still refers to, such as the traceback of an ignored error in a log handler, stays on its GPU,
and the next pool waits for that GPU forever. Ray Data also keeps references of its own, so that the
record of the starts would stay until the driver ends, a process for each pool. So all of them have
names, by which dfn_ray kills them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import ray

from dfn_ray.config import Scorers
from dfn_ray.errors import ScorersFailedError, last_line
from dfn_ray.on_ray.answers import answer_of_actor
from dfn_ray.on_ray.session import NODE_ID, driver_node_selector

T = TypeVar("T")
NODE_TRIES = 2
"""Failed starts in a row after which a node is avoided, once an actor has started elsewhere."""
TRIES = 6
"""Failed starts after which a pool is given up if no actor of it has ever started."""

_RECORD = "the record of scorers' starts"


class ActorSupervisor:
    """Supervises the actors of one pool; it is sent to them.

    Counts failed starts per node, decides which nodes the next actor must avoid, and kills all
    actors when the pool is done.
    """

    def __init__(self) -> None:
        self._pool = f"scorers-{uuid4().hex}"
        self._record: Any = _StartLog.options(  # pyright: ignore[reportAttributeAccessIssue]
            name=f"{self._pool}-starts", label_selector=driver_node_selector()
        ).remote()

    @contextmanager
    def supervised_start(self) -> Iterator[None]:
        """Reports the start of the current actor.

        Raises ScorersFailedError if it cannot succeed.
        """
        context = ray.get_runtime_context()
        actor, node = context.get_actor_id(), context.get_node_id()
        if (refusal := ray.get(self._record.begin.remote(actor, node))) is not None:
            raise ScorersFailedError(refusal)
        try:
            yield
        except Exception as error:
            ray.get(self._record.fail.remote(actor, f"{type(error).__name__}: {last_line(error)}"))
            raise
        ray.get(self._record.succeed.remote(actor))

    def next_actor_options(self, scorers: Scorers) -> dict[str, Any]:
        """Name and label selector of the next actor. Raises ScorersFailedError if none can start.

        They override the options that all actors of the pool share.
        """
        failure, avoided = answer_of_actor(self._record.check.remote, _RECORD)
        if failure is not None:
            raise ScorersFailedError(failure)
        options: dict[str, Any] = {"name": f"{self._pool}-{uuid4().hex[:8]}"}
        if avoided:
            options["label_selector"] = {
                **scorers.labels,
                NODE_ID: f"!in({','.join(avoided)})",
            }
        return options

    def kill_actors_after(self, results: Iterator[T]) -> Generator[T, None, None]:
        """Yields the results of the pool, then kills its actors, also if the caller stops early."""
        try:
            yield from results
        finally:
            self._end()

    def _end(self) -> None:
        if not ray.is_initialized():
            return
        for name in ray.util.list_named_actors():
            if not name.startswith(self._pool):
                continue
            try:
                actor = ray.get_actor(name)
            except ValueError:  # it has ended
                continue
            ray.kill(actor)


@ray.remote(num_cpus=0)
class _StartLog:
    """The starts of one pool."""

    def __init__(self) -> None:
        self._starting: dict[str, str] = {}
        self._succeeded = False
        self._failed = 0
        self._in_a_row: Counter[str] = Counter()
        self._nodes: dict[str, None] = {}
        self._last = ""

    def begin(self, actor: str, node: str) -> str | None:
        """Records that an actor begins to start; returns why it must not, or None."""
        if actor in self._starting:
            self.fail(actor, "its process died while it started")
        failure, avoided = self.check()
        if node in avoided:
            failure = (
                f"node {node} failed to start scorers {self._in_a_row[node]} times in a row: "
                f"{self._last}"
            )
        if failure is None:
            self._starting[actor] = node
        return failure

    def fail(self, actor: str, why: str) -> None:
        """Records that an actor failed to start."""
        node = self._starting.pop(actor)
        self._failed += 1
        self._in_a_row[node] += 1
        self._nodes[node] = None
        self._last = why

    def succeed(self, actor: str) -> None:
        """Records that an actor has started."""
        self._succeeded = True
        self._in_a_row[self._starting.pop(actor)] = 0

    def check(self) -> tuple[str | None, list[str]]:
        """The reason to give the pool up, or None, and the nodes to avoid."""
        if self._succeeded:
            return None, [node for node, n in self._in_a_row.items() if n >= NODE_TRIES]
        if self._failed < TRIES:
            return None, []
        return (
            f"no scorer could start in {self._failed} tries on {len(self._nodes)} nodes; the last "
            f"error: {self._last}. Check the nodes with `dfn-ray doctor`"
        ), []
