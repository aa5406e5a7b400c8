"""Identity of runs and attempts: fingerprints, the pool's digest, versions."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from dfn_ray.errors import shortened
from dfn_ray.run.kinds import RunKind
from dfn_ray.versions import package_versions

SCORING_PACKAGES = ("torch", "open_clip_torch", "pillow", "simplejpeg", "numpy")
"""Packages whose releases can change scores with unchanged settings; of numpy only major
versions."""
_PACKAGES = ("dfn_ray", "ray", "torchvision", "pyarrow", *SCORING_PACKAGES)


@dataclass(frozen=True, kw_only=True)
class RunIdentity:
    """The identity of a run: a recipe with an equal identity resumes it."""

    kind: RunKind
    fingerprint: Mapping[str, Any]
    """Everything that affects the results, as JSON values."""
    listing: pa.Table
    """The shards of the pool: uri, name, size_bytes, fault. Sizes are no part of the identity."""


def fingerprint_digest(fingerprint: Mapping[str, Any]) -> str:
    """SHA-256 of a fingerprint's canonical JSON."""
    canonical = json.dumps(fingerprint, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def listing_digest(listing: pa.Table) -> str:
    """Digest of the shards of a listing: URI, name (derived uids depend on it) and fault.

    Sizes and versions are compared shard by shard.
    """
    digest = hashlib.sha256()
    for batch in listing.select(["uri", "name", "fault"]).to_batches(max_chunksize=4096):
        columns = [column.to_pylist() for column in batch.columns]
        text = "".join(
            f"{uri}\0{name}\0{fault}\0" for uri, name, fault in zip(*columns, strict=True)
        )
        digest.update(text.encode())
    return digest.hexdigest()


def pool_identity(listing: pa.Table) -> dict[str, Any]:
    """The pool's entry in `run.json`: number of shards and digest of the listing."""
    return {"shards": listing.num_rows, "digest": listing_digest(listing)}


def versions() -> dict[str, str]:
    """The versions of Python and of the installed packages that results depend on."""
    return {"python": platform.python_version(), **package_versions(_PACKAGES)}


def changed_versions(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The score-changing packages that differ between attempts, as `torch: 2.6.0, now 2.9.1`."""
    return [
        f"{name}: {before.get(name)}, now {now.get(name)}"
        for name in SCORING_PACKAGES
        if _score_changing_part(name, before.get(name)) != _score_changing_part(name, now.get(name))
    ]


def _score_changing_part(package: str, version: str | None) -> str | None:
    """The part of a version that can change scores."""
    return version.partition(".")[0] if version and package == "numpy" else version


def differences(
    old: Any, new: Any, name: str = "", *, sides: tuple[str, str] = ("run", "recipe")
) -> Iterator[str]:
    """Each leaf in which two JSON values differ, as `dotted.name: run has A, recipe has B`."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            inner = f"{name}.{key}" if name else key
            yield from differences(old.get(key), new.get(key), inner, sides=sides)
    elif old != new:
        yield (
            f"{name}: {sides[0]} has {shortened(json.dumps(old))}, "
            f"{sides[1]} has {shortened(json.dumps(new))}"
        )


def abbreviated(names: Sequence[str]) -> str:
    """The first few names and the number of the others, for messages."""
    more = f" and {len(names) - 5:,} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more
