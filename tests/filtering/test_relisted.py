"""Shards that have changed since they were listed: during a run, in its resume, and in `verify`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from dfn_ray.console.progress import Progress
from dfn_ray.errors import InputError, ShardChangedError, VerificationError
from dfn_ray.filtering.filter_pool import filter_pool, score
from dfn_ray.filtering.scoring import score_pool as module
from dfn_ray.filtering.scoring import unread_shards
from dfn_ray.filtering.subset import uid_list_subset
from dfn_ray.filtering.subset.uid_list_subset import materialize_listed
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.on_ray.cells import UnreadShard
from dfn_ray.on_ray.work import Work
from dfn_ray.pool import Shard
from dfn_ray.run import open_run, scored_sizes
from dfn_ray.storage import Store
from dfn_ray.testing.sample_pools import write_pool
from dfn_ray.uids.records import UID_DTYPE
from tests.filtering.scoring.test_unreachable import ONCE, committed
from tests.filtering.test_filter_pool import kept
from tests.filtering.test_object_storage import subset, upload

pytestmark = pytest.mark.ray

WORD = "execution.accept_changed_shards=true"


@pytest.fixture
def after_listing(monkeypatch):
    """Applies a change once, between the listing of the pool and the reading of its shards."""

    def do(change: Callable[[], object]) -> None:
        changes, connect = [change], module.connect

        def change_and_connect() -> None:
            if changes:
                changes.pop()()
            connect()

        monkeypatch.setattr(module, "connect", change_and_connect)

    return do


@pytest.fixture
def small_pool(tmp_path) -> Path:
    """4 shards of 10 good samples."""
    return write_pool(tmp_path / "pool", shards=4, samples=10)


@pytest.fixture
def larger(tmp_path) -> Path:
    """Shards of the same names with 12 samples each."""
    return write_pool(tmp_path / "larger", shards=4, samples=12)


def sizes(run_uri: str) -> dict[str, int]:
    listing = open_run(run_uri).listing()
    names = [Path(uri).name for uri in listing["uri"].to_pylist()]
    return dict(zip(names, listing["size_bytes"].to_pylist(), strict=True))


def sizes_in(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in folder.iterdir()}


def test_a_shard_that_changes_after_it_was_listed_waits_for_a_word_to_be_listed_anew(
    local_ray, recipe, small_pool, larger, after_listing
):
    job, changed = recipe(small_pool, *ONCE), small_pool / "00001.tar"
    reshard = sizes_in(small_pool)
    after_listing(lambda: shutil.copy(larger / changed.name, changed))
    with pytest.raises(ShardChangedError) as stopped:
        filter_pool(job)
    assert stopped.value.exit_code == 1
    said = str(stopped.value)
    assert f"1 of 4 shards differ from those that were listed ({changed})" in said
    assert f"listed with {reshard[changed.name]:,} bytes, found with" in said
    assert committed(job.run_uri) == {"00000.tar": 10, "00002.tar": 10, "00003.tar": 10}

    with pytest.raises(InputError, match=rf"1 shards have changed in size.*{WORD[:-5]} = true"):
        filter_pool(job)
    assert sizes(job.run_uri) == reshard

    value = filter_pool(recipe(small_pool, WORD, *ONCE))
    assert value["counts"] == {"scored": 42}
    assert sizes(job.run_uri) == sizes_in(small_pool)
    assert scored_sizes(open_run(job.run_uri).listing()) == {}
    verify_run(job.run_uri, full=True)


@pytest.mark.parametrize("others", ["reached", "not reached"])
def test_a_changed_shard_is_not_waited_for_and_does_not_shorten_the_wait_for_others(
    monkeypatch, others
):
    waits: list[float] = []
    monkeypatch.setattr(unread_shards.time, "sleep", waits.append)
    found = [UnreadShard(shard="a", changed=True, message="differs from the listed shard")]
    if others == "not reached":
        found.append(UnreadShard(shard="b", changed=False, message="503"))
    work = [Work(Shard(item.shard, item.shard, 1)) for item in found]
    known = {item.shard: item for item in found}
    assert unread_shards.all_changed(work, known) == (others == "reached")
    assert not unread_shards.all_changed([*work, Work(Shard("c", "c", 1))], known)
    for number in (2, 3):
        unread_shards.wait_before_round(number, found)
    assert waits == ([] if others == "reached" else [2.0, 10.0])


@pytest.mark.parametrize("verb", ["filter", "materialize"])
def test_a_run_with_a_changed_shard_stops_after_one_round(
    local_ray, recipe, small_pool, larger, tmp_path, monkeypatch, verb
):
    job, changed = recipe(small_pool), small_pool / "00001.tar"
    assert job.execution.rounds > 1
    said: list[str] = []
    monkeypatch.setattr(Progress, "say", lambda self, text: said.append(text))
    for stage in (module, uid_list_subset):  # connects between the listing and the reading
        monkeypatch.setattr(stage, "connect", lambda: shutil.copy(larger / changed.name, changed))
    np.save(tmp_path / "uids.npy", np.zeros(0, UID_DTYPE))

    def materialize():
        materialize_listed(
            job.pool, f"{tmp_path}/uids.npy", f"{tmp_path}/out", execution=job.execution
        )

    use = materialize if verb == "materialize" else partial(filter_pool, job)
    with pytest.raises(ShardChangedError, match="1 of 4 shards differ from those"):
        use()
    assert len([line for line in said if line.startswith("a shard could not be read: ")]) == 1


@pytest.mark.slow
def test_bytes_are_never_taken_from_a_shard_that_replaced_a_scored_one(
    local_ray, recipe, small_pool, larger
):
    job, first = recipe(small_pool, WORD), small_pool / "00000.tar"
    scored = first.read_bytes()
    score(job)
    shutil.copy(larger / first.name, first)
    for _ in range(2):
        with pytest.raises(
            InputError, match=rf"changed after they were scored \({first}\)"
        ) as refused:
            filter_pool(job)
        assert refused.value.exit_code == 2
    assert sizes(job.run_uri) == sizes_in(small_pool)

    first.write_bytes(scored)
    assert filter_pool(job)["k"] == 12
    verify_run(job.run_uri, full=True)


@pytest.mark.slow
def test_an_object_replaced_by_one_of_its_size_stops_the_run_and_is_read_by_the_next(
    local_ray, s3, proxy, recipe, small_pool, after_listing
):
    pool, run = "s3://pools/replaced-in-a-run", "s3://runs/replaced/run"
    upload(small_pool, pool)
    job = recipe(f"{pool}/*.tar", f"run_uri={run}", *ONCE)
    other = (small_pool / "00001.tar").read_bytes().replace(b"picture", b"drawing")
    after_listing(lambda: Store(pool).write("00001.tar", other))
    with pytest.raises(ShardChangedError, match=r"00001\.tar: .* listed with version .*, found"):
        filter_pool(job)
    assert "00001.tar" not in committed(run)

    assert filter_pool(job)["counts"] == {"scored": 40}
    said: list[str] = []
    verify_run(run, full=True, say=said.append)
    drawn = {row["shard"] for row in subset(run) if "drawing" in row["text"]}
    assert drawn == {"00001.tar"}
    notices = [line for line in said if line.startswith("notice: ")]
    assert [line.split(" was listed with version ")[0] for line in notices] == [
        f"notice: {pool}/00001.tar"
    ]


@pytest.fixture
def shard(pool):
    """The first shard of the shared pool, restored after the test."""
    path = pool / "00000.tar"
    data, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    yield path
    path.write_bytes(data)
    os.utime(path, ns=times)


def test_verify_takes_no_notice_of_another_time_of_a_shard(finished, shard):
    os.utime(shard, (0, 0))
    said: list[str] = []
    assert verify_run(finished.run_uri, say=said.append)["compared"] == 90
    assert "notice" not in "".join(said)
    assert filter_pool(finished)["state"] == "final"


def test_verify_says_that_a_shard_has_another_size_and_judges_by_its_bytes(finished, shard):
    reshard = shard.stat().st_size
    with shard.open("ab") as file:
        file.write(bytes(512))
    said: list[str] = []
    assert verify_run(finished.run_uri, full=True, say=said.append)["compared"] == 90
    notice = f"notice: {shard} was listed with {reshard:,} bytes and has {reshard + 512:,} now"
    assert [line for line in said if "notice" in line] == [notice]


def test_verify_finds_bytes_that_differ_in_a_shard_of_the_listed_size(finished, shard):
    shard.write_bytes(shard.read_bytes().replace(b"picture", b"drawing"))
    with pytest.raises(VerificationError, match=rf"text of samples of {shard} differs"):
        verify_run(finished.run_uri)


@pytest.mark.parametrize("gone", ["samples", "shard"])
def test_verify_calls_kept_samples_that_the_pool_has_no_more_a_breach(
    finished, shard, tmp_path, gone
):
    if gone == "shard":
        shard.unlink()
    else:
        fewer = write_pool(tmp_path / "fewer", shards=1, samples=1)
        shutil.copy(fewer / shard.name, shard)
    assert {uri for uri, _ in kept(finished.run_uri)} >= {str(shard)}
    with pytest.raises(VerificationError, match=rf"{shard}: .* of the requested rows do not exist"):
        verify_run(finished.run_uri)
