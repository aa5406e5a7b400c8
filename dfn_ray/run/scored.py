"""Runs with scores, runs without, and the location of a run's scores."""

from __future__ import annotations

from dfn_ray.errors import InputError
from dfn_ray.run.kinds import RunKind
from dfn_ray.run.layout import SELECTION
from dfn_ray.run.opened import Run, open_run


def open_scored(run_uri: str) -> Run:
    """The run at a URI, which must contain scores. Raises InputError when it has none."""
    run = open_run(run_uri)
    if run.kind != RunKind.FILTER:
        source = run.recipe.get("scores")
        hint = f", such as {source}, which it was made from" if source else ""
        raise InputError(
            f"{run_uri}: contains a subset without scores ({run.kind}); run_uri must be a scored "
            f"run{hint}"
        )
    return run


def scores_of(run: Run) -> Run:
    """The run with the scores of a run: itself, or the one its subset was materialized from."""
    if run.kind != RunKind.MATERIALIZED:
        return run
    return open_scored(run.recipe["scores"])


def require_scores(run: Run) -> Run:
    """`scores_of` a run. Raises InputError for the subset of a uid list and for a training run."""
    scored = scores_of(run)
    if scored.kind != RunKind.FILTER:
        raise InputError(
            f"{run.uri}: has no scores, it is a run of kind {run.kind}; name a run of `dfn-ray "
            "filter` or `dfn-ray score`"
        )
    return scored


def deciding_network(run: Run) -> str:
    """Name of the network whose score decides: from the run's selection, or from its recipe."""
    selection = run.read_json(SELECTION)
    if selection is not None:
        return selection["network"]
    recipe = scores_of(run).recipe
    return recipe["select"]["network"] or recipe["networks"][0]["name"]
