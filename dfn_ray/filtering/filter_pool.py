"""The verbs over a pool: filter = score + select + materialize, and each of the three apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from dfn_ray.config import Decode, Pool, Recipe, Select, stored_pool
from dfn_ray.errors import InputError
from dfn_ray.filtering.preflight import (
    MATERIALIZED,
    materialized_fingerprint,
    open_scored_by,
    refuse_other_rule,
    refuse_out,
)
from dfn_ray.filtering.score_pool import score_pool
from dfn_ray.filtering.scores import RunScores
from dfn_ray.filtering.select_run import SELECTION, Selected, State, select_run
from dfn_ray.filtering.settle import SETTLED, Settler, shard_file
from dfn_ray.filtering.uid_list import write_uid_list
from dfn_ray.flow.datasets import connect, each
from dfn_ray.manifest import (
    BORDERLINE,
    SUBSET,
    Run,
    naming,
    open_run,
    parquet_stems,
    read_listing,
    read_parts,
    refuse_old_format,
    start_run,
)
from dfn_ray.pool import listed_shards
from dfn_ray.relisting import scored_sizes
from dfn_ray.storage import Store


def filter_pool(recipe: Recipe) -> dict[str, Any]:
    """Filter the pool of a recipe into `run_uri`, or finish what an earlier attempt began.

    Returns the content of `selection.json`. The subset then holds exactly the selection. Raises what
    `score_pool` raises.
    """
    store = Store(recipe.run_uri)
    if store.exists("run.json"):
        refuse_other_rule(open_run(recipe.run_uri), recipe.select)
    return _finalise(score_pool(recipe, keep_bytes=True), recipe)


def score(recipe: Recipe) -> Run:
    """Score the pool of a recipe without moving a byte of its images. Returns the complete run."""
    return score_pool(recipe, keep_bytes=False)


def select(recipe: Recipe) -> dict[str, Any]:
    """Select from stored scores without scoring; returns the selection as JSON.

    Written to `selection.json` and `subset_uids.npy` of the run, or, where the run's subset is already
    that of another selection, to `selections/<rule>/`.
    """
    run = open_scored_by(recipe)
    selected, scores = select_run(run, recipe.select, recipe.deciding_network)
    stored = run.read_json(SELECTION)
    if stored and stored["state"] != State.SELECTED:
        if stored["select"] == asdict(recipe.select):
            return stored
        store = run.store.child(selection_folder(recipe.select))
    else:
        store = run.store
    return _write_selection(run, store, scores, selected, State.SELECTED)


def materialize(recipe: Recipe, *, out_uri: str | None = None) -> dict[str, Any]:
    """Write the subset that the recipe's selection keeps, from a scored run and its pool.

    Into the run itself, or as a run of its own to the folder `out_uri`, which leaves the scored run as it is
    and takes all bytes from the pool; resumes. Returns the selection as JSON. Raises InputError when
    `out_uri` holds anything else.
    """
    run = open_scored_by(recipe)
    if out_uri is None:
        return _finalise(run, recipe)
    selected, scores = select_run(run, recipe.select, recipe.deciding_network)
    out = _start_materialized(run, recipe, out_uri)
    stored = out.read_json(SELECTION)
    if stored and stored["state"] == State.FINAL:
        return stored
    settler = Settler(scores, selected.selection, _pool_of(run), out.store, from_pool=True)
    connect()
    _read_back(run, settler, _survey(run, settler).missing, recipe.decode)
    return _write_selection(run, out.store, scores, selected, State.FINAL)


def _start_materialized(run: Run, recipe: Recipe, out_uri: str) -> Run:
    """The run of a subset that is written elsewhere: it is one with its scored run and its selection."""
    refuse_out(run, out_uri)
    stored = run.description["recipe"]
    return start_run(
        out_uri,
        kind=MATERIALIZED,
        recipe={"run_uri": out_uri, "scores": run.store.address, "pool": stored["pool"]},
        fingerprint=materialized_fingerprint(run, recipe),
        listing=read_listing(run),
    )


def selection_folder(select: Select) -> str:
    """Where a further selection of a finished run is kept, by its rule."""
    if select.threshold is not None:
        rule = f"threshold-{select.threshold}"
    elif select.keep_count is not None:
        rule = f"count-{select.keep_count}"
    else:
        rule = f"fraction-{select.keep_fraction}-of-{select.of}"
    return "selections/" + (rule if select.network is None else f"{rule}-by-{select.network}")


def _finalise(run: Run, recipe: Recipe) -> dict[str, Any]:
    """Select, and make `subset/` hold exactly the selection; nothing is left to do when it already does."""
    refuse_old_format(run)
    refuse_other_rule(run, recipe.select)
    stored = run.read_json(SELECTION)
    if stored and stored["state"] == State.FINAL:
        return stored
    selected, scores = select_run(run, recipe.select, recipe.deciding_network)
    # From here on bytes are dropped: another rule could no longer be served.
    run.write_json(SELECTION, selected.to_json(run) | {"state": State.SETTLING})
    settler = Settler(scores, selected.selection, _pool_of(run), run.store)
    survey = _survey(run, settler)
    connect()
    each(survey.unsettled, settler.settle_part, recipe.decode)
    _read_back(run, settler, survey.missing, recipe.decode)
    for name in survey.orphans:
        run.store.delete(name)
    return _write_selection(run, run.store, scores, selected, State.FINAL)


@dataclass(frozen=True)
class _Survey:
    """What one look at all footers says must be done to the files of a run."""

    unsettled: list[str] = field(default_factory=list)
    """Parts with borderline files or subset rows that may not be kept."""
    missing: dict[str, list[str]] = field(default_factory=dict)
    """Shards with kept samples whose bytes did not travel -> the parts that hold their scores."""
    orphans: set[str] = field(default_factory=set)
    """Files that a crash left beside no commit."""


def _survey(run: Run, settler: Settler) -> _Survey:
    files = {folder: frozenset(parquet_stems(run.store, folder)) for folder in (SUBSET, BORDERLINE)}
    survey = _Survey()
    survey.orphans.update(
        f"{folder}/{stem}.parquet" for folder, stems in files.items() for stem in stems
    )
    for part in read_parts(run.store, settler.scores.names):
        if settler.needs_settling(part, files[BORDERLINE]):
            survey.unsettled.append(part.name)
        for shard in settler.shards_with_missing_bytes(part):
            survey.missing.setdefault(shard, []).append(part.name)
        for folder, rows in (
            (SUBSET, part.header.subset_rows),
            (BORDERLINE, part.header.borderline_rows),
        ):
            if rows:
                survey.orphans.discard(f"{folder}/{part.name}.parquet")
        survey.orphans.discard(f"{SUBSET}/{part.name}{SETTLED}.parquet")
    survey.orphans.difference_update(f"{SUBSET}/{shard_file(uri)}" for uri in survey.missing)
    return survey


def _read_back(
    run: Run, settler: Settler, missing: Mapping[str, Sequence[str]], decode: Decode
) -> None:
    """Fetch kept samples whose bytes did not travel from the pool, shard by shard."""
    if missing:
        listing = read_listing(run)
        if replaced := [uri for uri in scored_sizes(listing) if uri in missing]:
            raise InputError(
                f"{run.store.uri}: the bytes of kept samples of {len(replaced):,} shards are not in the run, and these "
                f"shards were replaced after they were scored ({naming(replaced)}); score the pool into another run_uri"
            )
        shards = [shard for shard in listed_shards(listing) if shard.uri in missing]
        items = [(shard, tuple(missing[shard.uri])) for shard in shards]
        each(items, settler.read_back, decode)


def _write_selection(
    run: Run, store: Store, scores: RunScores, selected: Selected, state: State
) -> dict[str, Any]:
    """Write the uid list and, last, the selection that declares it."""
    selection = selected.selection
    repeated = write_uid_list(
        store, lambda: (rows["uid"][selection.keeps(rows)] for rows in scores()), selection.k
    )
    value = selected.to_json(run) | {"repeated_uids": repeated, "state": state}
    Run(store, run.description).write_json(SELECTION, value)
    return value


def _pool_of(run: Run) -> Pool:
    """`[pool]` of the recipe that the run was scored by."""
    return stored_pool(run.description["recipe"])
