"""What a verb refuses before it starts anything, judged from storage and the recipe alone.

No Ray, no torch, no weights: the verbs ask here first, and so does `--dry-run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dfn_ray.config import Recipe, Select
from dfn_ray.errors import InputError
from dfn_ray.filtering.fingerprint import settings_fingerprint, settings_of
from dfn_ray.filtering.select_run import SELECTION, State
from dfn_ray.manifest import Run, open_run, resumable
from dfn_ray.pool import Shard, listing_table

SCORED, MATERIALIZED = "filter", "materialized"
"""Kinds of run: one that scores its pool; a subset written elsewhere from the scores of such a run."""


def open_scored(run_uri: str) -> Run:
    """The run at a URI, which must have scores of its own. Raises InputError when it has none."""
    run = open_run(run_uri)
    if run.description["kind"] != SCORED:
        raise InputError(
            f"{run_uri}: holds a subset without scores ({run.description['kind']}); "
            f"run_uri must be a scored run{_source(run)}"
        )
    return run


def scores_of(run: Run) -> Run:
    """The run that holds the scores of a run: its own, or those that its subset was materialized from."""
    if run.description["kind"] != MATERIALIZED:
        return run
    return open_scored(run.description["recipe"]["scores"])


def refuse_other_scoring(recipe: Recipe, shards: Sequence[Shard]) -> None:
    """Raise what `start_run` will raise, as far as that is known before the networks are loaded."""
    resumable(
        recipe.run_uri,
        kind=SCORED,
        fingerprint=settings_fingerprint(recipe),
        listing=listing_table(shards),
        judged=settings_of,
    )


def refuse_other_rule(run: Run, select: Select) -> None:
    """Raise InputError when the run's subset is, or is being made, that of another rule."""
    stored = run.read_json(SELECTION)
    if stored and stored["state"] != State.SELECTED and stored["select"] != asdict(select):
        raise InputError(
            f"{run.store.uri}: its subset is that of another selection, {_rule(stored['select'])}; "
            "dfn-ray select gives the uids of this one, dfn-ray materialize --out its bytes"
        )


def _rule(select: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in select.items() if value is not None)


def _source(run: Run) -> str:
    source = run.description["recipe"].get("scores")
    return f", as {source} is, which it was made from" if source else ""
