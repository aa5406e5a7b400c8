"""What a run waits for when the cluster lacks nodes: said once in a while, because Ray says nothing to its user."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import ray

from dfn_ray.config import Scorers, Workers

CHECKED_EVERY_S = 10.0
SAID_EVERY_S = 300.0
"""The same lack is told again after this long."""


@dataclass(frozen=True, kw_only=True)
class Need:
    """So many actors, each with these resources, on nodes with these labels."""

    setting: str
    """Which asks for them; in messages."""
    count: int
    each: Mapping[str, float]
    labels: Mapping[str, str] = field(default_factory=dict)

    def lack(self) -> str | None:
        """What the nodes that are alive lack, in a sentence; None when there is room for all."""
        alive = [node for node in ray.nodes() if node["Alive"]]
        room = sum(self._room(node["Resources"]) for node in alive if self._is_fit(node))
        if room >= self.count:
            return None
        terms = [f"{amount:g} {name}" for name, amount in self.each.items()]
        terms += [f"{name} = {value}" for name, value in self.labels.items()]
        return (
            f"waiting for nodes: {len(alive)} alive, with room for {room} of "
            f"{self.setting} = {self.count} (each takes {', '.join(terms)})"
        )

    def _is_fit(self, node: Mapping[str, Any]) -> bool:
        return self.labels.items() <= (node.get("Labels") or {}).items()

    def _room(self, resources: Mapping[str, float]) -> int:
        if not self.each:
            return self.count
        return int(min(resources.get(name, 0.0) // amount for name, amount in self.each.items()))


def scorers_needed(scorers: Scorers) -> Need:
    """The actors that scoring starts with."""
    each = {"GPU": scorers.gpus, "CPU": scorers.cpus, **scorers.resources}
    return Need(
        setting="scorers.min_size",
        count=scorers.min_size,
        each={name: amount for name, amount in each.items() if amount},
        labels=scorers.labels,
    )


def workers_needed(workers: Workers) -> Need:
    """The workers that training needs to go on."""
    each = {"CPU": workers.cpus, **workers.resources}
    return Need(
        setting="workers.min_size",
        count=workers.min_size,
        each=each if workers.device == "cpu" else {"GPU": 1, **each},
        labels=workers.labels,
    )


@contextmanager
def telling_lacks(need: Need, say: Callable[[str], None]) -> Iterator[None]:
    """Say what the cluster lacks, again and again, as long as the block runs and it does."""
    stop = threading.Event()

    def watch() -> None:
        said, since_s = None, 0.0
        while not stop.wait(CHECKED_EVERY_S):
            since_s += CHECKED_EVERY_S
            lack = need.lack()
            if lack is not None and (lack != said or since_s >= SAID_EVERY_S):
                say(lack)
                since_s = 0.0
            said = lack

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
