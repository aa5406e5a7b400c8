"""Verification of the promises of a finished run, from storage, in constant memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from dfn_ray.config import Select
from dfn_ray.errors import VerificationError
from dfn_ray.filtering.selecting.select_run import select_run, stored_selection
from dfn_ray.filtering.subset.write_uid_list import uid_list_pieces
from dfn_ray.filtering.verifying.verify_parts import verify_parts
from dfn_ray.filtering.verifying.verify_samples import Subsample, compare_with_pool
from dfn_ray.filtering.verifying.verify_selections import (
    check_selections,
    require_promise,
    require_selected,
    verify_uid_list,
)
from dfn_ray.filtering.verifying.verify_subset import (
    Rows,
    kept_rows,
    listed_rows,
    shared_columns,
    verify_subset,
)
from dfn_ray.on_ray.slices import run_in_slices
from dfn_ray.run import (
    BORDERLINE,
    BOUNDS,
    SCORES,
    SELECTION,
    SUBSET,
    Ledger,
    Run,
    RunKind,
    State,
    open_run,
    part_file,
    pool_identity,
    read_ahead,
    require_attempts,
    require_scores,
    scores_of,
)


def verify_run(
    run_uri: str,
    *,
    full: bool = False,
    rescore_chunks: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, int]:
    """Checks every promise of a finished run; returns the counts of what was checked.

    `full` compares all kept samples with the pool instead of a random sample of them, each file
    with its digest, and `selections/` with the scores. `rescore_chunks` chunks are scored again in
    this process (see `rescore`). Raises VerificationError naming the first breach, DamagedRunError
    for a file that is absent or unreadable, InputError for `rescore_chunks` in a run without
    scores.
    """
    run = open_run(run_uri)
    value = _stored_selection(run)
    require_promise(
        value["state"] == State.FINAL,
        f"{run_uri}: its subset is not finished ({value['state']}); run the recipe again",
    )
    scored = scores_of(run)
    for opened in {run.uri: run, scored.uri: scored}.values():
        _verify_description(opened)
    ledger = verify_parts(scored)
    say(
        f"every chunk is committed exactly once: {ledger.complete_shards:,} shards, "
        f"{ledger.part_count:,} parts"
    )
    say(f"counts add up: {ledger.samples:,} samples")
    _verify_selected(run, scored, ledger, value, say)
    if full:
        say(f"files match their digests: {_verify_contents(run, scored, value):,} files")
    for line in check_selections(run, ledger, full=full):
        say(line)
    for notice in _stray_files(run, ledger):
        say(notice)
    compared = compare_with_pool(run, Subsample.of(run, value["k"], full=full), say)
    say(
        f"bytes equal to the pool's: {compared:,} samples compared"
        + ("" if full else f", {value['k'] - compared:,} not; --full compares all")
    )
    if rescore_chunks:
        # Only rescoring loads torch and the networks.
        from dfn_ray.filtering.verifying.rescore import rescore  # noqa: PLC0415

        say(str(rescore(require_scores(scored), rescore_chunks)))
    return {
        "shards": ledger.complete_shards,
        "samples": ledger.samples,
        "kept": value["k"],
        "compared": compared,
    }


def _verify_selected(
    run: Run,
    scored: Run,
    ledger: Ledger,
    value: Mapping[str, Any],
    say: Callable[[str], None],
) -> None:
    """Compares the selection with the scores, and subset and uid list with the selection."""
    due: Rows = partial(listed_rows, scored, dict(ledger.disowned))
    columns = ["key"]
    if scored.kind == RunKind.FILTER:
        _verify_source(run, scored)
        selected, scores = select_run(scored, Select(**value["select"]), value["network"], ledger)
        require_selected(run, SELECTION, value, selected.to_json(scored))
        say(
            f"the scores give the stored selection: {value['k']:,} kept, threshold "
            f"{value['threshold']}"
        )
        columns = shared_columns(run, scored)
        due = partial(kept_rows, scores.without_parts(), stored_selection(value), columns)
    verify_subset(run, ledger.names, due, columns)
    verify_uid_list(run, value)
    say(f"the subset contains exactly the selection: {value['k']:,} samples and uids")


def _stored_selection(run: Run) -> dict[str, Any]:
    value = run.read_json(SELECTION)
    if value is None:
        raise VerificationError(
            f"{run.uri}: has no {SELECTION}: the run is not finished, run the recipe again"
        )
    return value


def _verify_description(run: Run) -> None:
    """Checks that the small files of a run are whole and its pool listing is the original one."""
    for file in run.store.list(BOUNDS, suffix=".json"):
        run.read_json(f"{BOUNDS}/{file.name}")
    if run.description["format"] == 1:
        return  # without attempts, and with another digest of the listing
    require_attempts(run.store)
    stored, due = pool_identity(run.listing()), run.description["pool"]
    require_promise(
        stored == due,
        f"{run.store.uri_of(run.listing_name)}: was altered: it lists {stored}, but run.json has "
        f"{due}",
    )


def _verify_contents(run: Run, scored: Run, value: Mapping[str, Any]) -> int:
    """Compares every Parquet file and the uid list with their digests; returns the number of files.

    Runs of format 1 have no digests.
    """
    for _ in uid_list_pieces(run, value):
        pass
    parts = [part_file(name) for name in scored.part_names()]
    subset = [f"{SUBSET}/{name}" for name in run.subset_files()]
    return sum(
        sum(run_in_slices(names, partial(_verify_some_contents, of)))
        for of, names in ((scored, parts), (run, subset))
    )


def _verify_some_contents(run: Run, names: Sequence[str]) -> int:
    return sum(1 for _ in read_ahead(names, run.verify_file))


def _verify_source(run: Run, scored: Run) -> None:
    """Checks that a materialized subset still belongs to the scores and pool it was made from."""
    if run.kind == RunKind.MATERIALIZED:
        made_from = run.description["fingerprint"].get("scores"), run.pool_digest
        require_promise(
            made_from == (scored.description["fingerprint"], scored.pool_digest),
            f"{run.uri}: {scored.uri} contains scores that differ from those that the subset was "
            "made from",
        )


def _stray_files(run: Run, ledger: Ledger) -> Iterator[str]:
    """Notices of files in the folders of a finished run that do not belong to it.

    A driver that had already lost the run wrote them late.
    """
    known = {SCORES: {f"{name}.parquet" for name in ledger.names}, SUBSET: set(run.subset_files())}
    for folder, names in {**known, BORDERLINE: set[str]()}.items():
        if folder == SCORES and run.kind == RunKind.MATERIALIZED:
            continue
        there = {file.name for file in run.store.list(folder, suffix=".parquet")}
        if stray := sorted(there - names):
            yield (
                f"notice: {len(stray):,} files in {folder}/ do not belong to the run, the first is "
                f"{stray[0]}; a driver wrote them after it had lost the run, and they can be "
                "deleted"
            )
