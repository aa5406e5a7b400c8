"""Samples read, failed and rejected add up, and have the limits of filtering; without Ray."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from dfn_ray.config import Pool, Source
from dfn_ray.errors import ErrorLimitExceededError, InputError, StorageError
from dfn_ray.pool import list_shards
from dfn_ray.pool.error_limits import ErrorLimits
from dfn_ray.testing.sample_pools import TarBuilder, photo, uid_of
from dfn_ray.training.data.feed import COUNTED
from dfn_ray.training.data.index import index_shard, indexed_shards, source_counts, split_index
from dfn_ray.training.data.read_counts import check_sources, check_training, training_values
from dfn_ray.training.fit import Reports, _is_final
from dfn_ray.uids.records import uid_records

LIMITS = ErrorLimits(max_failed_fraction=0.25, max_bad_shard_fraction=0.25)


def write(folder, *, shards=3, samples=10, uncaptioned=()):
    folder.mkdir(exist_ok=True)
    for shard in range(shards):
        tar = TarBuilder()
        for n in range(shard * samples, (shard + 1) * samples):
            tar.sample(
                f"{n:04d}",
                image=photo(n),
                caption=None if n in uncaptioned else f"number {n}",
                metadata={"uid": uid_of(n)},
            )
        (folder / f"{shard:05d}.tar").write_bytes(tar.getvalue())


def indexed(*sources):
    shards = [list_shards(source.pool) for source in sources]
    table = pa.concat_tables(
        [
            index_shard(source, number, shard, place)
            for number, source in enumerate(sources)
            for place, shard in enumerate(shards[number])
        ]
    )
    return table, sources, shards


def source_of(pattern, **values):
    return Source(pool=Pool(uri=(str(pattern),), chunk_rows=4), **values)


def test_what_was_read_is_what_is_used_failed_and_rejected(tmp_path):
    write(tmp_path / "pool", uncaptioned=(3, 4, 25))
    listed = uid_records(pa.array([uid_of(n) for n in (0, 1, 1, 3, 20)]))
    np.save(tmp_path / "list.npy", np.sort(listed))
    whole, part = source_of(tmp_path / "pool"), source_of(
        tmp_path / "pool", uid_list=str(tmp_path / "list.npy"), name="part"
    )  # fmt: skip
    first, second = (source.values() for source in source_counts(*indexed(whole, part)))
    assert (first["samples"], first["usable"], first["per_pass"]) == (30, 27, 27)
    assert first["failed"] == {"missing_caption": 3}
    assert (first["shards"], first["bad_shards"]) == (3, 0)
    assert (second["name"], second["usable"], second["per_pass"]) == ("part", 3, 4)
    assert second["rejected"] == {"not_listed": 24}
    for found in (first, second):
        parts = found["usable"] + sum(found["failed"].values()) + sum(found["rejected"].values())
        assert parts == found["samples"] == 30


def test_a_drawn_count_is_what_a_pass_has(tmp_path):
    write(tmp_path / "pool")
    (found,) = source_counts(*indexed(source_of(tmp_path / "pool", sample_count=7)))
    assert (found.per_pass, found.values()["usable"]) == (7, 30)
    assert "30 samples read, 7 used per pass" in found.line()


def test_bad_shards_are_counted_named_and_judged_missing_ones_too(tmp_path):
    pool = tmp_path / "pool"
    write(pool, shards=4)
    (pool / "00002.tar").write_bytes((pool / "00002.tar").read_bytes()[:1500])
    (pool / "00003.tar").write_bytes(b"<html>503</html>" * 40)
    table, sources, shards = indexed(source_of(f"{pool}/{{00000..00005}}.tar"))
    (found,) = source_counts(table, sources, shards)
    values = found.values()
    assert (values["shards"], values["bad_shards"]) == (6, 4)
    assert {uri[-9:-4]: fault.partition(":")[0] for uri, fault in values["faults"].items()} == {
        "00002": "truncated_shard",
        "00003": "unreadable_shard",
        "00004": "missing_shard",
        "00005": "missing_shard",
    }
    assert f"4 of 6 shards bad, e.g. {pool}/00002.tar: truncated_shard" in found.line()
    what = rf"sources\.0 \(pairs\): 4 of 6 shards are bad, e\.g\. {pool}/00002\.tar.*allows 25%"
    with pytest.raises(ErrorLimitExceededError, match=what):
        check_sources([found], LIMITS)
    check_sources([found], ErrorLimits(max_failed_fraction=0.25, max_bad_shard_fraction=0.67))


def test_a_source_of_which_too_many_samples_failed_is_named(tmp_path):
    write(tmp_path / "good", shards=1)
    write(tmp_path / "bad", shards=1, uncaptioned=range(4))
    sources = source_counts(
        *indexed(source_of(tmp_path / "good"), source_of(tmp_path / "bad", name="web"))
    )
    what = r"sources\.1 \(web\): 4 of 10 samples failed \(missing_caption 4\); max_failed_fraction"
    with pytest.raises(ErrorLimitExceededError, match=what):
        check_sources(sources, LIMITS)
    check_sources(sources[:1], LIMITS)


def test_the_rows_that_count_shards_are_no_chunks(tmp_path):
    write(tmp_path / "pool", uncaptioned=range(10))
    table, sources, shards = indexed(source_of(tmp_path / "pool"))
    (index,) = split_index(table, sources, shards)
    assert (len(index), index.total) == (6, 20)
    assert indexed_shards(table) == {(0, 0), (0, 1), (0, 2)}
    write(tmp_path / "none", shards=1, uncaptioned=range(10))
    with pytest.raises(InputError, match=r"sources\.0 \(pairs\): no usable sample"):
        split_index(*indexed(source_of(tmp_path / "none")))


def test_failures_while_training_are_judged_together_with_those_of_reading():
    read = {"usable": 800, "failed/missing_caption": 200}

    def judge(failed, seen, *, final=True):
        trained = {"failed/not_an_image": failed, "truncated_scored": 9_999}
        check_training(read, trained, seen, LIMITS, where="run: ", final=final)

    judge(40, 760)  # 40 and 200 of 1,000
    with pytest.raises(
        ErrorLimitExceededError, match=r"260 of 1,000.*missing_caption 200.*image 60"
    ):
        judge(60, 740)
    judge(60, 740, final=False)  # too few to say
    with pytest.raises(ErrorLimitExceededError):
        judge(700, 9_300, final=False)
    check_training(read, {}, 0, LIMITS, where="", final=True)


def test_places_without_a_row_are_counted_once_and_only_when_their_group_is_closed():
    reports = Reports.__ray_metadata__.modified_class()
    failed = np.eye(len(COUNTED), dtype=np.int64)[COUNTED.index("failed/not_an_image")] * 5
    reports.add_unplaced(1, 0, 12, failed)
    reports.add_unplaced(1, 0, 12, failed)  # the task ran twice
    reports.add_unplaced(1, 3, 0, failed)
    assert reports.take_unplaced(1, 3).sum() == 5
    assert reports.take_unplaced(1, 3).sum() == 0
    reports.add_unplaced(2, 3, 0, failed)  # other workers read it again
    assert reports.take_unplaced(2, 3).sum() == 0
    assert reports.unplaced_counts() == {"failed/not_an_image": 5}
    assert reports.take_unplaced(2, 4).sum() == 5


def test_counts_of_training_are_failures_and_notes_apart():
    counts = {"failed/decode_error": 2, "truncated_scored": 3}
    assert training_values(counts) == {
        "failed": {"decode_error": 2},
        "notes": {"truncated_scored": 3},
    }


def test_only_a_store_that_may_answer_again_lets_training_start_again():
    from dfn_ray.errors import (
        MissingFileError,
        RunTakenOverError,
        ShardChangedError,
        StorageAccessError,
    )

    assert [
        _is_final(kind("x"))
        for kind in (StorageError, RunTakenOverError, ShardChangedError, StorageAccessError,
                     MissingFileError, ErrorLimitExceededError)
    ] == [False, False, True, True, True, True]  # fmt: skip
