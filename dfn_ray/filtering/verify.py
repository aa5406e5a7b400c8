"""Proving the promises of a finished run from what is on storage, in constant memory."""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where no type checker sees them)
from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from dfn_ray.config import Select, stored_pool
from dfn_ray.errors import InputError, MissingFileError, VerificationError
from dfn_ray.filtering.preflight import MATERIALIZED, SCORED, scores_of
from dfn_ray.filtering.scores import RunScores
from dfn_ray.filtering.select_run import SELECTION, State, select_run, stored_selection
from dfn_ray.filtering.uid_list import UID_LIST
from dfn_ray.manifest import (
    SCORES,
    SUBSET,
    Ledger,
    Part,
    Run,
    open_run,
    part_name,
    part_names,
    pool_digest,
    read_listing,
    read_parts,
    status_key,
    subset_tables,
)
from dfn_ray.pool import Shard, listed_shards, listed_versions, read_rows
from dfn_ray.schema import score_column
from dfn_ray.storage import stat
from dfn_ray.uids import UID_DTYPE, first_unsorted, uid_records

SAMPLE_SHARDS = 8
"""Shards whose kept samples are compared with the pool byte by byte, unless all are asked for."""
SAMPLE_ROWS = 256
"""Kept samples compared per such shard."""


@dataclass(frozen=True)
class Multiset:
    """A multiset of samples as count and sum of hashes: equal for equal multisets in any order.

    Two different multisets agree with probability 2^-64.
    """

    count: int = 0
    total: int = 0

    def plus(self, position: np.ndarray, uid: np.ndarray, score: np.ndarray) -> Multiset:
        """With samples added: (shard, row) positions uint64, uid records and float32 scores, shape (N,)."""
        mixed = _mix(position)
        for word in (uid["f0"], uid["f1"], score.view(np.uint32).astype(np.uint64)):
            mixed = _mix(mixed ^ word)
        total = int(mixed.sum(dtype=np.uint64)) if len(mixed) else 0
        return Multiset(self.count + len(position), (self.total + total) & 0xFFFFFFFFFFFFFFFF)


def verify_run(
    run_uri: str, *, full: bool = False, say: Callable[[str], None] = lambda _: None
) -> dict[str, int]:
    """Check every promise of a finished run; returns what was counted.

    `full` compares all kept samples with the pool, otherwise a sample of them. Raises VerificationError
    naming the first breach.
    """
    run = open_run(run_uri)
    value = run.read_json(SELECTION)
    _require(
        value is not None, f"{run_uri}: has no {SELECTION}: the run is not finished, run it again"
    )
    assert value is not None
    _require(
        value["state"] == State.FINAL,
        f"{run_uri}: its subset is not finished ({value['state']}); run it again",
    )
    scored = scores_of(run)
    ledger = _verify_parts(scored)
    say(f"chunks complete and disjoint: {ledger.complete_shards:,} shards, {ledger.parts:,} parts")
    say(f"counts balance: {ledger.samples:,} samples")
    if scored.description["kind"] == SCORED:
        _verify_source(run, scored)
        scores = _verify_selection(scored, value)
        say(f"selection = f(scores): {value['k']:,} kept, threshold {value['threshold']}")
        _verify_subset(run, scores, value)
    _verify_uid_list(run, value)
    say(f"subset = selection: {value['k']:,} samples and uids")
    compared = _verify_bytes(run, full=full, say=say)
    say(f"bytes equal to the pool's: {compared:,} samples compared")
    return {
        "shards": ledger.complete_shards,
        "samples": ledger.samples,
        "kept": value["k"],
        "compared": compared,
    }


def _verify_parts(run: Run) -> Ledger:
    """Footers tile the pool; every part holds exactly the rows and counts that its footer says."""
    ledger = Ledger()
    names = part_names(run.store)
    for part in read_parts(run.store, names):
        uri = run.store.uri_of(f"{SCORES}/{part.name}.parquet")
        _require(
            part.header.fingerprint == run.fingerprint,
            f"{uri}: made under another fingerprint than the run's: scores are mixed",
        )
        _require(
            part_name(part.chunks) == part.name,
            f"{uri}: commits chunks that are not those of its name",
        )
        _verify_rows(run, part, uri)
        ledger.add(part.name, part.chunks, part.header.counts)
    listing = read_listing(run)["uri"].to_pylist()
    missing = [shard for shard in listing if not ledger.is_complete(shard)]
    _require(
        not missing,
        f"{run.store.uri}: {len(missing)} shards are not complete, {missing[0] if missing else ''} first",
    )
    return ledger


def _verify_rows(run: Run, part: Part, uri: str) -> None:
    with run.store.open(f"{SCORES}/{part.name}.parquet") as file:
        table = pq.read_table(file, columns=["shard", "row", "status", "reason"])
    expected = [
        (chunk.shard, chunk.first_row + offset)
        for chunk in sorted(part.chunks, key=lambda c: (c.shard, c.first_row))
        for offset in range(chunk.rows)
    ]
    found = list(zip(table["shard"].to_pylist(), table["row"].to_pylist(), strict=True))
    _require(found == expected, f"{uri}: its rows are not those of the chunks it commits")
    counts = Counter(
        status_key(status, reason)
        for status, reason in zip(
            table["status"].to_pylist(), table["reason"].to_pylist(), strict=True
        )
    )
    _require(counts == Counter(part.header.counts), f"{uri}: its counts are not those of its rows")
    _require("None" not in counts, f"{uri}: has samples without a status")


def _verify_source(run: Run, scored: Run) -> None:
    """A subset written elsewhere is still that of the scores and of the pool that it was made from."""
    if run.description["kind"] == MATERIALIZED:
        made_from = run.description["fingerprint"]["scores"], pool_digest(run)
        _require(
            made_from == (scored.description["fingerprint"], pool_digest(scored)),
            f"{run.store.uri}: {scored.store.uri} holds other scores than it was made from",
        )


def _verify_selection(run: Run, value: Mapping[str, Any]) -> RunScores:
    """The stored selection is what its rule gives on the stored scores."""
    selected, scores = select_run(run, Select(**value["select"]), value["network"])
    for name, again in selected.to_json(run).items():
        # JSON has lists where Python has tuples.
        if name == "notes" and name not in value:
            continue  # a run of format 1 has counted none
        stored = value.get(name)
        stored = tuple(stored) if isinstance(again, tuple) and stored else stored
        _require(
            stored == again,
            f"{run.store.uri_of(SELECTION)}: {name} is {stored}, the scores give {again}",
        )
    return scores


def _verify_subset(run: Run, scores: RunScores, value: Mapping[str, Any]) -> None:
    """The subset files hold the kept samples, each once, and no other."""
    selection, column = stored_selection(value), score_column(scores.network)
    expected = Multiset()
    for rows in scores():
        kept = selection.keeps(rows)
        if kept.any():
            expected = expected.plus(rows.position[kept], rows["uid"][kept], rows["score"][kept])
    found = Multiset()
    for _, table in subset_tables(run, ["uid", "shard", "row", column]):
        position = scores.positions(table)
        score = table[column].to_numpy(zero_copy_only=False)
        found = found.plus(position, uid_records(table["uid"]), score)
    if found != expected:
        _name_breach(run, scores, value)
    _require(
        found == expected,
        f"{run.store.uri_of(SUBSET)}: holds {found.count:,} samples, the selection keeps {expected.count:,}",
    )


def _name_breach(run: Run, scores: RunScores, value: Mapping[str, Any]) -> None:
    """Find and name one sample that is in the subset but not kept, kept but not there, or there twice."""
    selection = stored_selection(value)
    kept = [rows.position[selection.keeps(rows)] for rows in scores()]
    expected = np.concatenate([np.empty(0, np.uint64), *kept])
    shards = scores.shard_uris
    seen: set[int] = set()
    for file, table in subset_tables(run, ["shard", "row"]):
        for position in scores.positions(table).tolist():
            where = f"{shards[position >> 32]} row {position & 0xFFFFFFFF}"
            _require(position not in seen, f"{file.uri}: {where} is in the subset twice")
            _require(
                bool((expected == position).any()),
                f"{file.uri}: {where} is in the subset but the selection does not keep it",
            )
            seen.add(position)
    for position in expected.tolist():
        where = f"{shards[position >> 32]} row {position & 0xFFFFFFFF}"
        _require(
            position in seen,
            f"{run.store.uri_of(SUBSET)}: {where} is kept by the selection but not in the subset",
        )


def _verify_uid_list(run: Run, value: Mapping[str, Any]) -> None:
    """`subset_uids.npy` is sorted and lists the kept uids, each as often as it is kept."""
    uri = run.store.uri_of(UID_LIST)
    with run.store.open(UID_LIST) as file:
        version = np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        _require(version == (1, 0) and dtype == UID_DTYPE, f"{uri}: is not an array of u8,u8")
        _require(shape == (value["k"],), f"{uri}: lists {shape[0]:,} uids of {value['k']:,} kept")
        listed, last = Multiset(), None
        while octets := file.read(UID_DTYPE.itemsize << 16):
            uids = np.frombuffer(octets, dtype=UID_DTYPE)
            joined = uids if last is None else np.concatenate([last, uids])
            _require(first_unsorted(joined) is None, f"{uri}: is not sorted")
            last = uids[-1:]
            listed = _plus_uids(listed, uids)
    expected = Multiset()
    for _, table in subset_tables(run, ["uid"]):
        expected = _plus_uids(expected, uid_records(table["uid"]))
    _require(listed == expected, f"{uri}: its uids are not those of the subset")


def _verify_bytes(run: Run, *, full: bool, say: Callable[[str], None]) -> int:
    """Kept images and captions equal the pool's. Another size or version of a shard is only said: its bytes decide."""
    pool = stored_pool(run.description["recipe"])
    listing = read_listing(run)
    shards = {shard.uri: shard for shard in listed_shards(listing)}
    versions = listed_versions(listing)
    noticed: set[str] = set()
    wanted = set(shards)
    if not full:
        wanted = set(random.Random(0).sample(sorted(shards), min(SAMPLE_SHARDS, len(shards))))
    compared = 0
    for file, table in subset_tables(run, ["uid", "shard", "row", "image", "text"]):
        names = table["shard"].cast(pa.string())
        for shard in sorted(wanted & set(names.unique().to_pylist())):
            here = table.filter(pc.equal(names, shard)).sort_by("row")
            here = here if full else here.slice(0, SAMPLE_ROWS)
            rows = here["row"].to_pylist()
            if shard not in noticed and (notice := _notice(shards[shard], versions.get(shard))):
                say(notice)
            noticed.add(shard)
            whatever = replace(shards[shard], size_bytes=0)
            try:
                of_pool = pa.concat_tables(read_rows(whatever, pool, set(rows)))
            except InputError as error:
                raise VerificationError(
                    f"{file.uri}: holds samples that the pool has no more: {error}"
                ) from error
            # A uid list may ask for copies of a sample.
            of_pool = of_pool.take(pc.index_in(here["row"], of_pool["row"].combine_chunks()))
            for name in ("row", "uid", "image", "text"):
                _require(
                    here[name].to_pylist() == of_pool[name].to_pylist(),
                    f"{file.uri}: {name} of samples of {shard} differs from the pool's",
                )
            compared += here.num_rows
    return compared


def _notice(shard: Shard, version: str | None) -> str:
    """What a shard differs in from its listing; empty for nothing, or where it cannot be asked without reading it."""
    try:
        now = stat(shard.opened_at)
    except MissingFileError:
        return ""  # reading it says so
    if now is None:
        return ""  # a class folder
    if shard.size_bytes and now.size_bytes and now.size_bytes != shard.size_bytes:
        return f"notice: {shard.uri} was listed with {shard.size_bytes:,} bytes and has {now.size_bytes:,} now"
    if version and now.version and version != now.version:
        return f"notice: {shard.uri} was listed with version {version} and has {now.version} now"
    return ""


def _plus_uids(multiset: Multiset, uids: np.ndarray) -> Multiset:
    nothing = np.zeros(len(uids), dtype=np.uint64)
    return multiset.plus(nothing, uids, np.zeros(len(uids), dtype=np.float32))


def _mix(words: np.ndarray) -> np.ndarray:
    """splitmix64's finaliser (Steele, Lea, Flood 2014): spreads every input bit over 64 bits."""
    with np.errstate(over="ignore"):
        mixed = words.astype(np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))


def _require(holds: bool, breach: str) -> None:
    if not holds:
        raise VerificationError(breach)
