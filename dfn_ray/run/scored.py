"""Runs with scores, runs without, and where the scores of a run are."""

from __future__ import annotations

from dfn_ray.errors import InputError
from dfn_ray.run.layout import SELECTION
from dfn_ray.run.opened import Run, open_run

SCORED, MATERIALIZED = "filter", "materialized"
"""Kinds of run: one that scores its pool; a subset written elsewhere from the scores of such a run."""


def open_scored(run_uri: str) -> Run:
    """The run at a URI, which must have scores of its own. Raises InputError when it has none."""
    run = open_run(run_uri)
    if run.kind != SCORED:
        source = run.recipe.get("scores")
        hint = f", as {source} is, which it was made from" if source else ""
        raise InputError(
            f"{run_uri}: holds a subset without scores ({run.kind}); run_uri must be a scored run{hint}"
        )
    return run


def scores_of(run: Run) -> Run:
    """The run that holds the scores of a run: its own, or those that its subset was materialized from."""
    if run.kind != MATERIALIZED:
        return run
    return open_scored(run.recipe["scores"])


def require_scores(run: Run) -> Run:
    """`scores_of` a run that has scores at all. Raises InputError for the subset of a uid list and for a training."""
    scored = scores_of(run)
    if scored.kind != SCORED:
        raise InputError(f"{run.uri}: has no scores, it is a run of kind {run.kind}")
    return scored


def selecting_network(run: Run) -> str:
    """Name of the network whose score selects: that of the run's selection, else the one that its recipe names."""
    selection = run.read_json(SELECTION)
    if selection is not None:
        return selection["network"]
    recipe = scores_of(run).recipe
    return recipe["select"]["network"] or recipe["networks"][0]["name"]
