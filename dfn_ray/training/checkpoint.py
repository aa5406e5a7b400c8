"""Checkpoints on the run's storage: whole or absent, and one decision from where a group of workers goes on.

    checkpoints/samples-000000012800/model.safetensors       parameters and buffers, float32
    checkpoints/samples-000000012800/optimizer.safetensors   AdamW's moments by parameter name
    checkpoints/samples-000000012800.json                    written last: the checkpoint is committed
    log/samples-000000012800.jsonl                           the steps since the checkpoint before
    generation.json                                          which workers may commit, and from where they began

A crash costs the steps since the last committed checkpoint; their log lines are never seen, so the curve of a run
holds each step once. Whenever workers start, the generation is decided first: by it the data skips exactly what the
weights have seen, and a worker of an earlier one that comes back to life cannot commit.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import safetensors.torch
from torch import Tensor

from dfn_ray.errors import RunTakenOver
from dfn_ray.manifest import Run
from dfn_ray.training.seen import Seen

FOLDER, LOG, GENERATION = "checkpoints", "log", "generation.json"
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run has come."""

    samples_seen: int = 0
    steps: int = 0
    seen: Seen = field(default_factory=Seen)
    name: str | None = None
    """Of the checkpoint; None before the first."""


@dataclass(frozen=True, kw_only=True)
class Generation:
    """One start of a group of workers."""

    identity: str
    number: int
    position: Position


def begin_generation(run: Run) -> Generation:
    """Decide from which checkpoint the next workers go on, and shut out all earlier ones.

    Raises RunTakenOver when another driver has taken the run.
    """
    run.check_attempt()
    before = run.read_json(GENERATION) or {"number": 0}
    generation = Generation(
        identity=uuid.uuid4().hex, number=before["number"] + 1, position=latest_position(run)
    )
    run.write_json(
        GENERATION,
        {
            "generation": generation.identity,
            "number": generation.number,
            "checkpoint": generation.position.name,
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
    )


def latest_position(run: Run) -> Position:
    """Where the last committed checkpoint stands; the beginning when there is none."""
    committed = run.store.list(FOLDER, suffix=".json")
    return (
        _read_position(run, committed[-1].name.removesuffix(".json")) if committed else Position()
    )


def commit(
    run: Run,
    generation: Generation,
    position: Position,
    *,
    model: Tensors,
    optimizer: Tensors,
    lines: Sequence[Mapping[str, Any]],
    keep: int,
) -> Position:
    """Write a checkpoint and, last, its marker; then remove all but the `keep` latest. Returns its position.

    Raises RunTakenOver when other workers have started since.
    """
    name = f"samples-{position.samples_seen:012d}"
    for part, tensors in (("model", model), ("optimizer", optimizer)):
        run.store.write(f"{FOLDER}/{name}/{part}.safetensors", _packed(tensors))
    log = "".join(json.dumps(line) + "\n" for line in lines)
    run.store.write(f"{LOG}/{name}.jsonl", log.encode())
    check_generation(run, generation)
    run.write_json(
        f"{FOLDER}/{name}.json",
        {
            "samples_seen": position.samples_seen,
            "steps": position.steps,
            "generation": generation.number,
            "seen": position.seen.to_json(),
        },
    )
    _remove_old(run, keep)
    return replace(position, name=name)


def check_generation(run: Run, generation: Generation) -> None:
    """Raise RunTakenOver when other workers have started since."""
    current = run.read_json(GENERATION)
    if current is None or current["generation"] != generation.identity:
        raise RunTakenOver(
            f"{run.store.uri}: workers that started later go on from the last checkpoint; these stop"
        )


def read_tensors(run: Run, position: Position, part: str) -> dict[str, Tensor]:
    """`model` or `optimizer` of a committed checkpoint."""
    return safetensors.torch.load(run.store.read(f"{FOLDER}/{position.name}/{part}.safetensors"))


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
        name=name,
    )


def _packed(tensors: Tensors) -> bytes:
    return safetensors.torch.save(
        {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    )


def _remove_old(run: Run, keep: int) -> None:
    committed = [file.name for file in run.store.list(FOLDER, suffix=".json")]
    for marker in committed[:-keep]:
        run.store.delete(f"{FOLDER}/{marker}")  # first: without it the rest is no checkpoint
        run.store.delete_folder(f"{FOLDER}/{marker.removesuffix('.json')}")
