"""Creation and resumption of a run, and the checks that a run is the same one."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from dfn_ray.errors import FingerprintError, InputError
from dfn_ray.run.attempts import Attempt, create_attempt, now
from dfn_ray.run.identity import (
    RunIdentity,
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


@dataclass(frozen=True, kw_only=True)
class Acceptance:
    """The changes since its last attempt with which a recipe resumes a run.

    Each is a setting of the recipe, `accept_changed_shards` and `accept_versions`; None if the
    recipe has none.
    """

    changed_shards: bool | None = None
    """True: shards of other sizes replace those of the stored listing."""
    versions: bool | None = None
    """True or None: other versions of packages that can change scores are allowed."""
    section: str = "execution."
    """The section of the settings, for messages."""


NO_SETTINGS = Acceptance()


def start_run(
    run_uri: str,
    identity: RunIdentity,
    *,
    recipe: Mapping[str, Any],
    accept: Acceptance = NO_SETTINGS,
) -> Run:
    """The run at a URI, created or resumed, and taken over from any other driver.

    Raises what `resumable_run` raises.
    """
    run = resumable_run(run_uri, identity, existing_run(run_uri), accept=accept)
    is_new, changed = False, []
    if run is None:
        # False if another driver is quicker: its run is resumed, if it is the same.
        is_new = Store(run_uri).create(RUN, json_bytes(_description(identity, recipe)))
        run = open_run(run_uri)
        if not is_new:
            resumable_run(run_uri, identity, run, accept=accept)
    if not is_new:
        changed = _changed_versions(run)
    record = {
        "versions": versions(),
        "recipe": recipe,
        "listing": _stored_listing(run, identity.listing, is_new=is_new),
    }
    if changed:
        record["accepted_versions"] = changed
    return _held(run, create_attempt(run.store, record))


def _description(identity: RunIdentity, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a new `run.json`."""
    return {
        "format": FORMAT_VERSION,
        "kind": identity.kind,
        "id": uuid.uuid4().hex,
        "created": now(),
        "pool": pool_identity(identity.listing),
        "fingerprint_digest": fingerprint_digest(identity.fingerprint),
        "fingerprint": identity.fingerprint,
        "recipe": recipe,
    }


def take_over(run: Run) -> Run:
    """A run opened for reading, taken over from any other driver for writing.

    This attempt scores nothing: it records the versions of the last attempt that may have scored,
    next to its own.
    """
    record = dict(run.last.record) if run.last else {"recipe": run.recipe}
    record["holder_versions"] = versions()
    return _held(run, create_attempt(run.store, record))


def _held(run: Run, attempt: Attempt) -> Run:
    store = replace(run.store, writer=attempt.number)
    return replace(run, store=store, last=attempt, held=True)


def existing_run(run_uri: str) -> Run | None:
    """The run at a URI, opened for reading; None without a `run.json`. Raises as `open_run`."""
    return open_run(run_uri) if Store(run_uri).exists(RUN) else None


def resumable_run(
    run_uri: str,
    identity: RunIdentity,
    existing: Run | None,
    *,
    accept: Acceptance = NO_SETTINGS,
    project: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict,
) -> Run | None:
    """The run that `start_run` would resume at a URI; None if it would create one.

    `existing` is the `existing_run` at the URI. `project` selects from its fingerprint the fields
    that the fingerprint of `identity` contains. Raises FingerprintError, naming every field that
    differs, when the run yields other scores or reads another pool; InputError when it has an older
    format, when shard sizes or package versions have changed and that is not accepted, and when the
    folder contains something else.
    """
    if existing is None:
        _require_free(run_uri)
        return None
    refuse_old_format(existing)
    stored = existing.description
    problems = list(
        differences(project(stored["fingerprint"]), identity.fingerprint, "fingerprint")
    )
    if stored["kind"] != identity.kind:
        problems = [f"kind: run has {stored['kind']}, recipe has {identity.kind}"]
    problems += _pool_differences(existing, identity.listing)
    if problems:
        raise FingerprintError(
            f"{run_uri}: contains another run, which this recipe cannot resume:\n"
            + "\n".join(f"  {problem}" for problem in problems)
            + "\nuse another folder, or the recipe stored in its run.json"
        )
    if accept.versions is False and (changed := _changed_versions(existing)):
        raise InputError(
            f"{run_uri}: was started with other versions of packages that can change scores "
            f"({'; '.join(changed)}); install those again, or set {accept.section}accept_versions "
            "= true to resume with the current ones, which the run records"
        )
    _check_sizes(existing, identity.listing, accept)
    return existing


def _require_free(run_uri: str) -> None:
    """Raises InputError if a folder without a run contains anything that is not left by one."""
    own = (LISTING, f"{ATTEMPTS}/", OLD_ATTEMPT)
    if foreign := [name for name in Store(run_uri).names() if name not in own]:
        raise InputError(
            f"{run_uri}: contains {abbreviated(foreign)} but no run.json, so it is not a run; "
            "use an empty folder"
        )


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


def _check_sizes(run: Run, listing: pa.Table, accept: Acceptance) -> None:
    """Raises InputError when shard sizes have changed, unless that is accepted and possible."""
    found = resized(run.listing(), listing) if run.exists(run.listing_name) else []
    if not found:
        return
    setting = f"{accept.section}accept_changed_shards"
    if not accept.changed_shards:
        is_setting = accept.changed_shards is not None
        how = f", set {setting} = true to list them again" if is_setting else ""
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
            f"this is not allowed even with {setting}: restore them, or use another run_uri"
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
