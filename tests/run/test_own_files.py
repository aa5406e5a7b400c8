"""Every file of a run, truncated or with any byte altered, through its one reader."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from dfn_ray.errors import DamagedRunError
from dfn_ray.filtering.subset.write_uid_list import uid_list_pieces
from dfn_ray.run import SELECTION, Run, open_run, read_names
from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import filter_without_ray, recipe_of


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    pool = write_pool(tmp_path_factory.mktemp("pool"), shards=1, samples=8)
    folder = tmp_path_factory.mktemp("runs") / "run"
    filter_without_ray(recipe_of(folder, pool, 0.5))
    return folder


def reader_of(run: Run, path: Path, name: str) -> Callable[[], object]:
    """Reads the whole file with the reader of its kind."""
    selection = run.read_json(SELECTION) or {}
    last = run.store.list("attempts", suffix=".json")[-1]
    if name in ("run.json", f"attempts/{last.name}"):
        return lambda: open_run(run.uri)
    if path.suffix == ".json":
        return lambda: run.read_json(name)
    if path.suffix == ".txt":
        return lambda: read_names(run.store, name)
    if path.suffix == ".parquet":
        return lambda: run.verify_file(name)
    return lambda: b"".join(uid_list_pieces(run, selection))


def files_of(finished: Path) -> dict[str, Path]:
    paths = [path for path in finished.rglob("*") if path.is_file() and path.name[0] != "."]
    return {path.relative_to(finished).as_posix(): path for path in paths}


KINDS = (
    "run.json", "selection.json", "bounds/", "attempts/", "pool.parquet", "scores/", "subset/",
    "parts-", "files-", "subset_uids.npy",
)  # fmt: skip


def test_the_kinds_are_all_there_are(finished):
    assert all(any(name.startswith(kind) for kind in KINDS) for name in files_of(finished))


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_anywhere_is_a_damaged_run_that_names_it(finished, kind):
    name, path = next(pair for pair in files_of(finished).items() if pair[0].startswith(kind))
    read, whole = reader_of(open_run(str(finished)), path, name), path.read_bytes()
    read()
    try:
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(DamagedRunError, match=path.name):
                read()
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bit_flipped_anywhere_changes_nothing_or_is_a_damaged_run(finished, kind):
    name, path = next(pair for pair in files_of(finished).items() if pair[0].startswith(kind))
    read, whole = reader_of(open_run(str(finished)), path, name), path.read_bytes()
    try:
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << place % 8
            if path.suffix == ".json" and is_same_json(damaged, whole):
                continue
            path.write_bytes(damaged)
            with pytest.raises(DamagedRunError, match=path.name):
                read()
    finally:
        path.write_bytes(whole)


def is_same_json(damaged: bytes, whole: bytes) -> bool:
    try:
        return json.loads(damaged) == json.loads(whole)
    except ValueError:
        return False
