"""The run on storage: what is there, what is committed, and how a part is committed.

    RUN_URI/
      run.json               kind, resolved recipe, fingerprint, versions, digest of the pool listing
      pool.parquet           the pool listing: uri, name, size_bytes, fault, version of every shard
      attempt.json           which driver may commit now
      spending/*.json        what each attempt used, for budgets
      bounds.json            [lo, hi] for the threshold, from calibration
      scores/part-*.parquet  one row per sample; the footer names the chunks it commits
      subset/part-*.parquet  the kept
      borderline/part-*.parquet   only while the run is not finalised
      selection.json         the rule and its exact result
      subset_uids.npy        sorted u8,u8 records

**Commit.** A part is named by its chunks. Its subset and borderline files are written first, its
scores file last, each whole or absent: the scores file is the commit. A crash in between leaves
files that no scores file names; they are overwritten by the retry or ignored. What is committed is
the union of the footers, nothing else. Where two parts commit the same chunk (a driver that was
thought dead wrote on), the part that sorts first owns it, and readers skip it in the other.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.errors import FingerprintError, IncompleteRun, InputError, RunTakenOver, shortened
from dfn_ray.relisting import relisted, resized, scored_sizes
from dfn_ray.schema import Chunk, ShardFault
from dfn_ray.storage import File, Store
from dfn_ray.versions import package_versions

FORMAT_VERSION = 2
"""Of what a run holds and how it is read. Raise it when runs made before cannot be resumed by what comes after."""
READABLE_FORMATS = (1, FORMAT_VERSION)
"""What verify, select, export and compare read. Runs of format 1 were made by other readers, decoders and tokenizers, of
whose versions they say nothing, so they are never resumed."""
SCORES, SUBSET, BORDERLINE = "scores", "subset", "borderline"
SCAN_THREADS = 32
"""Footers read side by side; a footer is one or two small range requests, so latency dominates."""

_LISTING, _ATTEMPT = "pool.parquet", "attempt.json"
_CHUNKS, _PART = b"dfn_ray.chunks", b"dfn_ray.part"


@dataclass(frozen=True, kw_only=True)
class PartHeader:
    """What the footer of a scores part says about the part beside its chunks."""

    fingerprint: str
    """Digest of the fingerprint under which the scores were made."""
    bounds: tuple[float, float]
    """[lo, hi): rows with score >= hi went to subset/, those between to borderline/."""
    subset_rows: int
    borderline_rows: int
    counts: Mapping[str, int]
    """Samples by `status` or `status/reason`."""


@dataclass(frozen=True)
class Part:
    """A committed part: its name, chunks and header."""

    name: str
    chunks: tuple[Chunk, ...]
    header: PartHeader


def part_name(chunks: Iterable[Chunk]) -> str:
    """The name of the part that commits exactly these chunks, whoever writes it."""
    digest = hashlib.blake2b(digest_size=16)
    for chunk in sorted(chunks, key=lambda c: (c.shard, c.first_row)):
        digest.update(f"{chunk.shard}\0{chunk.first_row}\0".encode())
    return f"part-{digest.hexdigest()}"


def part_footer(chunks: Sequence[Chunk], header: PartHeader) -> dict[bytes, bytes]:
    """The Parquet key-value metadata that commits `chunks`."""
    values = {
        "fingerprint": header.fingerprint,
        "bounds": [str(bound) for bound in header.bounds],
        "subset_rows": header.subset_rows,
        "borderline_rows": header.borderline_rows,
        "counts": dict(header.counts),
    }
    return {
        _CHUNKS: json.dumps([chunk.to_json() for chunk in chunks]).encode(),
        _PART: json.dumps(values).encode(),
    }


def read_part(store: Store, name: str) -> Part:
    """The chunks and header of a committed part, from its footer alone."""
    with store.open(f"{SCORES}/{name}.parquet") as file:
        try:
            metadata = pq.read_metadata(file).metadata or {}
        except pa.ArrowInvalid as error:
            raise InputError(
                f"{store.uri_of(f'{SCORES}/{name}.parquet')}: not a whole Parquet file: {error}; "
                "delete it and resume, its chunks will be scored again"
            ) from None
    if _CHUNKS not in metadata:
        raise InputError(
            f"{store.uri_of(f'{SCORES}/{name}.parquet')}: commits no chunks, so dfn_ray did not write it; "
            "move it out of the run"
        )
    values = json.loads(metadata[_PART])
    lo, hi = (float(bound) for bound in values["bounds"])
    return Part(
        name,
        tuple(Chunk.from_json(value) for value in json.loads(metadata[_CHUNKS])),
        PartHeader(
            fingerprint=values["fingerprint"],
            bounds=(lo, hi),
            subset_rows=values["subset_rows"],
            borderline_rows=values["borderline_rows"],
            counts=values["counts"],
        ),
    )


def part_names(store: Store) -> list[str]:
    """Names of all committed parts, sorted."""
    return parquet_stems(store, SCORES)


def parquet_stems(store: Store, folder: str) -> list[str]:
    """Names, without their ending, of the Parquet files in a folder of a run, sorted."""
    return [file.name.removesuffix(".parquet") for file in store.list(folder, suffix=".parquet")]


def read_parts(store: Store, names: Sequence[str]) -> Iterator[Part]:
    """The parts of those names in that order, their footers read side by side."""
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        # In slices, so that neither futures nor footers of a million parts pile up.
        for start in range(0, len(names), 4096):
            yield from pool.map(lambda name: read_part(store, name), names[start : start + 4096])


class Ledger:
    """Which chunks are committed. A few hundred bytes a shard once the shard is complete.

    `unfinished` shards keep the (first_row, rows) of their chunks; complete ones only their row count.
    """

    def __init__(self) -> None:
        self.parts = 0
        self.counts: Counter[str] = Counter()
        self.faults: dict[str, tuple[ShardFault, str]] = {}
        self.bytes_read = 0
        self.notes: Counter[str] = Counter()
        """Samples by `Note`, over all committed chunks."""
        self.disowned: dict[str, list[Chunk]] = {}
        """By part: chunks that an earlier part owns; their rows in this part do not count."""
        self._rows: dict[str, int] = {}
        self._open: dict[str, dict[int, int]] = {}
        self._end: dict[str, int] = {}

    def add(self, name: str, chunks: Sequence[Chunk], counts: Mapping[str, int]) -> None:
        """Take in a committed part. In the order of names the ownership of doubled chunks is the same for all."""
        self.parts += 1
        doubled = [chunk for chunk in chunks if not self._own(chunk)]
        if doubled:
            self.disowned[name] = doubled
        self.counts.update(counts)

    def is_complete(self, shard: str) -> bool:
        """True when the chunks of the shard tile it from row 0 to its end."""
        return shard in self._rows

    def open_chunks(self, shard: str) -> Mapping[int, int]:
        """First row -> rows of the committed chunks of a shard that is not complete."""
        return self._open.get(shard, {})

    def last_chunk(self, shard: str) -> int | None:
        """First row of the committed chunk that ends an incomplete shard; None where that is not committed."""
        return max(self._open[shard]) if shard in self._end else None

    def rows_in_front(self, shard: str) -> int | None:
        """Rows that the committed chunks of an incomplete shard hold; None where a chunk in front of others is absent."""
        end = 0
        for first_row, rows in sorted(self.open_chunks(shard).items()):
            if first_row != end:
                return None
            end += rows
        return end

    @property
    def complete_shards(self) -> int:
        """Number of complete shards."""
        return len(self._rows)

    @property
    def samples(self) -> int:
        """Samples in committed chunks."""
        return sum(self._rows.values()) + sum(
            sum(chunks.values()) for chunks in self._open.values()
        )

    def require_complete(self, shards: Iterable[str]) -> None:
        """Raise IncompleteRun, naming a shard, unless all are complete."""
        missing = [shard for shard in shards if not self.is_complete(shard)]
        if missing:
            raise IncompleteRun(
                f"{len(missing)} shards are not fully scored, {missing[0]} among them: run the recipe "
                "again, it goes on where it stopped"
            )

    def _own(self, chunk: Chunk) -> bool:
        """Record a chunk; False when it is already committed."""
        opened = self._open.get(chunk.shard)
        if chunk.shard in self._rows or (opened and chunk.first_row in opened):
            return False
        opened = self._open.setdefault(chunk.shard, {})
        opened[chunk.first_row] = chunk.rows
        self.bytes_read += chunk.bytes_read
        self.notes.update(chunk.notes)
        if chunk.fault:
            self.faults[chunk.shard] = (chunk.fault, chunk.detail)
        if chunk.last:
            self._end[chunk.shard] = chunk.first_row + chunk.rows
        self._close_if_complete(chunk.shard)
        return True

    def _close_if_complete(self, shard: str) -> None:
        end = self._end.get(shard)
        if end is None or sum(self._open[shard].values()) != end:
            return
        row = 0
        for first_row, rows in sorted(self._open[shard].items()):
            if first_row != row:
                return
            row += rows
        self._rows[shard] = end
        del self._open[shard], self._end[shard]


def scan_ledger(store: Store, fingerprint: str) -> Ledger:
    """The ledger of everything committed to a run. Raises FingerprintError on a part of other scores."""
    ledger = Ledger()
    for part in read_parts(store, part_names(store)):
        if part.header.fingerprint != fingerprint:
            raise FingerprintError(
                f"{store.uri_of(f'{SCORES}/{part.name}.parquet')}: made under fingerprint "
                f"{part.header.fingerprint[:12]}, the run has {fingerprint[:12]}; it is not of this run"
            )
        ledger.add(part.name, part.chunks, part.header.counts)
    for name, chunks in ledger.disowned.items():
        ledger.counts.subtract(_counts_of(store, name, chunks))
    return ledger


def _counts_of(store: Store, name: str, chunks: Sequence[Chunk]) -> Counter[str]:
    """Samples by status of some chunks of a part, from its rows."""
    counts: Counter[str] = Counter()
    with store.open(f"{SCORES}/{name}.parquet") as file:
        table = pq.read_table(file, columns=["shard", "row", "status", "reason"])
    spans = [(chunk.shard, chunk.first_row, chunk.first_row + chunk.rows) for chunk in chunks]
    for row in table.to_pylist():
        if any(shard == row["shard"] and lo <= row["row"] < hi for shard, lo, hi in spans):
            counts[status_key(row["status"], row["reason"])] += 1
    return counts


def status_key(status: str, reason: str | None) -> str:
    """How `counts` names a status and reason: `scored`, `failed/not_an_image`."""
    return f"{status}/{reason}" if reason else status


@dataclass(frozen=True)
class Run:
    """A run on storage that this process may read, and commit to while it holds the attempt."""

    store: Store
    description: Mapping[str, Any]
    """`run.json`: format, kind, recipe, fingerprint, versions, pool."""
    attempt: str = field(default="", compare=False)

    @property
    def fingerprint(self) -> str:
        """Digest of everything that changes scores."""
        return self.description["fingerprint_digest"]

    def check_attempt(self) -> None:
        """Raise RunTakenOver when another driver has resumed the run since this attempt began."""
        current = json.loads(self.store.read(_ATTEMPT))
        if current["attempt"] != self.attempt:
            raise RunTakenOver(
                f"{self.store.uri}: taken over by a driver on {current['host']} at {current['time']}; "
                "this one stops. Run one driver per run_uri"
            )

    def read_json(self, name: str) -> dict[str, Any] | None:
        """The JSON file `name` of the run, or None when it is not there."""
        return json.loads(self.store.read(name)) if self.store.exists(name) else None

    def write_json(self, name: str, value: Mapping[str, Any]) -> None:
        """Write the JSON file `name` of the run."""
        self.store.write(name, json.dumps(value, indent=1).encode())


def fingerprint_digest(fingerprint: Mapping[str, Any]) -> str:
    """SHA-256 of a fingerprint's canonical JSON."""
    canonical = json.dumps(fingerprint, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def open_run(run_uri: str) -> Run:
    """The run at a URI, for reading. Raises InputError when there is none."""
    store = Store(run_uri)
    if not store.exists("run.json"):
        raise InputError(f"{run_uri}: holds no run (no run.json); check run_uri")
    description = json.loads(store.read("run.json"))
    if description.get("format") not in READABLE_FORMATS:
        raise InputError(
            f"{run_uri}: run format {description.get('format')}, this version reads "
            f"{' and '.join(map(str, READABLE_FORMATS))}; use the version named in run.json"
        )
    return Run(store, description)


def parquet_bytes(rows: pa.Table, **settings: Any) -> bytes:
    """The rows as a Parquet file with page checksums, by settings of `pyarrow.parquet.write_table`."""
    # S3's client takes bytes and nothing else; a buffer of Arrow's would have to be copied for it.
    sink = io.BytesIO()
    pq.write_table(rows, sink, write_page_checksum=True, **settings)
    return sink.getvalue()


def start_run(
    run_uri: str,
    *,
    kind: str,
    recipe: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    listing: pa.Table,
    accept_changed_shards: bool | None = None,
) -> Run:
    """The run at a URI, created or resumed, with the right to commit taken over from any other driver.

    `accept_changed_shards` is the setting of that name, which puts `listing` in place of the stored one where sizes
    differ; None where a recipe has none. Raises what `resumable` raises.
    """
    store = Store(run_uri)
    existing = resumable(
        run_uri,
        kind=kind,
        fingerprint=fingerprint,
        listing=listing,
        accept_changed_shards=accept_changed_shards,
    )
    description = {
        "format": FORMAT_VERSION,
        "kind": kind,
        # The run keeps its birth; what may change between attempts (pool sizes, selection) is the new recipe's.
        "created": existing["created"] if existing else _now(),
        "versions": versions(),
        "pool": _pool_digest(listing),
        "fingerprint_digest": fingerprint_digest(fingerprint),
        "fingerprint": fingerprint,
        "recipe": recipe,
    }
    run = Run(store, description, attempt=uuid.uuid4().hex)
    to_store = listing if existing is None else _relisted(run, listing)
    if to_store is not None:
        store.write(_LISTING, parquet_bytes(to_store, compression="zstd"))
    run.write_json(_ATTEMPT, {"attempt": run.attempt, "host": platform.node(), "time": _now()})
    run.write_json("run.json", description)
    for folder in (SCORES, SUBSET, BORDERLINE):
        store.remove_leftovers(folder)
    return run


def resumable(
    run_uri: str,
    *,
    kind: str,
    fingerprint: Mapping[str, Any],
    listing: pa.Table,
    accept_changed_shards: bool | None = None,
    judged: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> Mapping[str, Any] | None:
    """The description of the run that `start_run` would resume at a URI, None where it would create one.

    `judged` reduces the stored fingerprint to what of it `fingerprint` has. Raises FingerprintError, naming
    every field that differs, when the run there gives other scores or reads another pool; InputError when it is of an
    older format, when shards have other sizes than it listed and that is not accepted, and when something else is there.
    """
    store = Store(run_uri)
    if not store.exists("run.json"):
        # An attempt that died before it wrote run.json left these two.
        if foreign := [name for name in store.names() if name not in (_LISTING, _ATTEMPT)]:
            raise InputError(
                f"{run_uri}: holds {naming(foreign)} but no run.json, so it is not a run; "
                "use an empty folder"
            )
        return None
    run = open_run(run_uri)
    old = run.description
    refuse_old_format(run)
    problems = list(differences(judged(old["fingerprint"]), fingerprint, "fingerprint"))
    if old["kind"] != kind:
        problems = [f"kind: run has {old['kind']}, recipe has {kind}"]
    problems += differences(old["pool"], _pool_digest(listing), "pool")
    if problems:
        raise FingerprintError(
            f"{run_uri}: holds another run, which this recipe must not add to:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nuse another folder, or the recipe stored in its run.json"
        )
    _judge_sizes(run, listing, accept_changed_shards)
    return old


def refuse_old_format(run: Run) -> None:
    """Raise InputError for a run that can be read and no longer be added to."""
    if run.description["format"] != FORMAT_VERSION:
        made_by = run.description.get("versions", {}).get("dfn_ray", "an older one")
        raise InputError(
            f"{run.store.uri}: made in run format {run.description['format']} by dfn_ray {made_by}; this version verifies, "
            "selects from, exports and compares it, and adds nothing to it: use another run_uri, or that version to go on"
        )


def _judge_sizes(run: Run, listing: pa.Table, accepted: bool | None) -> None:
    """Raise InputError when shards have other sizes than the run listed, unless that is accepted and can be."""
    found = resized(read_listing(run), listing)
    if not found:
        return
    if not accepted:
        how = (
            ""
            if accepted is None
            else ", set execution.accept_changed_shards = true to list them anew"
        )
        raise InputError(
            f"{run.store.uri}: {len(found):,} shards have other sizes than when the run listed them, first {found[0]}; "
            f"put them back{how}, or use another run_uri"
        )
    ledger = scan_ledger(run.store, run.fingerprint)
    torn = [item for item in found if ledger.open_chunks(item.uri)]
    if torn:
        raise InputError(
            f"{run.store.uri}: {len(torn):,} shards were committed in part and have changed since, first {torn[0]}; rows "
            "of two contents would mix, so this is refused even with execution.accept_changed_shards: put them back, "
            "or use another run_uri"
        )


def _relisted(run: Run, listing: pa.Table) -> pa.Table | None:
    """The listing to store in place of an accepted one's; None where no size differs."""
    stored = read_listing(run)
    found = resized(stored, listing)
    if not found:
        return None
    ledger = scan_ledger(run.store, run.fingerprint)
    known = scored_sizes(stored)
    kept = {
        item.uri: known.get(item.uri, item.before) for item in found if ledger.is_complete(item.uri)
    }
    return relisted(stored, listing, kept)


def read_listing(run: Run) -> pa.Table:
    """The pool listing of a run: what `dfn_ray.pool.listing_table` makes; of format 1 uri, name, size_bytes and fault."""
    with run.store.open(_LISTING) as file:
        return pq.read_table(file)


def subset_tables(run: Run, columns: Sequence[str]) -> Iterator[tuple[File, pa.Table]]:
    """The subset files of a run with those columns of their rows, one file in memory."""
    for file in run.store.list(SUBSET, suffix=".parquet"):
        with run.store.open(f"{SUBSET}/{file.name}") as opened:
            yield file, pq.read_table(opened, columns=list(columns))


def differences(
    old: Any, new: Any, name: str = "", *, sides: tuple[str, str] = ("run", "recipe")
) -> Iterator[str]:
    """Each leaf in which two JSON values differ, as `dotted.name: run has A, recipe has B`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            inner = f"{name}.{key}" if name else key
            yield from differences(old.get(key), new.get(key), inner, sides=sides)
    elif old != new:
        yield f"{name}: {sides[0]} has {shortened(json.dumps(old))}, {sides[1]} has {shortened(json.dumps(new))}"


def naming(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _pool_digest(listing: pa.Table) -> dict[str, Any]:
    return {
        "shards": listing.num_rows,
        "digest": listing_digest(listing),
    }


def pool_digest(run: Run) -> str:
    """The digest that runs of one pool share; format 1 stored one that covers sizes as well."""
    if run.description["format"] == FORMAT_VERSION:
        return run.description["pool"]["digest"]
    return listing_digest(read_listing(run))


def listing_digest(listing: pa.Table) -> str:
    """Digest of the shards of a listing and of their faults; sizes and versions are judged shard by shard."""
    digest = hashlib.sha256()
    for batch in listing.to_batches(max_chunksize=4096):
        for row in batch.to_pylist():
            digest.update(f"{row['uri']}\0{row['fault']}\0".encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on, as far as they are installed."""
    packages = (
        "dfn_ray", "ray", "torch", "torchvision", "open_clip_torch", "numpy", "pyarrow", "pillow",
        "simplejpeg",
    )  # fmt: skip
    return {"python": platform.python_version(), **package_versions(packages)}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
