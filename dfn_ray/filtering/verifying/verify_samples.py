"""Comparison of kept samples with the pool: images, captions and all other copied columns."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.config import Pool, stored_pool
from dfn_ray.errors import (
    DamagedRunError,
    InputError,
    MissingFileError,
    ShardChangedError,
    VerificationError,
    shortened,
)
from dfn_ray.pool import Shard, listed_versions, read_rows, shards_of_listing
from dfn_ray.run import SUBSET, Run
from dfn_ray.storage import stat

SAMPLE_ROWS = 2048
"""Kept samples compared with the pool, unless all are."""
SAMPLE_SHARDS = 8
"""Shards that they are drawn from: each must be opened."""
_CONTEXT = 20
"""Characters shown before the first difference of two strings."""
_COMPARED = ("uid", "key", "image", "text", "metadata")


@dataclass(frozen=True)
class Subsample:
    """The kept samples to compare."""

    files: Mapping[str, np.ndarray | None]
    """Subset file -> ascending row ordinals in it; None for all rows."""

    @staticmethod
    def of(run: Run, kept: int, *, full: bool) -> Subsample:
        """All kept samples, or some of a few random shards and subset files.

        Not seeded, as in `rescore`: repeated verifications cover more. At least one sample is drawn
        if any is kept, and no more files are opened than necessary.
        """
        names = run.subset_files()
        if full or kept <= SAMPLE_ROWS // SAMPLE_SHARDS:
            return Subsample(dict.fromkeys(names))
        draw = random.SystemRandom()
        draw.shuffle(names)
        some = -(-SAMPLE_SHARDS // len(names))
        chosen: dict[str, np.ndarray | None] = {}
        left = SAMPLE_SHARDS
        for name in names:
            shard = run.read_table(f"{SUBSET}/{name}", ["shard"])["shard"].cast(pa.string())
            uris = shard.unique().to_pylist()
            drawn = draw.sample(uris, min(some, left, len(uris)))
            if drawn:
                chosen[name] = np.sort(
                    np.concatenate([_stretch(draw, shard, uri) for uri in drawn])
                )
            left -= len(drawn)
            if not left:
                break
        return Subsample(chosen)


def _stretch(draw: random.Random, shard: pa.ChunkedArray, uri: str) -> np.ndarray:
    """Ordinals of some adjacent rows of a shard in a file, so that they are in few row groups."""
    rows = np.flatnonzero(pc.equal(shard, uri).to_numpy())
    count = SAMPLE_ROWS // SAMPLE_SHARDS
    first = draw.randint(0, max(0, len(rows) - count))
    return rows[first : first + count]


def compare_with_pool(run: Run, sample: Subsample, say: Callable[[str], None]) -> int:
    """Compares the chosen samples with the pool; returns their number. Raises VerificationError.

    A changed size or version of a shard is only reported: its bytes decide. Only row groups of the
    subset with chosen rows are read.
    """
    pool = stored_pool(run.recipe)
    listing = run.listing()
    shards = {shard.uri: shard for shard in shards_of_listing(listing)}
    versions = listed_versions(listing)
    noticed: set[str] = set()
    compared = 0
    for name, rows in sample.files.items():
        uri = run.store.uri_of(f"{SUBSET}/{name}")
        for table in _row_groups(run, name, rows):
            for shard in table["shard"].cast(pa.string()).unique().to_pylist():
                here = table.filter(pc.equal(table["shard"].cast(pa.string()), shard))
                if shard not in noticed and (notice := _notice(shards[shard], versions.get(shard))):
                    say(notice)
                noticed.add(shard)
                whatever = replace(shards[shard], size_bytes=0)
                _compare(uri, shard, here, _read_again(uri, whatever, pool, here))
                compared += here.num_rows
    return compared


def _row_groups(run: Run, name: str, rows: np.ndarray | None) -> Iterator[pa.Table]:
    """The chosen rows of a subset file with all compared columns, by row group."""
    with run.open_parquet(f"{SUBSET}/{name}") as parquet:
        columns = ["shard", "row", *_COMPARED]
        if absent := set(columns) - set(parquet.schema_arrow.names):
            raise DamagedRunError(
                f"{run.store.uri_of(f'{SUBSET}/{name}')}: is damaged: it lacks "
                f"{', '.join(sorted(absent))}"
            )
        first = 0
        for number in range(parquet.num_row_groups):
            count = parquet.metadata.row_group(number).num_rows
            here = None
            if rows is not None:
                here = rows[(rows >= first) & (rows < first + count)] - first
            first += count
            if here is None or len(here):
                table = parquet.read_row_group(number, columns=columns)
                yield table if here is None else table.take(pa.array(here))


def _read_again(uri: str, shard: Shard, pool: Pool, here: pa.Table) -> pa.Table:
    """The subset's samples of a shard, read from the pool.

    Raises VerificationError when the pool no longer has them.
    """
    try:
        return pa.concat_tables(read_rows(shard, pool, set(here["row"].to_pylist())))
    except (InputError, ShardChangedError) as error:
        raise VerificationError(
            f"{uri}: contains samples that the pool does not: {error}"
        ) from None


def _compare(uri: str, shard: str, here: pa.Table, of_pool: pa.Table) -> None:
    # A uid list may contain a sample several times.
    place = pc.index_in(here["row"], of_pool["row"].combine_chunks())
    of_pool = of_pool.take(place.combine_chunks())
    for name in ("row", *_COMPARED):
        kept, due = here[name].to_pylist(), of_pool[name].to_pylist()
        if kept == due:
            continue
        at = next(n for n, pair in enumerate(zip(kept, due, strict=True)) if pair[0] != pair[1])
        first = _first_difference(kept[at], due[at])
        raise VerificationError(
            f"{uri}: {name} of samples of {shard} differs from the pool's: row "
            f"{here['row'][at].as_py()} has {_excerpt(kept[at], first)}, the pool "
            f"{_excerpt(due[at], first)}"
        )


def _first_difference(a: Any, b: Any) -> int:
    """Index of the first character in which two strings differ; 0 for other values."""
    if not (isinstance(a, str) and isinstance(b, str)):
        return 0
    same = (x == y for x, y in zip(a, b, strict=False))
    return sum(1 for _ in takewhile(bool, same))


def _excerpt(value: Any, first: int) -> str:
    """A value for a message: a long string is reduced to the part around the first difference."""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes with SHA-256 {hashlib.sha256(value).hexdigest()[:16]}"
    if isinstance(value, str) and first > _CONTEXT:
        return f"...{shortened(repr(value[first - _CONTEXT :]))}"
    return shortened(repr(value))


def _notice(shard: Shard, version: str | None) -> str:
    """A notice if size or version of a shard differ from its listing; empty if equal or unknown."""
    try:
        now = stat(shard.opened_at)
    except MissingFileError:
        return ""  # reading it raises
    if now is None:
        return ""  # a class folder
    if shard.size_bytes and now.size_bytes and now.size_bytes != shard.size_bytes:
        return (
            f"notice: {shard.uri} was listed with {shard.size_bytes:,} bytes and has "
            f"{now.size_bytes:,} now"
        )
    if version and now.version and version != now.version:
        return f"notice: {shard.uri} was listed with version {version} and has {now.version} now"
    return ""
