"""The subset that a uid list asks for: DataComp's resharder, on any number of nodes, resumable.

A uid listed j times gives j copies. Nothing is scored; the run has the layout and the commit of any
other, with status `listed` or `rejected/not_listed` for every sample of the pool.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.config import Execution, Pool
from dfn_ray.errors import IncompleteRun, InputError
from dfn_ray.filtering import stream
from dfn_ray.filtering.calibrate import EVERYTHING
from dfn_ray.filtering.cells import Cell
from dfn_ray.filtering.commit import COPIES, Committer
from dfn_ray.filtering.filter_pool import State
from dfn_ray.filtering.fingerprint import pool_fingerprint
from dfn_ray.filtering.select_run import SELECTION
from dfn_ray.filtering.statuses import mark, open_rows
from dfn_ray.filtering.stream import Work
from dfn_ray.filtering.uid_list import write_uid_list
from dfn_ray.manifest import SUBSET, Run, scan_ledger, start_run
from dfn_ray.pool import list_shards, listing_table
from dfn_ray.schema import Reason, Status
from dfn_ray.storage import filesystem, read_uri
from dfn_ray.telemetry import Progress
from dfn_ray.uids import UID_DTYPE, first_unsorted, uid_records

NPY_MAGIC = b"\x93NUMPY"
SLICE = 1 << 22
"""Uids looked at a time when a list is checked: 64 MiB."""


@dataclass(frozen=True)
class UidList:
    """A sorted u8,u8 list on storage, `.npy` or bare records."""

    uri: str
    sha256: str
    distinct: int
    """Different uids in the list."""

    def records(self) -> np.ndarray:
        """The list, memory-mapped; a list on an object store is copied to this node's disk on first use."""
        return _mapped(self.uri)


def open_uid_list(uri: str) -> UidList:
    """The uid list at a URI. Raises InputError when it is not sorted: a search would miss uids."""
    uids = _mapped(uri)
    content, distinct = hashlib.sha256(), min(1, len(uids))
    for start in range(0, len(uids), SLICE):
        piece = np.asarray(uids[start : start + SLICE + 1])
        content.update(piece[:SLICE].tobytes())
        distinct += int((piece[1:] != piece[:-1]).sum())
        if (at := first_unsorted(piece)) is not None:
            raise InputError(
                f"{uri}: is not sorted (record {start + at} is smaller than the one before); sort it with "
                "numpy.sort and save it again"
            )
    return UidList(uri, content.hexdigest(), distinct)


def materialize_listed(
    pool: Pool, uids_uri: str, run_uri: str, execution: Execution | None = None
) -> dict[str, Any]:
    """Write the samples of a pool that a uid list names as the subset of a new run, or resume that.

    Returns the counts: uids listed, samples found, listed uids that the pool does not have.
    """
    execution = execution or Execution()
    uids = open_uid_list(uids_uri)
    shards = list_shards(pool)
    run = start_run(
        run_uri,
        kind="listed",
        recipe={"run_uri": run_uri, "pool": asdict(pool), "uids": uids_uri},
        fingerprint={"pool": pool_fingerprint(pool), "uids": uids.sha256},
        listing=listing_table(shards),
    )
    ledger = scan_ledger(run.store, run.fingerprint)
    progress = Progress(sum(shard.size_bytes for shard in shards), stage="reading")
    progress.resume(ledger.samples, ledger.bytes_read, ledger.counts)
    stream.connect()
    for attempt in range(execution.attempts):
        work = [
            Work(shard, skip=frozenset(ledger.open_chunks(shard.uri)))
            for shard in shards
            if not ledger.is_complete(shard.uri)
        ]
        if not work:
            break
        for part in stream.keep_stream(
            work,
            pool=pool,
            stage=partial(keep_listed, uids=uids),
            committer=Committer(run, EVERYTHING, None),
            execution=execution,
            tolerant=attempt + 1 < execution.attempts,
        ):
            ledger.add(part.name, part.chunks, part.counts)
            progress.add(
                sum(chunk.rows for chunk in part.chunks),
                sum(chunk.bytes_read for chunk in part.chunks),
                part.counts,
            )
    progress.close()
    left = [shard.uri for shard in shards if not ledger.is_complete(shard.uri)]
    if left:
        raise IncompleteRun(
            f"{len(left)} shards could not be read, {left[0]} among them; run again"
        )
    return _conclude(run, uids, scan_ledger(run.store, run.fingerprint).counts)


def keep_listed(cell: Cell, *, uids: UidList) -> Cell:
    """The cell with every open sample marked listed or not, how often, and bytes of the listed alone."""
    records, rows = uids.records(), open_rows(cell.samples)
    own = uid_records(cell.samples["uid"].take(pa.array(rows)))
    times = np.searchsorted(records, own, side="right") - np.searchsorted(records, own, side="left")
    reasons = [None if n else Reason.NOT_LISTED for n in times.tolist()]
    samples = mark(cell.samples, rows, reasons, otherwise=Status.LISTED)
    copies = np.zeros(len(samples), dtype=np.int64)
    copies[rows] = times
    return replace(cell, samples=samples.append_column(COPIES, pa.array(copies)))


def _conclude(run: Run, uids: UidList, counts: Counter[str]) -> dict[str, Any]:
    """Write the list of what was found and the counts that declare the subset finished."""
    found = sum(len(some) for some in _subset_uids(run))
    repeated = write_uid_list(run.store, lambda: _subset_uids(run), found)
    value = {
        "state": State.FINAL,
        "uids": uids.uri,
        "listed": len(uids.records()),
        "k": found,
        "threshold": None,
        "not_found": uids.distinct - (found - repeated),
        "samples": sum(counts.values()),
        "counts": dict(sorted(counts.items())),
    }
    run.write_json(SELECTION, value)
    return value


def _subset_uids(run: Run) -> Iterator[np.ndarray]:
    for file in run.store.list(SUBSET, suffix=".parquet"):
        with run.store.open(f"{SUBSET}/{file.uri.rsplit('/', 1)[-1]}") as opened:
            yield uid_records(pq.read_table(opened, columns=["uid"])["uid"])


@cache
def _mapped(uri: str) -> np.ndarray:
    path = Path(uri.removeprefix("file://"))
    if "://" in str(path):
        info = filesystem(uri).info(uri)
        version = json.dumps([uri, info.get("size"), info.get("ETag")])
        name = hashlib.sha256(version.encode()).hexdigest()[:32]
        path = Path(tempfile.gettempdir()) / f"dfn_ray-uids-{name}"
        if not path.exists():
            aside = path.with_suffix(f".{os.getpid()}")
            aside.write_bytes(read_uri(uri))
            os.replace(aside, path)
    with open(path, "rb") as file:
        is_npy = file.read(len(NPY_MAGIC)) == NPY_MAGIC
    uids = np.load(path, mmap_mode="r") if is_npy else np.memmap(path, dtype=UID_DTYPE, mode="r")
    if uids.dtype != UID_DTYPE:
        raise InputError(f"{uri}: holds {uids.dtype}, need u8,u8 records")
    return uids
