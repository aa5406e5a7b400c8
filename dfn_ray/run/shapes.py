"""Required fields of the JSON files of a run: names and types of all that readers use.

More fields are allowed. A file without these is damaged, whether or not it has a digest: runs of
format 1 have none.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any

import pydantic

from dfn_ray.config import Decode, Network, Pool, Rules, Scorers, Select
from dfn_ray.run.kinds import RunKind, State
from dfn_ray.run.layout import ATTEMPTS, BOUNDS, RUN, SELECTION, SPENDING
from dfn_ray.run.training_shapes import training_shape

_Count = Annotated[int, pydantic.Field(ge=0)]
_Dict = dict[str, Any]


def _numeric(text: str) -> str:
    float(text)
    return text


class _StoredListing(pydantic.BaseModel):
    shards: _Count
    digest: str


class _Fingerprint(pydantic.BaseModel):
    networks: dict[str, _Dict] = {}


class _Description(pydantic.BaseModel):
    """`run.json`."""

    format: int
    kind: str
    recipe: _Dict
    fingerprint: _Fingerprint
    fingerprint_digest: str
    pool: _StoredListing
    id: str = ""
    versions: dict[str, str] = {}


class _Attempt(pydantic.BaseModel):
    """`attempts/*.json`."""

    token: str
    host: str = ""
    time: str = ""
    recipe: _Dict = {}
    listing: str = ""
    versions: dict[str, str] = {}


class _Bounds(pydantic.BaseModel):
    lo: Annotated[str, pydantic.AfterValidator(_numeric)]
    hi: Annotated[str, pydantic.AfterValidator(_numeric)]


class _Spending(pydantic.BaseModel, extra="forbid"):
    hours: float
    cpu_hours: float
    gpu_hours: float


class _Kept(pydantic.BaseModel):
    """`selection.json` of any run."""

    state: State
    k: _Count
    threshold: float | None
    samples: _Count
    counts: dict[str, _Count]
    parts: str = ""
    files: str = ""
    uid_list_sha256: str = ""


class _Selected(_Kept):
    """`selection.json` of a run with scores."""

    select: Select
    network: str
    threshold_key: _Count
    last_tie_words: Annotated[list[_Count], pydantic.Field(min_length=4, max_length=4)] | None
    above: _Count
    at: _Count


class _PoolRecipe(pydantic.BaseModel, extra="allow"):
    """The fields that are read from the stored recipe of a run over a pool."""

    pool: Pool


class _MaterializedRecipe(_PoolRecipe):
    scores: str


class _ScoringRecipe(_PoolRecipe):
    networks: Annotated[list[Network], pydantic.Field(min_length=1)]
    rules: Rules
    decode: Decode
    scorers: Scorers
    select: Select


_FILES: Mapping[str, Any] = {
    RUN: _Description,
    ATTEMPTS: _Attempt,
    BOUNDS: _Bounds,
    SPENDING: _Spending,
}
_SELECTIONS: Mapping[str, Any] = {
    RunKind.FILTER: _Selected,
    RunKind.MATERIALIZED: _Selected,
    RunKind.LISTED: _Kept,
}
_RECIPES: Mapping[str, Any] = {
    RunKind.FILTER: _ScoringRecipe,
    RunKind.MATERIALIZED: _MaterializedRecipe,
    RunKind.LISTED: _PoolRecipe,
}
"""Shapes by kind of run."""


def shape_of(name: str, kind: str = "") -> Any:
    """The shape of a JSON file, or of the files of a folder; by default any object."""
    folder, _, last = name.rpartition("/")
    if last == SELECTION:
        return _SELECTIONS.get(kind, _Kept)
    return _FILES.get(last) or _FILES.get(folder) or training_shape(name) or _Dict


def invalid_fields(shape: Any, value: Mapping[str, Any]) -> list[str]:
    """Dotted names of the fields of a JSON value that are absent or of a wrong type."""
    try:
        _adapter(shape).validate_json(json.dumps(value), strict=True)
    except pydantic.ValidationError as error:
        return _places(error)
    return []


def completed_recipe(kind: str, recipe: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A stored recipe with defaults for newer settings, and the names of its invalid fields."""
    adapter = _adapter(_RECIPES.get(kind, _Dict))
    try:
        return adapter.dump_python(adapter.validate_python(recipe), mode="json"), []
    except pydantic.ValidationError as error:
        return {}, _places(error)


@cache
def _adapter(shape: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(shape)


def _places(error: pydantic.ValidationError) -> list[str]:
    return sorted({".".join(map(str, problem["loc"])) for problem in error.errors()})
