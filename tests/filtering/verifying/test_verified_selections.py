"""Selections in `selections/`, altered one at a time, and the choice of compared samples."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dfn_ray.errors import DamagedRunError, VerificationError
from dfn_ray.filtering.filter_pool import select
from dfn_ray.filtering.verifying import verify_samples
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.run import open_run
from dfn_ray.run.sealed_json import json_bytes
from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import filter_without_ray, recipe_of

BOTH = ("dfn", "against")


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A finished run of 28 samples with three more selections, one of them by another network."""
    folder = tmp_path_factory.mktemp("selections")
    pool = write_pool(folder / "pool", shards=2, samples=14)
    filter_without_ray(recipe_of(folder / "run", pool, 0.5, networks=BOTH))
    for fraction, deciding in ((0.25, None), (0.75, None), (0.25, "against")):
        select(recipe_of(folder / "run", pool, fraction, networks=BOTH, deciding=deciding))
    return folder / "run"


@pytest.fixture
def run(whole, tmp_path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "run"))


def said(run: Path, *, full: bool) -> list[str]:
    lines: list[str] = []
    verify_run(str(run), full=full, say=lines.append)
    return lines


def selection_of(run: Path) -> Path:
    return run / "selections/fraction-0.25-of-pool-by-dfn"


def altered(path: Path, **values: object) -> None:
    value = json.loads(path.read_bytes()) | values
    del value["sha256"]
    path.write_bytes(json_bytes(value))


def test_full_checks_every_selection_and_sampling_says_that_it_does_not(run):
    assert (
        "the scores give the stored selections in selections/: 3 selections and their uids"
        in said(run, full=True)
    )
    (selection_of(run) / "selection.json").write_text("{")
    assert "notice: 3 selections in selections/ are not checked; --full checks them" in said(
        run, full=False
    )


@pytest.mark.parametrize("place", range(0, 240, 13))
def test_a_bit_of_a_uid_list_is_noticed_wherever_it_is(run, place):
    path = selection_of(run) / "subset_uids.npy"
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(VerificationError, match=r"of-pool-by-dfn/subset_uids\.npy: "):
        verify_run(str(run), full=True)


@pytest.mark.parametrize("data", [b"{", b"", b"[]", b"{}"])
def test_a_selection_that_is_no_longer_whole_is_named(run, data):
    (selection_of(run) / "selection.json").write_bytes(data)
    with pytest.raises(DamagedRunError, match=r"of-pool-by-dfn/selection\.json: is damaged"):
        verify_run(str(run), full=True)


@pytest.mark.parametrize(
    "value", [{"k": 8}, {"above": 5}, {"threshold": 0.1}, {"samples": 27}, {"network": "against"}]
)
def test_a_selection_that_its_scores_do_not_give_is_named(run, value):
    altered(selection_of(run) / "selection.json", **value)
    with pytest.raises(VerificationError, match=r"selections/fraction-0\.25-of-pool-by-dfn/"):
        verify_run(str(run), full=True)


@pytest.mark.parametrize("change", ["reversed", "shorter", "absent"])
def test_a_list_that_is_unsorted_short_or_absent_is_named(run, change):
    path = selection_of(run) / "subset_uids.npy"
    uids = np.load(path)
    if change == "absent":
        path.unlink()
    elif change == "reversed":
        np.save(path, uids[::-1])
    else:
        path.write_bytes(path.read_bytes()[:-16])
    with pytest.raises(VerificationError, match=r"of-pool-by-dfn/subset_uids\.npy: "):
        verify_run(str(run), full=True)


def test_a_selection_that_a_crash_left_unfinished_is_only_said(run):
    (selection_of(run) / "selection.json").unlink()
    assert any(
        "fraction-0.25-of-pool-by-dfn/ has no selection.json" in line
        for line in said(run, full=True)
    )


@pytest.mark.parametrize("keep_count", [9, 12, 100])
def test_whenever_some_samples_are_kept_some_are_compared(tmp_path, monkeypatch, keep_count):
    monkeypatch.setattr(verify_samples, "SAMPLE_ROWS", 8)
    monkeypatch.setattr(verify_samples, "SAMPLE_SHARDS", 2)
    pool = write_pool(tmp_path / "pool", shards=40, samples=5)
    filter_without_ray(recipe_of(tmp_path / "run", pool, keep_count / 200))
    opened = []

    def watched(run, name, columns=None):
        opened.append(name)
        return plain(run, name, columns)

    plain = type(open_run(str(tmp_path / "run"))).read_table
    for _ in range(5):
        assert 2 <= verify_run(str(tmp_path / "run"))["compared"] <= 8
    monkeypatch.setattr("dfn_ray.run.Run.read_table", watched)
    run = open_run(str(tmp_path / "run"))
    drawn = [verify_samples.Subsample.of(run, keep_count, full=False).files for _ in range(20)]
    assert len(opened) == 40, "of two files each time, and of no other the shards are read"
    assert len({tuple(files) for files in drawn}) > 1, "others at each time"


def test_of_one_file_as_many_shards_are_compared_as_of_many(tmp_path, monkeypatch):
    monkeypatch.setattr(verify_samples, "SAMPLE_ROWS", 8)
    monkeypatch.setattr(verify_samples, "SAMPLE_SHARDS", 4)
    pool = write_pool(tmp_path / "pool", shards=6, samples=10)
    filter_without_ray(recipe_of(tmp_path / "run", pool, 0.5), part_chunks=100)
    assert len(list((tmp_path / "run/subset").iterdir())) <= 2
    assert 4 <= verify_run(str(tmp_path / "run"))["compared"] <= 8
