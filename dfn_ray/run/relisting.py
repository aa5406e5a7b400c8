"""Two listings of one pool compared: which shards have other sizes now, and what of a run that rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

SCORED_SIZE = "scored_size_bytes"
"""Column of a stored listing that replaced another: the size of a complete shard whose committed rows are of the content
before; null for all others."""


@dataclass(frozen=True, kw_only=True)
class Resized:
    """A shard that is listed with another size than before."""

    uri: str
    before: int
    now: int

    def __str__(self) -> str:
        return f"{self.uri} had {self.before:,} bytes and has {self.now:,}"


def resized(stored: pa.Table, listing: pa.Table) -> list[Resized]:
    """The shards of both listings whose sizes differ; 0 is no size, of a store that does not say or an absent shard."""
    before = dict(_sizes(stored))
    return [
        Resized(uri=uri, before=before[uri], now=now)
        for uri, now in _sizes(listing)
        if now and before.get(uri) and before[uri] != now
    ]


def relisted(stored: pa.Table, listing: pa.Table, kept: Mapping[str, int]) -> pa.Table:
    """The listing in place of the stored one; `kept` are the sizes that complete shards were read with, by URI."""
    known = {**scored_sizes(stored), **kept}
    # A shard that was put back is the one whose rows are committed.
    sizes = [
        known[uri] if known.get(uri) not in (None, now) else None for uri, now in _sizes(listing)
    ]
    return listing.append_column(SCORED_SIZE, pa.array(sizes, pa.int64()))


def scored_sizes(stored: pa.Table) -> dict[str, int]:
    """Shards of a stored listing that were replaced after they were read, with the size they were read with."""
    if SCORED_SIZE not in stored.column_names:
        return {}
    pairs: Iterator[tuple[str, Any]] = zip(
        stored["uri"].to_pylist(), stored[SCORED_SIZE].to_pylist(), strict=True
    )
    return {uri: size for uri, size in pairs if size is not None}


def _sizes(listing: pa.Table) -> Iterator[tuple[str, int]]:
    for batch in listing.select(["uri", "size_bytes"]).to_batches(max_chunksize=4096):
        yield from zip(batch[0].to_pylist(), batch[1].to_pylist(), strict=True)
