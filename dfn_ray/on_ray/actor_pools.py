"""Pools of actors that run networks: what is asked of Ray for them, what becomes of actors that cannot start, their end.

Facts that this rests on (Ray 2.60). An actor whose constructor raises is dead; Ray Data replaces it, by default not
even once, and wherever a GPU is free: again on the node that cannot. One whose process dies while it starts is started
again by Ray's core, for ever. So dfn_ray judges by itself: a node that fails while others do not is avoided, and when no
actor can start anywhere, the run ends and says why.

When an execution ends, Ray Data only lets go of its actors. One that anything else still refers to, the traceback of an
ignored error in some log handler for instance, stays on its GPU, and the next pool waits for that for ever. So
actors have names, by which dfn_ray ends them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar
from uuid import uuid4

import ray
from ray.data import ActorPoolStrategy

from dfn_ray.config import Scorers
from dfn_ray.errors import ScorersFailedError, last_line
from dfn_ray.on_ray.bundles import scorer_bundle
from dfn_ray.on_ray.datasets import TASK_RETRIES
from dfn_ray.on_ray.session import NODE_ID, driver_node_selector

T = TypeVar("T")
NODE_TRIES = 2
"""Starts in a row that a node may fail, once an actor has started elsewhere, before it is avoided."""
TRIES = 6
"""Failed starts of a pool of which no actor has ever started, before it is given up."""


class ActorSupervisor:
    """How the actors of a pool start, where the next ones may, and their end. Travels to the actors."""

    def __init__(self) -> None:
        self._pool = f"scorers-{uuid4().hex}"
        self._record: Any = _StartLog.options(label_selector=driver_node_selector()).remote()  # pyright: ignore[reportAttributeAccessIssue]

    @contextmanager
    def supervised_start(self) -> Iterator[None]:
        """The start of the actor that this runs in. Raises ScorersFailedError at once where that is known to be in vain."""
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
        """What the next actor of the pool must have beside what all have. Raises ScorersFailedError when none can start."""
        verdict, avoided = ray.get(self._record.judge.remote())
        if verdict is not None:
            raise ScorersFailedError(verdict)
        arguments: dict[str, Any] = {"name": f"{self._pool}-{uuid4().hex[:8]}"}
        if avoided:
            arguments["label_selector"] = {
                **scorers.labels,
                NODE_ID: f"!in({','.join(avoided)})",
            }
        return arguments

    def kill_actors_after(self, results: Iterator[T]) -> Generator[T, None, None]:
        """The results of the pool; its actors end with the last of them, or when the caller stops."""
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


def pool_arguments(scorers: Scorers, supervisor: ActorSupervisor) -> dict[str, Any]:
    """The pool as arguments of map_batches: from min_size on it grows with its backlog, as far as there are nodes.

    It also asks the cluster's autoscaler for those.
    """
    return {
        "batch_size": 1,
        "batch_format": "pyarrow",
        "compute": ActorPoolStrategy(min_size=scorers.min_size, max_size=scorers.max_size),
        "max_task_retries": TASK_RETRIES,
        "ray_remote_args_fn": lambda: starts.next_actor_options(scorers),
        **scorer_bundle(scorers).ray_options(),
    }


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
        """Note that an actor begins to start; why it should not, if so."""
        if actor in self._starting:
            self.fail(actor, "its process died while it started")
        verdict, avoided = self.judge()
        if node in avoided:
            verdict = f"node {node} could not start scorers {self._in_a_row[node]} times in a row: {self._last}"
        if verdict is None:
            self._starting[actor] = node
        return verdict

    def fail(self, actor: str, why: str) -> None:
        """Note that an actor could not start."""
        node = self._starting.pop(actor)
        self._failed += 1
        self._in_a_row[node] += 1
        self._nodes[node] = None
        self._last = why

    def succeed(self, actor: str) -> None:
        """Note that an actor has started."""
        self._succeeded = True
        self._in_a_row[self._starting.pop(actor)] = 0

    def judge(self) -> tuple[str | None, list[str]]:
        """Why the pool is to be given up, if so, and the nodes to avoid."""
        if self._succeeded:
            return None, [node for node, n in self._in_a_row.items() if n >= NODE_TRIES]
        if self._failed < TRIES:
            return None, []
        return (
            f"no scorer could start, in {self._failed} tries on {len(self._nodes)} nodes; the last one: {self._last}"
        ), []
