"""How far a run has come, and the one decision from where a group of workers goes on.

Whenever workers start, a *generation* is decided first: by it the data skips exactly what the weights have seen, and
a worker of an earlier generation that comes back to life cannot commit. Loads no torch: processes that only plan need none.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dfn_ray.errors import RunTakenOver
from dfn_ray.manifest import Run
from dfn_ray.training.seen import Seen

FOLDER, LOG, GENERATION, REACHED = "checkpoints", "log", "generation.json", "reached.json"


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run has come."""

    samples_seen: int = 0
    steps: int = 0
    seen: Seen = field(default_factory=Seen)
    counts: Mapping[str, int] = field(default_factory=dict)
    """What failed while training up to here, by `failed/reason`, and samples by note. A restart counts from here."""
    name: str | None = None
    """Of the checkpoint; None before the first."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One start of a group of workers."""

    identity: str
    number: int
    position: Position
    """Where it goes on."""
    repeats: int = 0
    """Samples that workers before it had trained on beyond that, as far as they told: they are trained on again."""


def begin_generation(run: Run) -> Generation:
    """Decide from which checkpoint the next workers go on, and shut out all earlier ones.

    Raises RunTakenOver when another driver has taken the run.
    """
    run.check_attempt()
    before = run.read_json(GENERATION) or {"number": 0}
    reached = run.read_json(REACHED) or {"samples_seen": 0}
    position = latest_position(run)
    generation = Generation(
        identity=uuid.uuid4().hex,
        number=before["number"] + 1,
        position=position,
        repeats=max(0, reached["samples_seen"] - position.samples_seen),
    )
    run.write_json(
        GENERATION,
        {
            "generation": generation.identity,
            "number": generation.number,
            "checkpoint": position.name,
            "repeats": generation.repeats,
        },
    )
    return generation


def current_generation(run: Run) -> Generation:
    """The generation that was decided last."""
    value = run.read_json(GENERATION)
    assert value is not None, "workers start after their generation"
    name = value["checkpoint"]
    return Generation(
        identity=value["generation"],
        number=value["number"],
        position=Position() if name is None else _read_position(run, name),
        repeats=value["repeats"],
    )


def latest_position(run: Run) -> Position:
    """Where the last committed checkpoint stands; the beginning when there is none."""
    committed = run.store.list(FOLDER, suffix=".json")
    return (
        _read_position(run, committed[-1].name.removesuffix(".json")) if committed else Position()
    )


def check_generation(run: Run, generation: Generation) -> None:
    """Raise RunTakenOver when other workers have started since."""
    current = run.read_json(GENERATION)
    if current is None or current["generation"] != generation.identity:
        raise RunTakenOver(
            f"{run.store.uri}: workers that started later go on from the last checkpoint; these stop"
        )


def log_lines(run: Run) -> list[dict[str, Any]]:
    """The log of all committed steps, in order."""
    names = [file.name for file in run.store.list(LOG, suffix=".jsonl")]
    latest = latest_position(run)
    return [
        json.loads(line)
        for name in names
        if latest.name is not None and name <= f"{latest.name}.jsonl"
        for line in run.store.read(f"{LOG}/{name}").decode().splitlines()
    ]


def _read_position(run: Run, name: str) -> Position:
    value = json.loads(run.store.read(f"{FOLDER}/{name}.json"))
    return Position(
        samples_seen=value["samples_seen"],
        steps=value["steps"],
        seen=Seen.from_json(value["seen"]),
        counts=value.get("counts", {}),
        name=name,
    )
