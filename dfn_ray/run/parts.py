"""Committed parts: their names, footers and files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import pyarrow as pa

from dfn_ray.errors import DamagedRunError, MissingFileError
from dfn_ray.run.layout import BORDERLINE, SCORES, SELECTION, SUBSET, part_file
from dfn_ray.run.sealed_parquet import (
    TAIL_BYTES,
    WHOLE_BYTES,
    footer_metadata,
    opened_parquet,
)
from dfn_ray.schema import SCORE_PREFIX, Chunk
from dfn_ray.storage import Store

SCAN_THREADS = 64
"""Footers read in parallel; a footer is one or two small range requests, so latency dominates."""
_SLICE = 4096
"""Footers requested at a time, so that neither futures nor footers of a million parts pile up."""
_CHUNKS, _PART = b"dfn_ray.chunks", b"dfn_ray.part"
Found = TypeVar("Found")
SCORE_AGAIN = (
    f"delete {SELECTION} if it exists, and run the recipe again, which scores its chunks again"
)
"""Advice for a run that has lost a part."""
_SEALED = re.compile(r"part-\d{6}-")
"""Prefix of names of parts whose footers have a digest: since format 2."""


@dataclass(frozen=True, kw_only=True)
class PartHeader:
    """The fields of a scores part's footer besides its chunks."""

    fingerprint: str
    """Digest of the fingerprint under which the scores were made."""
    bounds: tuple[float, float]
    """[lo, hi): rows with score >= hi are in subset/, those between in borderline/."""
    network: str | None = None
    """Network whose scores the bounds apply to; None if all listed rows are in subset/, and in
    format 1."""
    counts: Mapping[str, int]
    """Samples by `status` or `status/reason`."""
    subset_rows: int = 0
    borderline_rows: int = 0
    subset: str | None = None
    """Stem of the file in subset/ with its kept rows; None without any."""
    borderline: str | None = None
    """Stem of the file in borderline/ with its rows between the bounds; None without any."""
    environments: tuple[str, ...] = ()
    """Digests of the environments of its scores: device, threads, versions of libraries."""


@dataclass(frozen=True)
class Part:
    """A committed part: its name, chunks and header."""

    name: str
    chunks: tuple[Chunk, ...]
    header: PartHeader

    @property
    def files(self) -> list[str]:
        """The subset and borderline files that were written with the scores."""
        header = self.header
        found = ((SUBSET, header.subset), (BORDERLINE, header.borderline))
        return [f"{folder}/{stem}.parquet" for folder, stem in found if stem]


def part_footer(chunks: Sequence[Chunk], header: PartHeader) -> dict[bytes, bytes]:
    """The Parquet key-value metadata that commits `chunks`."""
    values = {
        "fingerprint": header.fingerprint,
        "bounds": [str(bound) for bound in header.bounds],
        "network": header.network,
        "counts": dict(header.counts),
        "subset_rows": header.subset_rows,
        "borderline_rows": header.borderline_rows,
        "subset": header.subset,
        "borderline": header.borderline,
        "environments": list(header.environments),
    }
    written = [chunk.to_json() for chunk in chunks]
    return {
        _CHUNKS: json.dumps(written).encode(),
        _PART: json.dumps(values).encode(),
    }


def read_part(store: Store, name: str) -> Part:
    """The chunks and header of a committed part, from its footer alone. Raises DamagedRunError."""
    return _part(store, name, _read(store, name, footer_metadata, tail_bytes=TAIL_BYTES))


def read_part_with_rows(store: Store, name: str, columns: list[str]) -> tuple[Part, pa.Table]:
    """A committed part and columns of its rows, on S3 by one request for a usual part.

    Raises DamagedRunError, also if it lacks one of the columns.
    """

    def read(
        file: IO[bytes], file_name: str, *, is_sealed: bool
    ) -> tuple[dict[bytes, bytes], pa.Table]:
        parquet = opened_parquet(file, file_name, is_sealed=is_sealed, pre_buffer=True)
        return parquet.metadata.metadata or {}, parquet.read(columns, use_threads=False)

    metadata, table = _read(store, name, read, head_bytes=WHOLE_BYTES)
    if absent := set(columns) - set(table.column_names):
        raise _damaged(store.uri_of(part_file(name)), f"it lacks {', '.join(sorted(absent))}")
    return _part(store, name, metadata), table


def _part(store: Store, name: str, metadata: Mapping[bytes, bytes]) -> Part:
    """The part with this key-value metadata in its footer. Raises DamagedRunError."""
    where = store.uri_of(part_file(name))
    if _CHUNKS not in metadata:
        raise DamagedRunError(
            f"{where}: commits no chunks, so dfn_ray did not write it; move it out of the run"
        )
    try:
        chunks, values = json.loads(metadata[_CHUNKS]), json.loads(metadata[_PART])
    except (ValueError, KeyError) as error:
        raise _damaged(where, f"its footer is not valid JSON: {error}") from None
    try:
        return Part(name, tuple(map(Chunk.from_json, chunks)), _header(name, values))
    except (KeyError, TypeError, ValueError) as error:
        raise _damaged(where, f"its footer lacks {error}") from None


def _header(name: str, values: Mapping[str, Any]) -> PartHeader:
    lo, hi = (float(bound) for bound in values["bounds"])
    rows = {folder: values[f"{folder}_rows"] for folder in (SUBSET, BORDERLINE)}
    # In format 1 the subset and borderline files have the name of the part.
    stems = {folder: values.get(folder, name if rows[folder] else None) for folder in rows}
    return PartHeader(
        fingerprint=values["fingerprint"],
        bounds=(lo, hi),
        network=values.get("network"),
        counts=values["counts"],
        subset_rows=rows[SUBSET],
        borderline_rows=rows[BORDERLINE],
        subset=stems[SUBSET],
        borderline=stems[BORDERLINE],
        environments=tuple(values.get("environments", ())),
    )


def is_near_footer(column: str) -> bool:
    """True for the columns that are the last of a part, because most passes read no others."""
    return column == "status" or column.startswith(SCORE_PREFIX)


def _read(store: Store, name: str, read: Callable[..., Found], **first: int) -> Found:
    """The result of `read` for the opened file of a part; `first`: see `Store.open`."""
    where = store.uri_of(part_file(name))
    try:
        with store.open(part_file(name), **first) as file:
            is_sealed = _SEALED.match(name) is not None
            return read(file, f"{name}.parquet", is_sealed=is_sealed)
    except MissingFileError:
        raise DamagedRunError(
            f"{where}: is missing, so its shards are not complete; restore it from a copy, or "
            f"{SCORE_AGAIN}"
        ) from None
    except (pa.ArrowException, OSError) as error:
        raise _damaged(where, str(error)) from None


def part_names(store: Store) -> list[str]:
    """Names of all committed parts, `newest_first`."""
    return newest_first(parquet_stems(store, SCORES))


def newest_first(names: Iterable[str]) -> list[str]:
    """Names of parts, later attempts first: of two parts with the same chunk, the first owns it."""
    return sorted(names, reverse=True)


def parquet_stems(store: Store, folder: str) -> list[str]:
    """Stems of the Parquet files in a folder of a run, sorted."""
    return [file.name.removesuffix(".parquet") for file in store.list(folder, suffix=".parquet")]


def read_parts(store: Store, names: Sequence[str]) -> Iterator[Part]:
    """The named parts in that order; their footers are read in parallel."""
    with ThreadPoolExecutor(SCAN_THREADS) as pool:
        for start in range(0, len(names), _SLICE):
            yield from pool.map(lambda name: read_part(store, name), names[start : start + _SLICE])


def _damaged(where: str, why: str) -> DamagedRunError:
    return DamagedRunError(
        f"{where}: is damaged: {why}; restore it from a copy, or delete it, {SCORE_AGAIN}"
    )
