"""Checkpoints on the run's storage, whole or absent.

    checkpoints/samples-000000012800/model.safetensors       parameters and buffers, float32
    checkpoints/samples-000000012800/optimizer.safetensors   AdamW's moments by parameter name
    checkpoints/samples-000000012800.json                    written last: the checkpoint is committed
    log/samples-000000012800.jsonl                           the steps since the checkpoint before
    generation.json                                          which workers may commit, and from where they began

A crash costs the steps since the last committed checkpoint; their log lines are never seen, so the curve of a run
holds each step once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import safetensors.torch
from torch import Tensor

from dfn_ray.manifest import Run
from dfn_ray.training.position import FOLDER, LOG, Generation, Position, check_generation

Tensors = Mapping[str, Tensor]


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
            "counts": dict(position.counts),
        },
    )
    _remove_old(run, keep)
    return replace(position, name=name)


def read_tensors(run: Run, position: Position, part: str) -> dict[str, Tensor]:
    """`model` or `optimizer` of a committed checkpoint."""
    return safetensors.torch.load(run.store.read(f"{FOLDER}/{position.name}/{part}.safetensors"))


def _packed(tensors: Tensors) -> bytes:
    return safetensors.torch.save(
        {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    )


def _remove_old(run: Run, keep: int) -> None:
    committed = [file.name for file in run.store.list(FOLDER, suffix=".json")]
    for marker in committed[:-keep]:
        run.store.delete(f"{FOLDER}/{marker}")  # first: without it the rest is no checkpoint
        run.store.delete_folder(f"{FOLDER}/{marker.removesuffix('.json')}")
