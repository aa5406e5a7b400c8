"""What a run waits for when the cluster lacks nodes: said once in a while, because Ray says nothing to its user."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import ray

from dfn_ray.config import Decode, Scorers, Workers
from dfn_ray.on_ray.bundles import Bundle, decode_bundle, scorer_bundle, worker_bundle

CHECK_INTERVAL_S = 10.0
REPEAT_INTERVAL_S = 300.0
"""The same lack is told again after this long."""


@dataclass(frozen=True, kw_only=True)
class Requirement:
    """So many tasks or actors, each of which asks for the same."""

    what: str
    """Which; in messages."""
    count: int
    bundle: Bundle

    def shortfall(self) -> str | None:
        """What the nodes that are alive lack, in a sentence; None when there is room for all."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        room = sum(
            self.bundle.room_on(node["Resources"], node.get("Labels") or {}) for node in alive
        )
        if room >= self.count:
            return None
        return (
            f"waiting for nodes: {len(alive)} alive, with room for {room:.0f} of "
            f"{self.what} = {self.count} (each takes {self.bundle})"
        )


def scoring_requirements(decode: Decode, scorers: Scorers) -> tuple[Requirement, ...]:
    """What a chain that decodes and scores cannot begin without."""
    decoding = Requirement(what="decoding tasks", count=1, bundle=decode_bundle(decode))
    return decoding, scorer_requirement(scorers)


def scorer_requirement(scorers: Scorers) -> Requirement:
    """The actors that scoring starts with."""
    return Requirement(
        what="scorers.min_size", count=scorers.min_size, bundle=scorer_bundle(scorers)
    )


def worker_requirement(workers: Workers) -> Requirement:
    """The workers that training needs to go on."""
    return Requirement(
        what="workers.min_size", count=workers.min_size, bundle=worker_bundle(workers)
    )


def missing_capacity(needs: Sequence[Requirement]) -> str | None:
    """What the nodes that are alive lack for the first of the needs that they do not meet; None when they meet all."""
    return next((told for need in needs if (told := need.shortfall()) is not None), None)


@contextmanager
def reporting_missing_capacity(
    needs: Sequence[Requirement], say: Callable[[str], None]
) -> Iterator[None]:
    """Say what the cluster lacks, again and again, as long as the block runs and it does."""
    stop = threading.Event()

    def watch() -> None:
        said, since_s = None, 0.0
        while not stop.wait(CHECK_INTERVAL_S):
            since_s += CHECK_INTERVAL_S
            told = missing_capacity(needs)
            if told is not None and (told != said or since_s >= REPEAT_INTERVAL_S):
                say(told)
                since_s = 0.0
            said = told

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
