"""Reports of missing nodes while a run waits for them; Ray itself does not tell its user."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from dfn_ray.config import Decode, Scorers, Workers
from dfn_ray.on_ray.bundles import Bundle, decode_bundle, scorer_bundle, worker_bundle
from dfn_ray.on_ray.nodes import alive_nodes
from dfn_ray.on_ray.repeating import repeating

CHECK_INTERVAL_S = 10.0
REPEAT_INTERVAL_S = 300.0
"""Time after which the same message is repeated."""


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """A number of tasks or actors with the same bundle."""

    what: str
    """Their name in messages."""
    count: int
    bundle: Bundle

    def shortfall(self) -> str | None:
        """A sentence naming the capacity that the alive nodes lack; None if there is enough."""
        alive = alive_nodes()
        room = sum(self.bundle.room_on(node.resources, node.labels) for node in alive)
        if room >= self.count:
            return None
        return (
            f"waiting for nodes: {len(alive)} alive, with room for {room:.0f} of the "
            f"{self.count} that {self.what} requires (each needs {self.bundle})"
        )


def scoring_requirements(decode: Decode, scorers: Scorers) -> tuple[Requirement, ...]:
    """The minimum capacity of a chain that decodes and scores."""
    decoding = Requirement(what="[decode]", count=1, bundle=decode_bundle(decode))
    return decoding, scorer_requirement(scorers)


def workers_per_scorer(scorers: Scorers) -> int:
    """Worker processes of an actor: the CPUs that it reserves, else its share of a node's.

    Its share follows from the GPUs of a node, or on the CPU from the number of actors; the smallest
    among the nodes that are alive.
    """
    if scorers.cpus:
        return max(1, int(scorers.cpus))
    bundle = scorer_bundle(scorers)
    shares = [
        node.resources.get("CPU", 1) * scorers.gpus / node.resources["GPU"]
        if scorers.gpus
        else node.resources.get("CPU", 1) / scorers.max_size
        for node in alive_nodes()
        if bundle.room_on(node.resources, node.labels)
    ]
    return max(1, int(min(shares, default=1)))


def scorer_requirement(scorers: Scorers) -> Requirement:
    """The capacity for the actors that scoring starts with."""
    return Requirement(
        what="scorers.min_size", count=scorers.min_size, bundle=scorer_bundle(scorers)
    )


def worker_requirement(workers: Workers) -> Requirement:
    """The capacity for the workers that training needs to continue."""
    return Requirement(
        what="workers.min_size", count=workers.min_size, bundle=worker_bundle(workers)
    )


def missing_capacity(needs: Sequence[Requirement]) -> str | None:
    """A sentence naming the first requirement that the alive nodes cannot meet; None if none."""
    return next((text for need in needs if (text := need.shortfall()) is not None), None)


@contextmanager
def reporting_missing_capacity(
    needs: Sequence[Requirement], say: Callable[[str], None]
) -> Iterator[None]:
    """Reports missing capacity while the block runs, and repeats it while it is missing."""
    last, since_s = None, 0.0

    def check() -> None:
        nonlocal last, since_s
        since_s += CHECK_INTERVAL_S
        missing = missing_capacity(needs)
        if missing is not None and (missing != last or since_s >= REPEAT_INTERVAL_S):
            say(missing)
            since_s = 0.0
        last = missing

    with repeating(check, CHECK_INTERVAL_S):
        yield
