"""Checkpoints on the run's storage, committed completely or not at all, and trained networks.

    checkpoints/NAME/model.safetensors       parameters and buffers, float32
    checkpoints/NAME/optimizer.safetensors   AdamW's moments by parameter name
    checkpoints/NAME.json                    the marker, written last
    log/NAME.jsonl                           the steps since the previous checkpoint
    network/, networks/samples-N/            the result and exports, each file created once

NAME is samples-000000012800-000002-0003: samples seen, attempt, and generation of workers.

The marker contains the SHA-256 of the two files and commits the checkpoint. A crash costs the steps
since the last committed checkpoint; their log lines are never read, so the curve of a run contains
each step once. Names end in the generation of workers that wrote them (see `position`): files that
an earlier generation writes late have other names, and are never read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from dfn_ray.errors import DamagedRunError, TrainingFailedError
from dfn_ray.network.packed import WEIGHTS_FILE
from dfn_ray.run import CHECKPOINTS, Run
from dfn_ray.training.position import (
    CHECKPOINT_NAME,
    LOG,
    Generation,
    Position,
    check_generation,
    checkpoint_name,
    committed_names,
    generation_of,
)

Tensors = Mapping[str, Tensor]


def commit_checkpoint(
    run: Run,
    generation: Generation,
    position: Position,
    *,
    model: Tensors,
    optimizer: Tensors,
    lines: Sequence[Mapping[str, Any]],
    keep: int,
) -> Position:
    """Writes a checkpoint and, last, its marker; then removes all but the `keep` latest.

    Returns the position with the name of the checkpoint. Raises RunTakenOverError if other workers
    have started since, TrainingFailedError if a weight or a moment is NaN or infinite: training
    could not resume from such a checkpoint.
    """
    for part, tensors in (("the model", model), ("the optimizer", optimizer)):
        if broken := next((n for n, t in tensors.items() if not torch.isfinite(t).all()), None):
            raise TrainingFailedError(
                f"{run.uri}: {broken} of {part} contains NaN or infinity at "
                f"{position.samples_seen:,} samples, so no checkpoint was written. Lower "
                "optimizer.learning_rate, set optimizer.clip_norm or increase "
                "optimizer.warmup_steps"
            )
    name = checkpoint_name(position.samples_seen, generation)
    check_generation(run, generation)
    digests: dict[str, str] = {}
    for part, tensors in (("model", model), ("optimizer", optimizer)):
        data = _packed(tensors)
        run.write(_tensors_file(name, part), data)
        digests[part] = hashlib.sha256(data).hexdigest()
    log = "".join(json.dumps(line) + "\n" for line in lines)
    run.write(f"{LOG}/{name}.jsonl", log.encode())
    check_generation(run, generation)
    run.write_json(
        f"{CHECKPOINTS}/{name}.json",
        {
            "samples_seen": position.samples_seen,
            "steps": position.steps,
            "generation": generation.number,
            "seen": position.seen.to_json(),
            "counts": dict(position.counts),
            "sha256s": digests,
        },
    )
    remove_old(run, generation, keep)
    return replace(position, name=name)


def write_network(
    run: Run, generation: Generation, folder: str, files: Mapping[str, bytes]
) -> None:
    """Writes the files of a trained network, weights last; files that exist stay as they are.

    Workers that were replaced may finish late: what they write does not replace a network that
    somebody may have read. Raises RunTakenOverError if other workers have started since.
    """
    check_generation(run, generation)
    for name in sorted(files, key=lambda name: name == WEIGHTS_FILE):
        run.create(f"{folder}/{name}", files[name])
    check_generation(run, generation)


def remove_old(run: Run, generation: Generation, keep: int) -> None:
    """Removes all checkpoints but the `keep` latest, and remains of crashed or replaced workers.

    Raises RunTakenOverError if other workers have started since.
    """
    # A generation that begins after this check resumes from the latest checkpoint, not a removed
    # one.
    check_generation(run, generation)
    # Even if this continues late, it does not touch files of later generations.
    kept = [name for name in committed_names(run) if _is_up_to(generation, name)][-keep:]
    found = run.store.child(CHECKPOINTS).names()
    names = sorted({name.rstrip("/").removesuffix(".json") for name in found} - set(kept))
    for name in names:
        if _is_up_to(generation, name):
            run.delete(
                f"{CHECKPOINTS}/{name}.json"
            )  # first: without it, the rest is not a checkpoint
            run.delete_folder(f"{CHECKPOINTS}/{name}")


def read_tensors(run: Run, position: Position, part: str) -> dict[str, Tensor]:
    """Returns `model` or `optimizer` of a checkpoint. Raises DamagedRunError if it has changed."""
    file = _tensors_file(str(position.name), part)
    marker = run.read_json(f"{CHECKPOINTS}/{position.name}.json") or {}
    with run.open(file) as opened:
        data = opened.read()
    # Markers of older versions contain no digests.
    found = hashlib.sha256(data).hexdigest()
    if marker.get("sha256s", {}).get(part, found) != found:
        raise DamagedRunError(
            f"{run.store.uri_of(file)}: is damaged or was altered: it does not match its digest in "
            f"{position.name}.json. Restore it from a copy, or train into another run_uri"
        )
    return safetensors.torch.load(data)


def _tensors_file(checkpoint: str, part: str) -> str:
    return f"{CHECKPOINTS}/{checkpoint}/{part}.safetensors"


def _packed(tensors: Tensors) -> bytes:
    return safetensors.torch.save(
        {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    )


def _is_up_to(generation: Generation, checkpoint: str) -> bool:
    """True if a checkpoint is of this generation of workers or an earlier one."""
    return (
        bool(CHECKPOINT_NAME.fullmatch(checkpoint)) and generation_of(checkpoint) <= generation.name
    )
