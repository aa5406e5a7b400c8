"""Comparison of two listings of one pool: shards with changed sizes, and the merged listing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

SCORED_SIZE = "scored_size_bytes"
"""Column of a stored listing that replaced another: the old size of a complete shard whose
committed rows are from its old content; null for all others."""


@dataclass(frozen=True, kw_only=True)
class Resized:
    """A shard whose listed size has changed."""

    uri: str
    before: int
    now: int

    def __str__(self) -> str:
        return f"{self.uri} had {self.before:,} bytes and has {self.now:,}"


def resized(stored: pa.Table, listing: pa.Table) -> list[Resized]:
    """The shards whose sizes differ between listings; a size of 0 is unknown or an absent shard."""
    before = dict(_sizes(stored))
    return [
        Resized(uri=uri, before=before[uri], now=now)
        for uri, now in _sizes(listing)
        if now and before.get(uri) and before[uri] != now
    ]


def relisted(stored: pa.Table, listing: pa.Table, kept: Mapping[str, int]) -> pa.Table:
    """The listing to replace the stored one; `kept`: sizes when complete shards were read."""
    known = {**scored_sizes(stored), **kept}
    # A restored shard is again the one whose rows are committed.
    sizes = [
        known[uri] if known.get(uri) not in (None, now) else None for uri, now in _sizes(listing)
    ]
    return listing.append_column(SCORED_SIZE, pa.array(sizes, pa.int64()))


def scored_sizes(stored: pa.Table) -> dict[str, int]:
    """Shards of a stored listing that were replaced after they were read -> size when read."""
    if SCORED_SIZE not in stored.column_names:
        return {}
    pairs: Iterator[tuple[str, Any]] = zip(
        stored["uri"].to_pylist(), stored[SCORED_SIZE].to_pylist(), strict=True
    )
    return {uri: size for uri, size in pairs if size is not None}


def _sizes(listing: pa.Table) -> Iterator[tuple[str, int]]:
    for batch in listing.select(["uri", "size_bytes"]).to_batches(max_chunksize=4096):
        yield from zip(batch[0].to_pylist(), batch[1].to_pylist(), strict=True)
