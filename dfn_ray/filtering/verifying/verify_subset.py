"""Check of the subset: its files contain exactly the kept samples, with the scores' values."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.errors import DamagedRunError, InputError, VerificationError
from dfn_ray.filtering.part_files import COPIES, NOT_IN_SUBSET
from dfn_ray.filtering.selecting.exact_k import Selection
from dfn_ray.filtering.selecting.run_scores import RunScores, ScoredPart, shard_index
from dfn_ray.filtering.verifying.row_sums import (
    RowSums,
    column_words,
    first_different_row,
    rows_of_bucket,
)
from dfn_ray.filtering.verifying.verify_selections import require_promise
from dfn_ray.on_ray.slices import run_in_slices
from dfn_ray.run import (
    SUBSET,
    Run,
    part_file,
    rows_in_chunks,
    sample_position,
    scan_parts,
    scan_subset,
    shard_numbers,
)
from dfn_ray.schema import BYTE_COLUMNS, Chunk, Status
from dfn_ray.uids.records import uid_records

_PLACE = ("uid", "shard", "row")
Tables = Iterator[tuple[str, pa.Table]]
"""Tables with the columns that scores and subset share, each with its file."""
Rows = Callable[[Sequence[str]], Tables]
"""Returns the rows of the named parts, or of the named subset files."""


def shared_columns(run: Run, scored: Run) -> list[str]:
    """Columns that scores and subset share, except uid, shard and row."""
    files = run.subset_files()
    # A part without samples has no score columns.
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


def kept_rows(
    scores: RunScores, selection: Selection, columns: Sequence[str], names: Sequence[str]
) -> Tables:
    """The rows of the named parts that the selection keeps."""
    parts = replace(scores, names=tuple(names)).with_columns(*_PLACE, *columns)
    for name, table in parts.map_parts(partial(_kept_of_part, selection, columns)):
        if table is not None:
            yield part_file(name), table


def _kept_of_part(
    selection: Selection, columns: Sequence[str], part: ScoredPart
) -> tuple[str, pa.Table | None]:
    kept = selection.keeps(part)
    table = part.table([*_PLACE, *columns]) if kept.any() else None
    return part.name, None if table is None else table.filter(pa.array(kept))


def listed_rows(run: Run, disowned: Mapping[str, Sequence[Chunk]], names: Sequence[str]) -> Tables:
    """The rows of the named parts that a uid list contains, each as often as it is listed."""
    for name, table in scan_parts(run, [*_PLACE, "key", "status", COPIES], names):
        listed = pc.equal(table["status"], Status.LISTED.value).to_numpy()
        listed &= ~rows_in_chunks(table, disowned.get(name, ()))
        times = np.where(listed, pc.fill_null(table[COPIES], 0).to_numpy(), 0)
        yield part_file(name), table.take(pa.array(np.repeat(np.arange(len(times)), times)))


def _subset_rows(run: Run, columns: Sequence[str], names: Sequence[str]) -> Tables:
    """The rows of the named subset files."""
    for name, table in scan_subset(run, [*_PLACE, *columns], names):
        yield run.store.uri_of(f"{SUBSET}/{name}"), table


def verify_subset(run: Run, parts: Sequence[str], due: Rows, columns: list[str]) -> None:
    """Checks that the subset files contain exactly the kept samples, as often as they are kept.

    `due` returns the kept rows of parts; the values of `columns` must be equal in both.
    """
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
        f"{run.store.uri_of(SUBSET)}: contains {there.rows:,} samples, the selection keeps "
        f"{kept.rows:,}; {first_different_row(next(differing), next(differing), ['uid', *columns])}"
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
    """The tables with a column `place`, a uint64 that identifies the sample in the run."""
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
