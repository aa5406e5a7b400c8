"""The subset of a uid list: DataComp's resharder, on any number of nodes, resumable.

A uid listed j times yields j copies. Nothing is scored; the run has the layout and commits of any
other run, with status `listed` or `rejected/not_listed` for every sample of the pool.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from dfn_ray.config import Decode, Execution, Pool
from dfn_ray.console.progress import Progress
from dfn_ray.errors import IncompleteRunError
from dfn_ray.filtering import chain
from dfn_ray.filtering.chain import Committed
from dfn_ray.filtering.part_files import COPIES, image_parquet
from dfn_ray.filtering.scoring.bounds import EVERYTHING
from dfn_ray.filtering.scoring.commit import Committer
from dfn_ray.filtering.scoring.unread_shards import (
    all_changed,
    closing_cell,
    raise_for_unread,
    wait_before_round,
)
from dfn_ray.filtering.subset.listed_rows import keep_listed
from dfn_ray.filtering.subset.settle import SETTLED, remove_all_but
from dfn_ray.filtering.subset.write_uid_list import write_uid_list
from dfn_ray.on_ray.cells import UnreadShard
from dfn_ray.on_ray.footers import read_many_parts
from dfn_ray.on_ray.ray_address import check_ray_reachable
from dfn_ray.on_ray.ray_metrics import PoolMetrics
from dfn_ray.on_ray.session import connect
from dfn_ray.on_ray.work import Work
from dfn_ray.pool import Shard, list_pool, listing_notes, listing_table, require_outside_pool
from dfn_ray.resolving.embedding_fingerprint import pool_fingerprint, reading_versions
from dfn_ray.run import (
    SELECTION,
    SUBSET,
    UID_LIST,
    Acceptance,
    Ledger,
    Part,
    Run,
    RunIdentity,
    RunKind,
    State,
    canonical_ledger,
    newest_first,
    rows_in_chunks,
    scan_ledger,
    scan_subset,
    start_run,
)
from dfn_ray.schema import Chunk, ShardFault
from dfn_ray.uids.lookup import UidList, open_uid_list
from dfn_ray.uids.records import uid_records

_COPIES = pa.schema([(COPIES, pa.int64())])


def materialize_listed(
    pool: Pool,
    uids_uri: str,
    run_uri: str,
    *,
    decode: Decode | None = None,
    execution: Execution | None = None,
) -> dict[str, Any]:
    """Writes the samples of a pool that a uid list names as the subset of a run, new or resumed.

    `decode` places the tasks that read the pool, as for filtering. Returns the counts: uids listed,
    samples found, listed uids that are not in the pool.
    """
    check_ray_reachable()
    execution = execution or Execution()
    uids = open_uid_list(uids_uri)
    listing = list_pool(pool)
    shards = listing.shards
    require_outside_pool(pool, run_uri, setting="output", shards=shards)
    run = _start_listed(run_uri, pool, uids, shards, execution)
    ledger = scan_ledger(run.store, run.fingerprint, read=read_many_parts)
    progress, metrics = _resumed_progress(run_uri, shards, ledger)
    for note in (*listing_notes(listing), *run.notes()):
        progress.say(note)
    unread: dict[str, UnreadShard] = {}
    connect()
    with closing(progress), closing(metrics):
        for number in range(1, execution.rounds + 1):
            work = chain.remaining_work(shards, ledger)
            if not work or all_changed(work, unread):
                break
            wait_before_round(number, unread.values())
            unread.clear()
            for outcome in chain.keep_stream(
                work,
                pool=pool,
                decode=decode or Decode(),
                stage=partial(keep_listed, uids=uids),
                committer=Committer(run, EVERYTHING, None),
                execution=execution,
                strict=number == execution.rounds,
            ):
                if isinstance(outcome, UnreadShard):
                    unread[outcome.shard] = outcome
                    progress.say(f"a shard could not be read: {outcome.message}")
                elif outcome is not None:
                    outcome.add_to(ledger, progress, metrics)
        if execution.give_up_unreachable:
            for part in _close_unreachable(run, ledger, unread):
                part.add_to(ledger, progress, metrics)
    if unread:
        raise_for_unread(unread, shards=len(shards), rounds=execution.rounds)
    _require_finished(chain.remaining_work(shards, ledger), execution)
    return _conclude(run, uids, ledger)


def _require_finished(left: Sequence[Work], execution: Execution) -> None:
    """Raises IncompleteRunError if there is work left."""
    if left:
        raise IncompleteRunError(
            f"{len(left):,} shards could not be finished in {execution.rounds} rounds, "
            f"{left[0].shard.uri} among them; the others are committed. Run the same command again "
            "to resume, or remove these shards from the pool"
        )


def _resumed_progress(
    run_uri: str, shards: Sequence[Shard], ledger: Ledger
) -> tuple[Progress, PoolMetrics]:
    """Progress line and metrics that begin with what is committed already."""
    total_bytes = sum(shard.size_bytes for shard in shards)
    progress = Progress(total_bytes, stage="reading")
    progress.resume(ledger.samples, ledger.bytes_read, ledger.counts, ledger.notes)
    metrics = PoolMetrics(run_uri, shards=len(shards), total_bytes=total_bytes)
    metrics.resume(ledger)
    return progress, metrics


def _start_listed(
    run_uri: str, pool: Pool, uids: UidList, shards: Sequence[Shard], execution: Execution
) -> Run:
    """The run of a uid list, created or resumed."""
    return start_run(
        run_uri,
        RunIdentity(
            kind=RunKind.LISTED,
            fingerprint={
                "pool": pool_fingerprint(pool),
                "versions": reading_versions(pool, shards),
                "uids": uids.sha256,
            },
            listing=listing_table(shards),
        ),
        recipe={"run_uri": run_uri, "pool": asdict(pool), "uids": uids.uri},
        accept=Acceptance(
            changed_shards=execution.accept_changed_shards, versions=execution.accept_versions
        ),
    )


def _close_unreachable(
    run: Run, ledger: Ledger, unread: dict[str, UnreadShard]
) -> Iterator[Committed]:
    """Commits the ends of unreachable, not of changed, shards; removes them from `unread`."""
    for shard in [item for item in unread.values() if not item.changed]:
        cell = closing_cell(ledger, shard.shard, ShardFault.UNREACHABLE, shard.message, _COPIES)
        if cell is not None:
            part = Committer(run, EVERYTHING, None).commit([cell])
            yield Committed(part.name, part.chunks, {})
            del unread[shard.shard]


def _conclude(run: Run, uids: UidList, ledger: Ledger) -> dict[str, Any]:
    """Writes uid list and counts, which mark the subset as finished; removes other files."""
    run.check_attempt()  # never return counts that another driver has made
    value = run.read_json(SELECTION) or _finished(run, uids, ledger)
    # A reader of `subset/` as a pool sees every file there. Removed only after the counts are
    # written, which fix the list of files.
    remove_all_but(run, run.subset_files())
    return value


def _finished(run: Run, uids: UidList, ledger: Ledger) -> dict[str, Any]:
    """Writes the uid list and the counts; returns the counts."""
    ledger = canonical_ledger(run.store, run.fingerprint, ledger, read=read_many_parts)
    counts = ledger.counts
    rows: dict[str, int] = {}
    for part in read_many_parts(run.store, newest_first(ledger.names)):
        if part.header.subset:
            rows |= _owned(run, part, ledger.disowned.get(part.name, ()))
    files, found = sorted(rows), sum(rows.values())
    names_file = run.write_names("files", files)
    written = write_uid_list(run, UID_LIST, _subset_uids(run, files), found)
    value = {
        "parts": run.write_names("parts", newest_first(ledger.names)),
        "files": names_file,
        "state": State.FINAL,
        "uid_list_sha256": written["uid_list_sha256"],
        "uids": uids.uri,
        "listed": len(uids.records()),
        "k": found,
        "threshold": None,
        "not_found": uids.distinct - (found - written["repeated_uids"]),
        "samples": sum(counts.values()),
        "counts": dict(sorted(counts.items())),
    }
    run.replace_json(SELECTION, value, None)
    return value


def _owned(run: Run, part: Part, disowned: Sequence[Chunk]) -> dict[str, int]:
    """The subset file of a part, without rows of chunks that another part owns -> its row count."""
    if not disowned:
        return {f"{part.header.subset}.parquet": part.header.subset_rows}
    table = run.read_table(f"{SUBSET}/{part.header.subset}.parquet")
    rows = table.filter(pa.array(~rows_in_chunks(table, disowned)))
    name = f"{part.header.subset}{SETTLED}.parquet"
    if rows.num_rows:
        run.write(f"{SUBSET}/{name}", image_parquet(rows, name))
    return {name: rows.num_rows} if rows.num_rows else {}


def _subset_uids(run: Run, files: Sequence[str]) -> Iterator[np.ndarray]:
    for _, table in scan_subset(run, ["uid"], files):
        yield uid_records(table["uid"])
