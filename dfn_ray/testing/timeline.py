"""The state of a cluster over a run: nodes by role, scorers alive and pending."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ray._private.state import actors

from dfn_ray.console.tables import grid
from dfn_ray.on_ray.repeating import repeating
from dfn_ray.testing.clusters import roles

EVERY_S = 0.5


@dataclass(frozen=True)
class Moment:
    """The state from `at_s` on."""

    at_s: float
    decode_nodes: int
    score_nodes: int
    scorers: int
    """Actors of the pool that have started."""
    pending: int
    """Actors that wait for a node or are starting."""

    def differs(self, other: Moment) -> bool:
        """True if anything but the time differs."""
        return _counts(self) != _counts(other)


@contextmanager
def recorded_timeline() -> Iterator[list[Moment]]:
    """The moments of change while the block runs; this process must be connected to the cluster."""
    moments: list[Moment] = []
    start = time.monotonic()

    def note() -> None:
        moment = _now(time.monotonic() - start)
        if not moments or moment.differs(moments[-1]):
            moments.append(moment)

    with repeating(note, EVERY_S):
        yield moments
    note()


def timeline_table(moments: Sequence[Moment]) -> str:
    """The moments, one per line."""
    header = ["second", "decode nodes", "score nodes", "scorers", "pending"]
    rows = [[f"{moment.at_s:.0f}", *(str(n) for n in _counts(moment))] for moment in moments]
    return grid(header, rows, numbers=0)


def _now(at_s: float) -> Moment:
    nodes = roles()
    # Not ray.util.state: that needs the dashboard, which these clusters do not run.
    states = [
        actor["State"] for actor in actors().values() if "MapWorker" in actor["ActorClassName"]
    ]
    alive = states.count("ALIVE")
    return Moment(
        at_s,
        nodes["decode"],
        nodes["score"],
        alive,
        len(states) - alive - states.count("DEAD"),
    )


def _counts(moment: Moment) -> tuple[int, int, int, int]:
    return moment.decode_nodes, moment.score_nodes, moment.scorers, moment.pending
