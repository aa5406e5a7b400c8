"""Required fields of the JSON files of training runs; see `shapes`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from dfn_ray.run.layout import CHECKPOINTS, GENERATIONS, MLFLOW, RESULT

_Count = Annotated[int, pydantic.Field(ge=0)]
_Counts = dict[str, _Count]
_Digits = Annotated[str, pydantic.Field(pattern="^[0-9]+$")]
_CheckpointName = Annotated[str, pydantic.Field(pattern="^samples-[0-9]+-[0-9]+-[0-9]+$")]


class _Seen(pydantic.BaseModel):
    groups: _Count
    spans: dict[_Digits, list[tuple[_Count, _Count]]]


class _Checkpoint(pydantic.BaseModel):
    """`checkpoints/*.json`."""

    samples_seen: _Count
    steps: _Count
    seen: _Seen
    counts: _Counts = {}
    sha256s: dict[Literal["model", "optimizer"], str] = {}
    """Digests of the tensors; markers of older versions have none."""


class _Generation(pydantic.BaseModel):
    """`generations/NAME.json`."""

    number: _Count
    token: str


class _Start(pydantic.BaseModel):
    """`generations/NAME.start.json`."""

    checkpoint: _CheckpointName | None
    repeats: _Count


class _Reached(pydantic.BaseModel):
    """`generations/NAME.reached.json`."""

    samples_seen: _Count


class _Result(pydantic.BaseModel):
    """`result.json`."""

    samples_seen: _Count
    steps: _Count
    network: str
    failed: _Counts = {}
    notes: _Counts = {}
    sources: list[dict[str, Any]] = []


_FILES: Mapping[str, Any] = {
    f"{CHECKPOINTS}/": _Checkpoint,
    f"{GENERATIONS}/": _Generation,
    f"{GENERATIONS}/start": _Start,
    f"{GENERATIONS}/reached": _Reached,
    RESULT: _Result,
    MLFLOW: dict[str, str],
}


def training_shape(name: str) -> Any | None:
    """The shape of a JSON file of a training run by its name; None for any other file."""
    folder, slash, last = name.rpartition("/")
    if not slash:
        return _FILES.get(name)
    _, _, kind = last.removesuffix(".json").partition(".")
    return _FILES.get(f"{folder}/{kind}")
