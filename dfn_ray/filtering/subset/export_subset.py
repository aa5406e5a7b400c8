"""Exports of a finished run's subset for other trainers: DataComp's uid list and WebDataset tars.

The tars have the format of DataComp's resharder: `{:08d}.tar` with
`{uid}-{j}.{jpg|png|webp},txt,json` members (an image of another format has its own extension, which
open_clip's loader skips), `{:08d}_stats.json`, `sizes.json` (which open_clip reads) and `meta.json`
(whose `output_shard_count` and `output_shard_format` DataComp's train.py reads). Of several
captions the first is `txt`, which those loaders read; the others are `1.txt`, `2.txt`, ...:
`pool.caption = "list"` reads all of them. `export.json` is dfn_ray's own: it is written first and
identifies the export, so that two exports are never mixed.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import pyarrow as pa

from dfn_ray.errors import InputError, StorageAccessError
from dfn_ray.filtering.preflight import refuse_out
from dfn_ray.filtering.subset.write_uid_list import uid_list_pieces
from dfn_ray.images.formats import extension_of
from dfn_ray.on_ray.ray_address import check_ray_reachable
from dfn_ray.on_ray.session import connect
from dfn_ray.on_ray.tasks import run_in_tasks
from dfn_ray.run import (
    RUN,
    SELECTION,
    SUBSET,
    Run,
    State,
    abbreviated,
    differences,
    fingerprint_digest,
    open_run,
    parsed_json,
    read_ahead,
)
from dfn_ray.storage import Store, is_local

SHARD_SAMPLES = 10_000
"""Samples per tar, the default of img2dataset and DataComp."""
SHARD_FORMAT = "{:08d}.tar"
EXPORT = "export.json"
_START_OVER = "delete everything in the folder, or use another folder"
_SIZES, _META, _UIDS = "sizes.json", "meta.json", "sample_ids.npy"


def export_uids(run_uri: str, out_uri: str) -> int:
    """Copies the run's sorted uid list to a `.npy` file; returns the number of uids."""
    run, selection = _open_finished(run_uri)
    folder, _, name = out_uri.rpartition("/")
    refuse_out(run, folder or ".", (name,))
    _refuse_in_run(f"{folder or '.'}/{name}")
    Store(folder or ".").write_stream(name, uid_list_pieces(run, selection))
    return selection["k"]


def export_webdataset(run_uri: str, out_uri: str, *, shard_samples: int = SHARD_SAMPLES) -> int:
    """Writes the subset as WebDataset tars to a folder; returns the number of tars.

    Resumes an earlier export: complete tars are kept. Raises InputError when the folder contains
    anything but this export.
    """
    if shard_samples < 1:
        raise InputError(f"shard_samples: need >= 1, got {shard_samples}")
    check_ray_reachable()  # before the folder is claimed
    run, selection = _open_finished(run_uri)
    kept = selection["k"]
    refuse_out(run, out_uri, (SHARD_FORMAT.format(0),))
    _refuse_in_run(out_uri)
    out = Store(out_uri)
    files, rows = _subset_files(run)
    if sum(rows) != kept:
        raise InputError(
            f"{run_uri}: the subset has {sum(rows)} samples of {kept}; run dfn-ray verify"
        )
    shards = -(-kept // shard_samples)
    there = _claim(out, _identity(run, files, rows, shard_samples), shards)
    todo = [n for n in range(shards) if not {SHARD_FORMAT.format(n), _stats_name(n)} <= there]
    ends = list(accumulate(rows))
    connect()
    for _ in run_in_tasks(
        [_tar_item(n, files, ends, shard_samples) for n in todo], _TarWriter(run, out).write
    ):
        pass
    sizes = {
        SHARD_FORMAT.format(n): min(shard_samples, kept - n * shard_samples) for n in range(shards)
    }
    out.write(_SIZES, json.dumps(sizes).encode())
    out.write_stream(_UIDS, uid_list_pieces(run, selection))
    meta = {
        "input_dir": run_uri,
        "output_dir": out_uri,
        "processed_count": kept,
        "output_count": kept,
        "output_shard_count": shards,
        "output_shard_format": SHARD_FORMAT,
        "blur_count": 0,
        "worker_success": True,
    }
    out.write(_META, json.dumps(meta, indent=1).encode())
    return shards


def _refuse_in_run(out_uri: str) -> None:
    """Raises InputError for a file or folder inside any run, unless its name is hidden.

    Runs have no hidden files.
    """
    place = Store(os.path.realpath(out_uri) if is_local(out_uri) else out_uri).address
    # No file of a run is deeper than selections/RULE/FILE.
    for _ in range(3):
        place, _, name = place.rpartition("/")
        if name.startswith((".", "_")) or not place.partition("://")[2].strip("/"):
            return
        with suppress(StorageAccessError):  # then it could not be written to either
            if Store(place).exists(RUN):
                raise InputError(
                    f"output: {out_uri} is inside the run {place}, and an export could overwrite "
                    "its files; use a path outside it, or a hidden one (its name begins with . or "
                    "_)"
                )


def _identity(
    run: Run, files: Sequence[str], rows: Sequence[int], shard_samples: int
) -> dict[str, Any]:
    """Identity of an export: the subset, in the order of its files, and the samples per tar."""
    selection = run.read_json(SELECTION) or {}
    subset = {"selection": selection, "files": list(zip(files, rows, strict=True))}
    return {
        "run": run.store.address,
        "select": selection.get("select"),
        "subset_digest": fingerprint_digest(subset),
        "shard_samples": shard_samples,
    }


def _claim(out: Store, identity: Mapping[str, Any], shards: int) -> set[str]:
    """Marks a folder as this export's before anything else is written; returns the names in it."""
    there = set(out.names())
    if EXPORT in there:
        that = parsed_json(
            out.read(EXPORT), out.uri_of(EXPORT), require_digest=False, advice=_START_OVER
        )
        problems = list(differences(that, identity, sides=("that", "this export")))
        if problems:
            raise InputError(
                f"{out.uri}: contains another export:\n"
                + "\n".join(f"  {problem}" for problem in problems)
                + "\nuse another folder"
            )
    ours = {EXPORT, _SIZES, _META, _UIDS, *map(SHARD_FORMAT.format, range(shards))}
    if foreign := sorted(there - ours - set(map(_stats_name, range(shards)))):
        raise InputError(
            f"{out.uri}: contains {abbreviated(foreign)}, which this export did not write; use an "
            "empty folder"
        )
    if EXPORT not in there and there:
        raise InputError(
            f"{out.uri}: contains {abbreviated(sorted(there))} but no {EXPORT}, so it is not an "
            "export; use an empty folder"
        )
    out.write(EXPORT, json.dumps(identity, indent=1).encode())
    return there


def _tar_item(number: int, files: Sequence[str], ends: Sequence[int], size: int) -> str:
    """Description of tar `number` for `_TarWriter.write`.

    It contains rows [number * size, (number + 1) * size) of all files concatenated. `ends`:
    cumulative row counts of the files.
    """
    start, stop = number * size, (number + 1) * size
    first, last = bisect_right(ends, start), bisect_left(ends, stop)
    skipped = start - (ends[first - 1] if first else 0)
    value = {"number": number, "files": files[first : last + 1], "skip": skipped, "rows": size}
    return json.dumps(value)


@dataclass(frozen=True)
class _TarWriter:
    """Writes tars. Sent to tasks; each call writes one tar and names the files that it needs."""

    run: Run
    out: Store

    def write(self, item: str) -> str:
        """Writes the tar described by a `_tar_item`; returns its name."""
        value = json.loads(item)
        number, start = value["number"], value["skip"]
        buffer, count = io.BytesIO(), 0
        copies: dict[str, int] = {}
        with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for row in self._rows(value["files"], start, start + value["rows"]):
                # DataComp numbers the copies of a uid; here they are adjacent, so numbered per tar.
                copy = copies[row["uid"]] = copies.get(row["uid"], -1) + 1
                for extension, data in _members(row):
                    entry = tarfile.TarInfo(f"{row['uid']}-{copy}.{extension}")
                    entry.size = len(data)
                    tar.addfile(entry, io.BytesIO(data))
                count += 1
        self.out.write(SHARD_FORMAT.format(number), buffer.getvalue())
        # Its presence marks the tar as complete.
        self.out.write(_stats_name(number), json.dumps({"successes": count}).encode())
        return SHARD_FORMAT.format(number)

    def _rows(self, files: Sequence[str], start: int, stop: int) -> Iterator[dict]:
        position = 0
        for file in files:
            with self.run.open_parquet(f"{SUBSET}/{file}") as parquet:
                for batch in parquet.iter_batches(256):
                    lo, hi = max(start - position, 0), min(stop - position, batch.num_rows)
                    if lo < hi:
                        yield from pa.Table.from_batches([batch.slice(lo, hi - lo)]).to_pylist()
                    position += batch.num_rows


def _members(row: dict) -> Iterator[tuple[str, bytes]]:
    image = row["image"]
    # A uid list may keep images that were never decoded: an unknown format becomes .jpg and fails
    # in the loader.
    yield extension_of(image) or "jpg", image
    first, *others = [row["text"]] if isinstance(row["text"], str) else row["text"]
    yield "txt", first.encode()
    for number, text in enumerate(others, 1):
        yield f"{number}.txt", text.encode()
    values = json.loads(row["metadata"]) if row["metadata"] else {}
    own = {
        k: v
        for k, v in row.items()
        if k.startswith(("score_", "caption_scores_")) or k in ("uid", "shard", "row")
    }
    yield "json", json.dumps(values | own).encode()


def _open_finished(run_uri: str) -> tuple[Run, dict[str, Any]]:
    run = open_run(run_uri)
    value = run.read_json(SELECTION)
    if value is None or value["state"] != State.FINAL:
        raise InputError(f"{run_uri}: has no finished subset to export; run dfn-ray filter first")
    return run, value


def _subset_files(run: Run) -> tuple[list[str], list[int]]:
    names = run.subset_files()
    return names, list(read_ahead(names, lambda name: run.rows_of(f"{SUBSET}/{name}")))


def _stats_name(number: int) -> str:
    return f"{SHARD_FORMAT.format(number).removesuffix('.tar')}_stats.json"
