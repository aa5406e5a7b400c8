"""Proving the promises of a finished run from what is on storage, in constant memory."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where no type checker sees them)
from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.config import Select
from dfn_ray.errors import DamagedRunError, InputError, VerificationError
from dfn_ray.filtering.scoring.commit import COPIES, NOT_IN_SUBSET
from dfn_ray.filtering.selecting.exact_k import Selection
from dfn_ray.filtering.selecting.run_scores import RunScores, ScoredPart, shard_index
from dfn_ray.filtering.selecting.select_run import State, select_run, stored_selection
from dfn_ray.filtering.subset.write_uid_list import uid_list_pieces
from dfn_ray.filtering.verifying.row_sums import (
    RowSums,
    column_words,
    first_different_row,
    rows_of_bucket,
)
from dfn_ray.filtering.verifying.verify_samples import Subsample, compare_with_pool
from dfn_ray.filtering.verifying.verify_selections import (
    check_selections,
    require_promise,
    require_selected,
    verify_uid_list,
)
from dfn_ray.on_ray.slices import run_in_slices
from dfn_ray.run import (
    BORDERLINE,
    BOUNDS,
    MATERIALIZED,
    SCORED,
    SCORES,
    SELECTION,
    SUBSET,
    Ledger,
    Run,
    differences,
    open_run,
    part_file,
    pool_identity,
    read_ahead,
    read_part,
    require_attempts,
    require_scores,
    rows_in_chunks,
    sample_position,
    scan_ledger,
    scan_parts,
    scan_subset,
    scores_of,
    shard_numbers,
)
from dfn_ray.schema import BYTE_COLUMNS, Chunk, Status, status_key
from dfn_ray.uids.records import uid_records

_PLACE = ("uid", "shard", "row")
Tables = Iterator[tuple[str, pa.Table]]
"""Rows with the columns that scores and subset share, and where each table is from."""
Rows = Callable[[Sequence[str]], Tables]
"""Gives the rows that are in some parts, or files of the subset."""


def verify_run(
    run_uri: str,
    *,
    full: bool = False,
    rescore_chunks: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> dict[str, int]:
    """Check every promise of a finished run; returns what was counted.

    `full` compares all kept samples with the pool, each file with its digest, and what is in `selections/` with the
    scores, otherwise a sample of the kept samples. `rescore_chunks` chunks are scored again, in this process (see `rescore`). Raises VerificationError naming
    the first breach, DamagedRunError for a file that is absent or cannot be read, InputError for a run without scores
    that is to be scored again.
    """
    run = open_run(run_uri)
    value = _stored_selection(run)
    require_promise(
        value["state"] == State.FINAL,
        f"{run_uri}: its subset is not finished ({value['state']}); run it again",
    )
    scored = scores_of(run)
    for opened in {run.uri: run, scored.uri: scored}.values():
        _verify_description(opened)
    ledger = _verify_parts(scored)
    say(f"chunks complete and disjoint: {ledger.complete_shards:,} shards, {ledger.parts:,} parts")
    say(f"counts balance: {ledger.samples:,} samples")
    due: Rows = partial(_listed_rows, scored, dict(ledger.disowned))
    columns = ["key"]
    if scored.kind == SCORED:
        _verify_source(run, scored)
        selected, scores = select_run(scored, Select(**value["select"]), value["network"], ledger)
        require_selected(run, SELECTION, value, selected.to_json(scored))
        say(f"selection = f(scores): {value['k']:,} kept, threshold {value['threshold']}")
        columns = _shared_columns(run, scored)
        due = partial(_kept_rows, scores.without_parts(), stored_selection(value), columns)
    _verify_subset(run, ledger.names, due, columns)
    verify_uid_list(run, value)
    say(f"subset = selection: {value['k']:,} samples and uids")
    if full:
        say(f"contents = digests: {_verify_contents(run, scored, value):,} files")
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
        # Only who scores again loads torch and the networks.
        from dfn_ray.filtering.verifying.rescore import rescore  # noqa: PLC0415

        say(str(rescore(require_scores(scored), rescore_chunks)))
    return {
        "shards": ledger.complete_shards,
        "samples": ledger.samples,
        "kept": value["k"],
        "compared": compared,
    }


def _stored_selection(run: Run) -> dict[str, Any]:
    value = run.read_json(SELECTION)
    if value is None:
        raise VerificationError(
            f"{run.uri}: has no {SELECTION}: the run is not finished, run it again"
        )
    return value


def _verify_description(run: Run) -> None:
    """The small files of a run are whole, and its pool listing is the one that it was begun with."""
    for file in run.store.list(BOUNDS, suffix=".json"):
        run.read_json(f"{BOUNDS}/{file.name}")
    if run.description["format"] == 1:
        return  # it has no attempts, and its digest of the listing is another one
    require_attempts(run.store)
    stored, due = pool_identity(run.listing()), run.description["pool"]
    require_promise(
        stored == due,
        f"{run.store.uri_of(run.listing_name)}: was altered: it lists {stored}, run.json says {due}",
    )


def _verify_parts(run: Run) -> Ledger:
    """Footers tile the pool; every part holds exactly the rows and counts that its footer says."""
    names = run.part_names()
    listed = shard_index(run)
    for _ in run_in_slices(names, partial(_verify_some, run)):
        pass
    ledger = scan_ledger(run.store, run.fingerprint, names)
    missing = [shard for shard in listed if not ledger.is_complete(shard)]
    require_promise(
        not missing,
        f"{run.uri}: {len(missing)} shards are not complete, {missing[0] if missing else ''} first",
    )
    return ledger


def _verify_some(run: Run, names: Sequence[str]) -> None:
    for _ in read_ahead(names, partial(_verify_part, run)):
        pass


def _verify_part(run: Run, name: str) -> None:
    part = read_part(run.store, name)
    uri = run.store.uri_of(part_file(name))
    require_promise(
        part.header.fingerprint == run.fingerprint,
        f"{uri}: made under another fingerprint than the run's: scores are mixed",
    )
    if foreign := {chunk.shard for chunk in part.chunks} - shard_index(run).keys():
        raise VerificationError(
            f"{uri}: commits rows of {min(foreign)}, which {run.store.uri_of(run.listing_name)} does not list"
        )
    table = run.read_table(part_file(name), ["shard", "row", "status", "reason"])
    chunks = sorted(part.chunks, key=lambda chunk: (chunk.shard, chunk.first_row))
    rows = np.concatenate(
        [np.empty(0, np.int64), *(np.arange(c.first_row, c.first_row + c.rows) for c in chunks)]
    )
    shards = pa.array([chunk.shard for chunk in chunks], pa.string())
    due = shards.take(pa.array(np.repeat(np.arange(len(chunks)), [c.rows for c in chunks])))
    found = table["shard"].cast(pa.string()).combine_chunks()
    if not (found.equals(due) and np.array_equal(table["row"].to_numpy(), rows)):
        there = zip(found.to_pylist(), table["row"].to_pylist(), strict=True)
        pairs = zip_longest(there, zip(due.to_pylist(), rows.tolist(), strict=True))
        got, needed = next((a, b) for a, b in pairs if a != b)
        raise VerificationError(
            f"{uri}: its rows are not those of the chunks it commits: it has {_place(got)} where {_place(needed)} "
            "should be"
        )
    grouped = table.group_by(["status", "reason"]).aggregate([([], "count_all")]).to_pylist()
    counts = {status_key(row["status"], row["reason"]): row["count_all"] for row in grouped}
    if other := list(
        differences(dict(part.header.counts), counts, sides=("its footer", "its rows"))
    ):
        raise VerificationError(f"{uri}: its counts are not those of its rows: {'; '.join(other)}")
    require_promise("None" not in counts, f"{uri}: has samples without a status")


def _place(sample: tuple[str, int] | None) -> str:
    return "nothing" if sample is None else f"{sample[0]} row {sample[1]}"


def _verify_contents(run: Run, scored: Run, value: Mapping[str, Any]) -> int:
    """Not a bit of any Parquet file or of the uid list is another one than was written; returns how many files there are.

    Format 1 has no digests of them.
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
    """A subset written elsewhere is still that of the scores and of the pool that it was made from."""
    if run.kind == MATERIALIZED:
        made_from = run.description["fingerprint"].get("scores"), run.pool_digest
        require_promise(
            made_from == (scored.description["fingerprint"], scored.pool_digest),
            f"{run.uri}: {scored.uri} holds other scores than it was made from",
        )


def _shared_columns(run: Run, scored: Run) -> list[str]:
    """What the subset has of a sample that its scores have as well, beside its place."""
    files = run.subset_files()
    # A part without a sample has never met a network, and has no column of its scores.
    part = next((name for name in scored.part_names() if scored.rows_of(part_file(name))), None)
    if part is None or not files:
        return []
    shared = [
        name
        for name in scored.columns_of(part_file(part))
        if name not in (*_PLACE, *BYTE_COLUMNS, *NOT_IN_SUBSET)
    ]
    if run.description["format"] == 1:
        found = set(run.columns_of(f"{SUBSET}/{files[0]}"))
        shared = [name for name in shared if name in found]
    return shared


def _kept_rows(
    scores: RunScores, selection: Selection, columns: Sequence[str], names: Sequence[str]
) -> Tables:
    """The rows that the selection keeps in some parts of a run with scores."""
    for name, table in replace(scores, names=tuple(names)).map_parts(
        partial(_kept, selection, columns)
    ):
        if table is not None:
            yield part_file(name), table


def _kept(
    selection: Selection, columns: Sequence[str], part: ScoredPart
) -> tuple[str, pa.Table | None]:
    kept = selection.keeps(part)
    table = part.table([*_PLACE, *columns]) if kept.any() else None
    return part.name, None if table is None else table.filter(pa.array(kept))


def _listed_rows(run: Run, disowned: Mapping[str, Sequence[Chunk]], names: Sequence[str]) -> Tables:
    """The rows that a uid list asks for in some parts, each as often as it is listed."""
    for name, table in scan_parts(run, [*_PLACE, "key", "status", COPIES], names):
        listed = pc.equal(table["status"], Status.LISTED.value).to_numpy()
        listed &= ~rows_in_chunks(table, disowned.get(name, ()))
        times = np.where(listed, pc.fill_null(table[COPIES], 0).to_numpy(), 0)
        yield part_file(name), table.take(pa.array(np.repeat(np.arange(len(times)), times)))


def _subset_rows(run: Run, columns: Sequence[str], names: Sequence[str]) -> Tables:
    """The rows of some files of the subset."""
    for name, table in scan_subset(run, [*_PLACE, *columns], names):
        yield run.store.uri_of(f"{SUBSET}/{name}"), table


def _verify_subset(run: Run, parts: Sequence[str], due: Rows, columns: list[str]) -> None:
    """The subset files hold the kept samples, each as often as it is kept, and no other, with what their scores say."""
    found = partial(_subset_rows, run, columns)
    files = run.subset_files()
    kept, there = (
        RowSums.total(run_in_slices(names, partial(_sums, run, rows, columns)))
        for names, rows in ((parts, due), (files, found))
    )
    bucket = kept.first_difference(there)
    if bucket is None:
        return
    differing = (
        [
            row
            for some in run_in_slices(names, partial(_in_bucket, run, rows, bucket))
            for row in some
        ]
        for names, rows in ((parts, due), (files, found))
    )
    raise VerificationError(
        f"{run.store.uri_of(SUBSET)}: holds {there.rows:,} samples, the selection keeps {kept.rows:,}; "
        f"{first_different_row(next(differing), next(differing), ['uid', *columns])}"
    )


def _sums(run: Run, rows: Rows, columns: Sequence[str], names: Sequence[str]) -> RowSums:
    total = RowSums()
    for where, table in _placed(run, rows(names)):
        uid = _uids(where, table)
        words = [uid["f0"], uid["f1"], *(column_words(table[name]) for name in columns)]
        total.add(table["place"].to_numpy(), words)
    return total


def _in_bucket(
    run: Run, rows: Rows, bucket: int, names: Sequence[str]
) -> list[tuple[str, dict[str, Any]]]:
    return list(rows_of_bucket(_placed(run, rows(names)), bucket))


def _placed(run: Run, tables: Tables) -> Tables:
    """The tables with `place`, a uint64 that names the sample in the run."""
    index = shard_index(run)
    for where, table in tables:
        for name in _PLACE:
            require_promise(
                not table[name].null_count, f"{where}: is damaged: has rows without {name}"
            )
        number = shard_numbers(table["shard"], index, other=-1)
        if (number < 0).any():
            shard, row = (table[name][int(np.argmin(number))].as_py() for name in _PLACE[1:])
            raise VerificationError(
                f"{where}: has row {row} of {shard}, which {run.listing_name} does not list"
            )
        place = sample_position(number, table["row"].to_numpy())
        yield where, table.append_column("place", pa.array(place))


def _uids(where: str, table: pa.Table) -> np.ndarray:
    try:
        return uid_records(table["uid"])
    except InputError as error:
        raise DamagedRunError(f"{where}: is damaged: {error}") from None


def _stray_files(run: Run, ledger: Ledger) -> Iterator[str]:
    """What lies in the folders of a finished run that is none of it: a driver that had lost the run wrote it late."""
    known = {SCORES: {f"{name}.parquet" for name in ledger.names}, SUBSET: set(run.subset_files())}
    for folder, names in {**known, BORDERLINE: set[str]()}.items():
        if folder == SCORES and run.kind == MATERIALIZED:
            continue
        there = {file.name for file in run.store.list(folder, suffix=".parquet")}
        if stray := sorted(there - names):
            yield (
                f"notice: {len(stray):,} files in {folder}/ are none of the run, first {stray[0]}; a driver that had lost "
                "the run wrote them late, and they may be deleted"
            )
