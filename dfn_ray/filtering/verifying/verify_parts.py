"""Check of the parts of a run: footers tile the pool, and rows match their footers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import zip_longest

import numpy as np
import pyarrow as pa

from dfn_ray.errors import VerificationError
from dfn_ray.filtering.selecting.run_scores import shard_index
from dfn_ray.filtering.verifying.verify_selections import require_promise
from dfn_ray.on_ray.slices import run_in_slices
from dfn_ray.run import (
    Ledger,
    Part,
    Run,
    differences,
    part_file,
    read_ahead,
    read_part_with_rows,
    scan_ledger,
)
from dfn_ray.schema import status_key


def verify_parts(run: Run) -> Ledger:
    """Checks that footers tile the pool and that each part has its footer's rows and counts."""
    names = run.part_names()
    listed = shard_index(run)
    ledger = scan_ledger(
        run.store, run.fingerprint, names, read=lambda _, names: _verified_parts(run, names)
    )
    missing = [shard for shard in listed if not ledger.is_complete(shard)]
    require_promise(
        not missing,
        f"{run.uri}: {len(missing)} shards are not complete, first {missing[0] if missing else ''}",
    )
    return ledger


def _verified_parts(run: Run, names: Sequence[str]) -> Iterator[Part]:
    for some in run_in_slices(names, partial(_verify_some, run), in_order=True):
        yield from some


def _verify_some(run: Run, names: Sequence[str]) -> list[Part]:
    return list(read_ahead(names, partial(_verify_part, run)))


def _verify_part(run: Run, name: str) -> Part:
    """The part, verified against its rows. Raises VerificationError."""
    part, table = read_part_with_rows(run.store, name, ["shard", "row", "status", "reason"])
    uri = run.store.uri_of(part_file(name))
    require_promise(
        part.header.fingerprint == run.fingerprint,
        f"{uri}: has another fingerprint than the run, so scores of different settings are mixed",
    )
    if foreign := {chunk.shard for chunk in part.chunks} - shard_index(run).keys():
        raise VerificationError(
            f"{uri}: commits rows of {min(foreign)}, which {run.store.uri_of(run.listing_name)} "
            "does not list"
        )
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
            f"{uri}: its rows are not those of the chunks it commits: it has {_place(got)} instead "
            f"of {_place(needed)}"
        )
    grouped = table.group_by(["status", "reason"]).aggregate([([], "count_all")]).to_pylist()
    counts = {status_key(row["status"], row["reason"]): row["count_all"] for row in grouped}
    if other := list(
        differences(dict(part.header.counts), counts, sides=("its footer", "its rows"))
    ):
        raise VerificationError(f"{uri}: its counts are not those of its rows: {'; '.join(other)}")
    require_promise("None" not in counts, f"{uri}: has samples without a status")
    return part


def _place(sample: tuple[str, int] | None) -> str:
    return "nothing" if sample is None else f"{sample[0]} row {sample[1]}"
