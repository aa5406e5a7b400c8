"""The verbs over a pool: filter = score + select + materialize, and each of the three alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from dfn_ray.config import Decode, Recipe, stored_pool
from dfn_ray.errors import DamagedRunError, InputError
from dfn_ray.filtering.preflight import (
    is_of_rule,
    materialized_identity,
    open_scored_by,
    refuse_other_rule,
    refuse_out,
)
from dfn_ray.filtering.scoring.score_pool import score_pool
from dfn_ray.filtering.selecting.exact_k import Selection
from dfn_ray.filtering.selecting.run_scores import RunScores, ScoredPart
from dfn_ray.filtering.selecting.select_run import SelectionResult, select_run
from dfn_ray.filtering.subset.settle import Settler, read_back_item, remove_all_but
from dfn_ray.filtering.subset.write_uid_list import (
    merge_spilled,
    spill_sorted,
    write_uid_list,
)
from dfn_ray.on_ray.footers import read_many_parts
from dfn_ray.on_ray.session import connect
from dfn_ray.on_ray.slices import MIN_SLICED_ITEMS
from dfn_ray.on_ray.tasks import run_in_tasks
from dfn_ray.pool import shards_of_listing
from dfn_ray.run import (
    SCORE_AGAIN,
    SELECTION,
    UID_LIST,
    Ledger,
    Run,
    State,
    abbreviated,
    part_file,
    read_ahead,
    refuse_old_format,
    scan_ledger,
    scored_sizes,
    start_run,
    take_over,
)


def filter_pool(recipe: Recipe) -> dict[str, Any]:
    """Filters the pool of a recipe into `run_uri`, or resumes an earlier attempt.

    Returns the content of `selection.json`. The subset then contains exactly the selected samples.
    Raises what `score_pool` raises.
    """
    return _settle_run(*score_pool(recipe, keep_bytes=True), recipe)


def score(recipe: Recipe) -> Run:
    """Scores the pool of a recipe without copying image bytes. Returns the complete run."""
    return score_pool(recipe, keep_bytes=False)[0]


def select(recipe: Recipe) -> dict[str, Any]:
    """Selects from stored scores without scoring; returns the selection as JSON.

    Writes it with its uid list to `selections/RULE/` of the run, and as `selection.json` of the run
    until a subset is made.
    """
    run = open_scored_by(recipe)
    stored, before = run.read_json_bytes(SELECTION)
    if stored and stored["state"] == State.FINAL and is_of_rule(stored, recipe):
        return stored
    selected, scores = select_run(run, recipe.select, recipe.deciding_network)
    run = take_over(run)
    folder = selection_folder(recipe)
    value = _write_selection(run, f"{folder}/", scores, selected, State.SELECTED)
    if not stored or stored["state"] == State.SELECTED:
        run.replace_json(SELECTION, value | {"uid_list": f"{folder}/{UID_LIST}"}, before)
    return value


def materialize(recipe: Recipe, *, out_uri: str | None = None) -> dict[str, Any]:
    """Writes the subset that the recipe selects, from a scored run and its pool; resumes.

    Writes into the run itself, or to the folder `out_uri` as a run of its own, which leaves the
    scored run unchanged and reads all bytes from the pool. Returns the selection as JSON. Raises
    InputError when `out_uri` contains anything else.
    """
    run = open_scored_by(recipe)
    if out_uri is None:
        refuse_old_format(run)
        refuse_other_rule(run, recipe)
        ledger = scan_ledger(run.store, run.fingerprint, read=read_many_parts)
        # Checked before the run is taken over from a driver that may still be scoring it.
        ledger.require_complete(run.listing()["uri"].to_pylist())
        return _settle_run(take_over(run), ledger, recipe)
    selected, scores = select_run(run, recipe.select, recipe.deciding_network)
    out = _start_materialized(run, recipe, out_uri)
    stored, before = out.read_json_bytes(SELECTION)
    if stored and stored["state"] == State.FINAL:
        return stored
    settler = Settler(
        scores.without_parts().with_columns("shard", "row"),
        selected.selection,
        stored_pool(run.recipe),
        out,
        from_pool=True,
    )
    connect()
    files = _read_back(run, settler, _survey(settler, scores.names).missing, recipe.decode)
    value = _write_selection(out, "", scores, selected, State.FINAL)
    value |= {"files": out.write_names("files", sorted(files))}
    out.replace_json(SELECTION, value, before)
    return value


def _start_materialized(run: Run, recipe: Recipe, out_uri: str) -> Run:
    """The run of a subset written to `out_uri`; its scored run and selection identify it."""
    refuse_out(run, out_uri)
    return start_run(
        out_uri,
        materialized_identity(run, recipe),
        recipe={"run_uri": out_uri, "scores": run.store.address, "pool": run.recipe["pool"]},
    )


def selection_folder(recipe: Recipe) -> str:
    """Folder of a recipe's selection, named by its rule and, if there are several, the network."""
    select = recipe.select
    if select.threshold is not None:
        rule = f"threshold-{select.threshold}"
    elif select.keep_count is not None:
        rule = f"count-{select.keep_count}"
    else:
        rule = f"fraction-{select.keep_fraction}-of-{select.of}"
    several = len(recipe.networks) > 1
    return f"selections/{rule}-by-{recipe.deciding_network}" if several else f"selections/{rule}"


def _settle_run(run: Run, ledger: Ledger, recipe: Recipe) -> dict[str, Any]:
    """Selects, and makes `subset/` contain exactly the selection, unless it already does."""
    run.check_attempt()  # never return a selection that another driver has made
    refuse_other_rule(run, recipe)
    stored, before = run.read_json_bytes(SELECTION)
    settling = stored is not None and stored["state"] != State.SELECTED
    if settling:
        _require_parts(run, ledger)
    if stored and stored["state"] == State.FINAL:
        return stored
    # If an attempt began to settle, the selection stays over the parts that it used.
    selected, scores = select_run(
        run, recipe.select, recipe.deciding_network, None if settling else ledger
    )
    value = selected.to_json(run) | {"parts": run.write_names("parts", scores.names)}
    if not settling:
        # From here on bytes are deleted, so no other rule can be applied. A second driver with
        # another rule finds a selection it does not know, and stops.
        before = run.replace_json(SELECTION, value | {"state": State.SETTLING}, before)
    settler = Settler(
        scores.without_parts().with_columns("shard", "row"),
        selected.selection,
        stored_pool(run.recipe),
        run,
    )
    survey = _survey(settler, scores.names)
    connect()
    files = {*survey.settled}
    for settled in run_in_tasks(survey.unsettled, settler.settle_part, recipe.decode):
        files.update(settled.splitlines())
    files |= _read_back(run, settler, survey.missing, recipe.decode)
    remove_all_but(run, files)
    value |= _write_selection(run, "", scores, selected, State.FINAL)
    value |= {"files": run.write_names("files", sorted(files))}
    run.replace_json(SELECTION, value, before)
    return value


def _require_parts(run: Run, ledger: Ledger) -> None:
    """Raises DamagedRunError when a part of a selection is absent.

    Other parts may contain its chunks, but the selection was made from this one.
    """
    if absent := sorted(set(run.part_names()) - set(ledger.names)):
        where = run.store.uri_of(part_file(absent[0]))
        raise DamagedRunError(
            f"{where}: is missing, but {SELECTION} was made from it ({len(absent):,} such parts); "
            f"restore it from a copy, or {SCORE_AGAIN}"
        )


@dataclass(frozen=True)
class _Survey:
    """The work left to settle a run, from one pass over all footers."""

    settled: list[str] = field(default_factory=list)
    """Files of the subset that need no change."""
    unsettled: list[str] = field(default_factory=list)
    """Parts with borderline rows, or with subset rows that may not be kept."""
    missing: dict[str, list[str]] = field(default_factory=dict)
    """Shards with kept samples whose bytes are not in the run -> the parts with their scores."""


def _survey(settler: Settler, names: Sequence[str]) -> _Survey:
    survey = _Survey()
    for part, missing in read_ahead(names, settler.survey_part):
        if settler.needs_settling(part):
            survey.unsettled.append(part.name)
        elif part.header.subset and not settler.reads_from_pool(part):
            survey.settled.append(f"{part.header.subset}.parquet")
        for shard in missing:
            survey.missing.setdefault(shard, []).append(part.name)
    return survey


def _read_back(
    run: Run, settler: Settler, missing: Mapping[str, Sequence[str]], decode: Decode
) -> set[str]:
    """Reads kept samples whose bytes are not in the run from the pool, shard by shard.

    Returns the names of the subset files with them.
    """
    if not missing:
        return set()
    listing = run.listing()
    if replaced := [uri for uri in scored_sizes(listing) if uri in missing]:
        raise InputError(
            f"{run.uri}: the run lacks the bytes of kept samples of {len(replaced):,} shards, and "
            f"these shards were changed after they were scored ({abbreviated(replaced)}); score "
            "the pool into another run_uri"
        )
    shards = [shard for shard in shards_of_listing(listing) if shard.uri in missing]
    items = [read_back_item(shard, missing[shard.uri]) for shard in shards]
    return set(run_in_tasks(items, settler.read_back, decode))


def _kept_uids(selection: Selection, part: ScoredPart) -> np.ndarray:
    """The uids of a part that a selection keeps."""
    return part["uid"][selection.keeps(part)]


def _write_selection(
    run: Run, folder: str, scores: RunScores, selected: SelectionResult, state: State
) -> dict[str, Any]:
    """Writes the uid list of a selection, then, for a `folder`, the selection itself."""
    name, selection = f"{folder}{UID_LIST}", selected.selection
    kept, spill = partial(_kept_uids, selection), partial(spill_sorted, run)
    scores = scores.with_columns("uid")
    if len(scores.names) < MIN_SLICED_ITEMS:
        written = write_uid_list(run, name, scores.map_parts(kept), selection.k)
    else:
        spilled = [file for some in scores.map_slices(spill, kept) for file in some]
        written = merge_spilled(run, name, spilled, selection.k)
    value = selected.to_json(scores.run) | written | {"state": state}
    if folder:
        run.write_json(f"{folder}{SELECTION}", value)
    return value
