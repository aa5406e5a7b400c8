"""Checks of a verb before it starts anything, from storage and the recipe alone.

Without Ray, torch and weights: the verbs call these first, and so does `--dry-run`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dfn_ray.config import Decode, Network, Recipe, Rules, recipe_values, stored_pool
from dfn_ray.errors import FingerprintError, InputError
from dfn_ray.filtering.scoring.fingerprint import settings_fingerprint, settings_of
from dfn_ray.pool import RUN_FILES, Shard, listing_table, require_outside_pool, shards_of_listing
from dfn_ray.resolving.embedding_fingerprint import decode_fingerprint, pool_fingerprint
from dfn_ray.run import (
    SELECTION,
    Acceptance,
    Run,
    RunIdentity,
    RunKind,
    State,
    differences,
    existing_run,
    open_scored,
    resumable_run,
)


def open_scored_by(recipe: Recipe) -> Run:
    """The run of a recipe, opened to read its scores.

    Raises FingerprintError with the differences when other settings made them. Networks are
    compared as the recipes name them: their weights are not loaded.
    """
    run = open_scored(recipe.run_uri)
    problems = list(
        differences(_scoring_sections(run.recipe), _scoring_sections(recipe_values(recipe)))
    )
    if problems:
        raise FingerprintError(
            f"{recipe.run_uri}: its scores were made with other settings than this recipe's:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nuse the recipe stored in its run.json, or score into another run_uri"
        )
    return run


def _scoring_sections(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        # Parsed by the recipe's classes, so that settings newer than the run get their defaults.
        "pool": pool_fingerprint(pool := stored_pool(values)) | {"uri": list(pool.uri)},
        "rules": asdict(Rules(**values["rules"])),
        "decode": decode_fingerprint(Decode(**values["decode"])),
        "networks": {value["name"]: asdict(Network(**value)) for value in values["networks"]},
    }


def refuse_before(verb: str, recipe: Recipe, shards: Sequence[Shard], out_uri: str | None) -> None:
    """Raises the errors of a verb that can be found without Ray and the networks."""
    if verb in ("filter", "score"):
        run = existing_run(recipe.run_uri)
        refuse_other_scoring(recipe, shards, run)
    else:
        run = open_scored_by(recipe)
        if out_uri is not None:
            refuse_other_materialized(run, recipe, out_uri)
    if run and (verb == "filter" or (verb == "materialize" and out_uri is None)):
        refuse_other_rule(run, recipe)


def materialized_identity(run: Run, recipe: Recipe) -> RunIdentity:
    """The identity of a subset written to another folder: its scores, its rule and its pool."""
    rule = asdict(recipe.select) | {"network": recipe.deciding_network}
    return RunIdentity(
        kind=RunKind.MATERIALIZED,
        fingerprint={"scores": run.description["fingerprint"], "select": rule},
        listing=run.listing(),
    )


def refuse_other_materialized(run: Run, recipe: Recipe, out_uri: str) -> None:
    """Raises InputError unless `out_uri` is empty or has this subset, and lies outside the pool."""
    refuse_out(run, out_uri)
    resumable_run(out_uri, materialized_identity(run, recipe), existing_run(out_uri))


def refuse_out(run: Run, out_uri: str, writes: Sequence[str] = RUN_FILES) -> None:
    """Raises InputError when a listing of the run's pool would include files written to a URI."""
    pool, shards = stored_pool(run.recipe), shards_of_listing(run.listing())
    require_outside_pool(pool, out_uri, setting="output", writes=writes, shards=shards)


def refuse_other_scoring(recipe: Recipe, shards: Sequence[Shard], existing: Run | None) -> None:
    """Raises the errors of `start_run` that can be found before the networks are loaded.

    `existing` is the run at its run_uri, if any. Raises InputError for a run inside its own pool.
    """
    require_outside_pool(recipe.pool, recipe.run_uri, setting="run_uri", shards=shards)
    resumable_run(
        recipe.run_uri,
        RunIdentity(
            kind=RunKind.FILTER,
            fingerprint=settings_fingerprint(recipe, shards),
            listing=listing_table(shards),
        ),
        existing,
        accept=accepted_by(recipe),
        project=settings_of,
    )


def accepted_by(recipe: Recipe) -> Acceptance:
    """The changes with which a recipe resumes its run."""
    return Acceptance(
        changed_shards=recipe.execution.accept_changed_shards,
        versions=recipe.execution.accept_versions,
    )


def refuse_other_rule(run: Run, recipe: Recipe) -> None:
    """Raises InputError when the run's subset is finished or begun by another rule."""
    networks = run.description["fingerprint"].get("networks", {})
    if run.kind != RunKind.FILTER or recipe.deciding_network not in networks:
        return  # resuming it raises that it is another run
    stored = run.read_json(SELECTION)
    if stored and stored["state"] != State.SELECTED and not is_of_rule(stored, recipe):
        raise InputError(
            f"{run.store.uri}: its subset is that of another selection, "
            f"{_rule_text(rule_of(stored))}; dfn-ray select writes the uids of this recipe's "
            "selection, dfn-ray materialize --out its bytes"
        )


def is_of_rule(selection: Mapping[str, Any], recipe: Recipe) -> bool:
    """True if a stored selection is by the rule of a recipe, with the deciding network resolved."""
    return rule_of(selection) == asdict(recipe.select) | {"network": recipe.deciding_network}


def rule_of(selection: Mapping[str, Any]) -> dict[str, Any]:
    """The rule of a stored selection, with its deciding network."""
    return {**selection["select"], "network": selection["network"]}


def _rule_text(rule: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in rule.items() if value is not None)
