"""The sorted uid list against numpy's sort: one stretch, several, repeats, shared digits."""

from __future__ import annotations

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from dfn_ray.filtering.subset import write_uid_list as module
from dfn_ray.filtering.subset.write_uid_list import merge_spilled, spill_sorted, write_uid_list
from dfn_ray.run import RunIdentity, RunKind, start_run
from dfn_ray.uids.records import UID_DTYPE

NOTHING = pa.table(
    {name: pa.array([], pa.string()) for name in ("uri", "name", "fault")}
).append_column("size_bytes", pa.array([], pa.int64()))


@pytest.fixture
def run(tmp_path):
    return start_run(
        str(tmp_path / "run"),
        RunIdentity(kind=RunKind.FILTER, fingerprint={}, listing=NOTHING),
        recipe={},
    )


def uids(count: int, high: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    found = np.empty(count, UID_DTYPE)
    found["f0"] = rng.integers(0, high, count, dtype=np.uint64)
    found["f1"] = rng.integers(0, 50 if high < 10 else 2**63, count, dtype=np.uint64)
    return found


def by_numpy(found: np.ndarray) -> tuple[np.ndarray, int]:
    ordered = found[np.lexsort((found["f1"], found["f0"]))]
    return ordered, len(found) - len(np.unique(found))


def sha256(run, name):
    return hashlib.sha256(run.store.read(name)).hexdigest()


@pytest.mark.parametrize("high", [1, 3, 2**63])
@pytest.mark.parametrize("count", [0, 1, 999, 1000, 5003])
def test_the_list_is_the_sorted_uids_however_many_stretches_it_takes(run, monkeypatch, count, high):
    monkeypatch.setattr(module, "STRETCH_UIDS", 1000)
    monkeypatch.setattr(module, "BLOCK_UIDS", 64)
    found = uids(count, high)
    written = write_uid_list(run, "list.npy", np.array_split(found, 7), count)
    ordered, repeats = by_numpy(found)
    with run.open("list.npy") as file:
        assert np.array_equal(np.load(file), ordered)
    assert written == {"repeated_uids": repeats, "uid_list_sha256": sha256(run, "list.npy")}
    assert run.store.list(f"spill/{run.attempt.number:06d}") == []


def test_what_tasks_have_spilled_is_merged_and_removed(run, monkeypatch):
    monkeypatch.setattr(module, "STRETCH_UIDS", 300)
    monkeypatch.setattr(module, "BLOCK_UIDS", 64)
    found = uids(2500, 2)
    files = [file for some in np.array_split(found, 4) for file in spill_sorted(run, [some])]
    assert spill_sorted(run, [np.array_split(found, 4)[0]]) == files[: len(files) // 4]
    written = merge_spilled(run, "list.npy", files, len(found))
    ordered, repeats = by_numpy(found)
    with run.open("list.npy") as file:
        assert np.array_equal(np.load(file), ordered)
    assert written == {"repeated_uids": repeats, "uid_list_sha256": sha256(run, "list.npy")}
    assert run.store.list(f"spill/{run.attempt.number:06d}") == []
