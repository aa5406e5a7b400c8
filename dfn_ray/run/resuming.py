"""Creation and resumption of a run, and the checks that a run is the same one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from dfn_ray.errors import FingerprintError, InputError
from dfn_ray.run.attempts import Attempt, create_attempt
from dfn_ray.run.identity import (
    abbreviated,
    changed_versions,
    differences,
    fingerprint_digest,
    pool_identity,
    versions,
)
from dfn_ray.run.layout import ATTEMPTS, FORMAT_VERSION, LISTING, OLD_ATTEMPT, RUN
from dfn_ray.run.ledger import scan_ledger
from dfn_ray.run.opened import Run, open_run
from dfn_ray.run.relisting import relisted, resized, scored_sizes
from dfn_ray.run.sealed_json import json_bytes
from dfn_ray.run.sealed_parquet import parquet_bytes
from dfn_ray.storage import Store


def start_run(
    run_uri: str,
    *,
    kind: str,
    recipe: Mapping[str, Any],
    fingerprint: Mapping[str, Any],
    listing: pa.Table,
    accept_changed_shards: bool | None = None,
    accept_versions: bool | None = None,
    section: str = "execution.",
) -> Run:
    """The run at a URI, created or resumed, and taken over from any other driver.

    `accept_changed_shards` and `accept_versions` are the settings of these names in `section` of
    the recipe, None if it has none: the first replaces the stored listing by `listing` if sizes
    differ, the second allows other package versions. Raises what `resumable_run` raises.
    """
    store = Store(run_uri)
    accepted: dict[str, Any] = {
        "accept_changed_shards": accept_changed_shards,
        "accept_versions": accept_versions,
        "section": section,
    }
    same = {"kind": kind, "fingerprint": fingerprint, "listing": listing}
    existing = resumable_run(run_uri, **same, **accepted)
    if existing is None:
        description = {
            "format": FORMAT_VERSION,
            "kind": kind,
            "id": uuid.uuid4().hex,
            "created": _now(),
            "pool": pool_identity(listing),
            "fingerprint_digest": fingerprint_digest(fingerprint),
            "fingerprint": fingerprint,
            "recipe": recipe,
        }
        if not store.create(RUN, json_bytes(description)):
            # Another driver was quicker: its run is resumed, if it is the same.
            existing = resumable_run(run_uri, **same, **accepted)
    run = open_run(run_uri)
    record = {
        "time": _now(),
        "versions": versions(),
        "recipe": recipe,
        "listing": _stored_listing(run, listing, is_new=existing is None),
    }
    if existing is not None and (changed := _changed_versions(existing)):
        record["accepted_versions"] = changed
    return _held(run, create_attempt(store, record))


def take_over(run: Run) -> Run:
    """A run opened for reading, taken over from any other driver for writing.

    This attempt scores nothing: it records the versions of the last attempt that may have scored,
    next to its own.
    """
    record = dict(run.last.record) if run.last else {"recipe": run.recipe}
    own = {"time": _now(), "holder_versions": versions()}
    return _held(run, create_attempt(run.store, record | own))


def _held(run: Run, attempt: Attempt) -> Run:
    store = replace(run.store, writer=attempt.number)
    return replace(run, store=store, last=attempt, held=True)


def resumable_run(
    run_uri: str,
    *,
    kind: str,
    fingerprint: Mapping[str, Any],
    listing: pa.Table,
    accept_changed_shards: bool | None = None,
    accept_versions: bool | None = None,
    section: str = "execution.",
    project: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> Run | None:
    """The run that `start_run` would resume at a URI; None if it would create one.

    `project` selects from the stored fingerprint the fields that `fingerprint` contains. Raises
    FingerprintError, naming every field that differs, when the run yields other scores or reads
    another pool; InputError when it has an older format, when shard sizes or package versions have
    changed and that is not accepted, and when the folder contains something else.
    """
    store = Store(run_uri)
    if not store.exists(RUN):
        if foreign := [
            name for name in store.names() if name not in (LISTING, f"{ATTEMPTS}/", OLD_ATTEMPT)
        ]:
            raise InputError(
                f"{run_uri}: contains {abbreviated(foreign)} but no run.json, so it is not a run; "
                "use an empty folder"
            )
        return None
    run = open_run(run_uri)
    refuse_old_format(run)
    old = run.description
    problems = list(differences(project(old["fingerprint"]), fingerprint, "fingerprint"))
    if old["kind"] != kind:
        problems = [f"kind: run has {old['kind']}, recipe has {kind}"]
    problems += _pool_differences(run, listing)
    if problems:
        raise FingerprintError(
            f"{run_uri}: contains another run, which this recipe cannot resume:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nuse another folder, or the recipe stored in its run.json"
        )
    if accept_versions is False and (changed := _changed_versions(run)):
        raise InputError(
            f"{run_uri}: was started with other versions of packages that can change scores "
            f"({'; '.join(changed)}); install those again, or set {section}accept_versions = true "
            "to resume with the current ones, which the run records"
        )
    _check_sizes(run, listing, accept_changed_shards)
    return run


def refuse_old_format(run: Run) -> None:
    """Raises InputError for a run of an older format, which can only be read."""
    if run.description["format"] != FORMAT_VERSION:
        made_by = run.description.get("versions", {}).get("dfn_ray", "an older one")
        raise InputError(
            f"{run.uri}: has run format {run.description['format']}, made by dfn_ray {made_by}; "
            "this version can verify, select from, export and compare it, but not resume it: use "
            "another run_uri, or that version to resume"
        )


def _pool_differences(run: Run, listing: pa.Table) -> list[str]:
    """Differences between the pool of a listing and the run's pool, as lines."""
    old = run.description["pool"]
    problems = list(differences(old, pool_identity(listing), "pool"))
    if problems and old["shards"] == listing.num_rows and run.exists(run.listing_name):
        pairs = zip(*(_names(table) for table in (run.listing(), listing)), strict=True)
        for (uri, before), (again, now) in pairs:
            if uri == again and before != now:
                return [
                    f"pool.uri: spells the same pool differently, so {uri} is named {now} instead "
                    f"of {before}; derived uids depend on these names. Use the pool.uri stored in "
                    "run.json"
                ]
    return problems


def _names(listing: pa.Table) -> list[tuple[str, str]]:
    return list(zip(listing["uri"].to_pylist(), listing["name"].to_pylist(), strict=True))


def _changed_versions(run: Run) -> list[str]:
    """Packages that can change scores and whose versions differ from the last attempt's."""
    before = run.last.record.get("versions") if run.last else None
    return changed_versions(before, versions()) if before else []


def _check_sizes(run: Run, listing: pa.Table, accepted: bool | None) -> None:
    """Raises InputError when shard sizes have changed, unless that is accepted and possible."""
    found = resized(run.listing(), listing) if run.exists(run.listing_name) else []
    if not found:
        return
    if not accepted:
        how = (
            ""
            if accepted is None
            else ", set execution.accept_changed_shards = true to list them again"
        )
        raise InputError(
            f"{run.uri}: {len(found):,} shards have changed in size since the run listed them, the "
            f"first is {found[0]}; restore them{how}, or use another run_uri"
        )
    ledger = scan_ledger(run.store, run.fingerprint)
    partly_committed = [item for item in found if ledger.open_chunks(item.uri)]
    if partly_committed:
        raise InputError(
            f"{run.uri}: {len(partly_committed):,} shards were partly committed and have changed "
            f"since, the first is {partly_committed[0]}; rows of two versions would be mixed, so "
            "this is not allowed even with execution.accept_changed_shards: restore them, or use "
            "another run_uri"
        )


def _stored_listing(run: Run, listing: pa.Table, *, is_new: bool) -> str:
    """The file with the pool listing of this attempt, written if it does not exist."""
    name = run.listing_name
    if is_new or not run.exists(name):
        # Never overwrites the listing of a driver that started at the same time and may have seen
        # other sizes.
        run.store.create(name, parquet_bytes(listing, name, compression="zstd"))
        return name
    stored = run.listing()
    found = resized(stored, listing)
    if not found:
        return name
    ledger = scan_ledger(run.store, run.fingerprint)
    known = scored_sizes(stored)
    kept = {
        item.uri: known.get(item.uri, item.before) for item in found if ledger.is_complete(item.uri)
    }
    table = relisted(stored, listing, kept)
    name = f"pool-{fingerprint_digest({'listing': table.to_pylist()})[:32]}.parquet"
    run.store.write(name, parquet_bytes(table, name, compression="zstd"))
    return name


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
