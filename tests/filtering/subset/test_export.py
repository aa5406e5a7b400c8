"""Exports for other trainers, DataComp's uid list and resharded tars, by their own rules."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from dfn_ray.config import Execution
from dfn_ray.errors import InputError, StorageError
from dfn_ray.filtering.filter_pool import materialize
from dfn_ray.filtering.subset.export_subset import export_uids, export_webdataset
from dfn_ray.filtering.subset.uid_list_subset import materialize_listed
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.testing.sample_pools import uid_of
from tests.filtering.test_filter_pool import read

pytestmark = pytest.mark.ray


def test_the_uid_list_is_datacomps(finished, tmp_path):
    assert export_uids(finished.run_uri, str(tmp_path / "subset.npy")) == 90
    loaded = np.load(tmp_path / "subset.npy")
    assert loaded.dtype == np.dtype("u8,u8")
    assert (np.sort(loaded) == loaded).all()
    uids = read(Path(finished.run_uri) / "subset")["uid"].to_pylist()
    # apply_filter.py's own conversion
    assert loaded.tolist() == sorted((int(uid[:16], 16), int(uid[16:32], 16)) for uid in uids)


def test_the_tars_are_read_by_webdataset_and_carry_what_datacomp_and_open_clip_look_for(
    finished, tmp_path
):
    out = tmp_path / "tars"
    assert export_webdataset(finished.run_uri, str(out), shard_samples=40) == 3
    assert json.loads((out / "sizes.json").read_text()) == {
        "00000000.tar": 40,
        "00000001.tar": 40,
        "00000002.tar": 10,
    }
    meta = json.loads((out / "meta.json").read_text())
    names = [meta["output_shard_format"].format(n) for n in range(meta["output_shard_count"])]
    assert sorted(path.name for path in out.glob("*.tar")) == names
    assert json.loads((out / "00000002_stats.json").read_text()) == {"successes": 10}
    # open_clip's own reading: image key "jpg;png;jpeg;webp", caption "txt"
    samples = list(
        webdataset.WebDataset([str(out / name) for name in names], shardshuffle=False)
        .decode("pilrgb")
        .rename(image="jpg;png;jpeg;webp", text="txt")
    )
    kept = {row["uid"]: row for row in read(Path(finished.run_uri) / "subset").to_pylist()}
    assert len(samples) == 90
    for sample in samples:
        uid, _, copy = sample["__key__"].partition("-")
        assert copy == "0"
        assert sample["text"] == kept[uid]["text"]
        assert sample["json"]["uid"] == uid
        assert sample["json"]["source"] == "test"
        assert sample["json"]["score_dfn"] == pytest.approx(kept[uid]["score_dfn"])
        expected = Image.open(io.BytesIO(kept[uid]["image"])).convert("RGB")
        assert sample["image"].tobytes() == expected.tobytes()


def test_an_export_goes_on_with_the_tars_that_are_missing(finished, tmp_path):
    out = tmp_path / "tars"
    export_webdataset(finished.run_uri, str(out), shard_samples=40)
    before = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.tar")
    }
    kept = (out / "00000000.tar").stat().st_mtime_ns
    (out / "00000001.tar").write_bytes(b"half")
    (out / "00000001_stats.json").unlink()
    export_webdataset(finished.run_uri, str(out), shard_samples=40)
    after = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in out.glob("*.tar")}
    assert after == before
    assert (out / "00000000.tar").stat().st_mtime_ns == kept


def test_a_folder_that_holds_another_export_is_refused_and_left_as_it_is(
    finished, recipe, pool, tmp_path
):
    out = tmp_path / "tars"
    export_webdataset(finished.run_uri, str(out), shard_samples=40)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    other = str(tmp_path / "other")
    materialize(recipe(pool, "select.keep_fraction=0.2"), out_uri=other)
    for run, samples, named in (
        (finished.run_uri, 50, "shard_samples: that has 40, this export has 50"),
        (other, 40, "select.keep_fraction: that has 0.3, this export has 0.2"),
    ):
        with pytest.raises(InputError, match=f"contains another export:(.|\n)*{named}"):
            export_webdataset(run, str(out), shard_samples=samples)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


@pytest.mark.parametrize(
    "name", ["00000000.tar", "00000003.tar", "00000001_stats.json", "mine.txt"]
)
def test_a_folder_with_files_of_another_hand_is_refused(finished, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_bytes(b"x")
    with pytest.raises(InputError, match=f"contains {name}"):
        export_webdataset(finished.run_uri, str(out), shard_samples=40)
    assert [path.name for path in out.iterdir()] == [name]


def test_what_came_into_the_folder_of_an_export_is_refused_when_it_goes_on(finished, tmp_path):
    out = tmp_path / "out"
    export_webdataset(finished.run_uri, str(out), shard_samples=40)
    (out / "00000003.tar").write_bytes(b"x")
    message = r"contains 00000003\.tar, which this export did not write"
    with pytest.raises(InputError, match=message):
        export_webdataset(finished.run_uri, str(out), shard_samples=40)


def test_a_file_in_the_place_of_the_folder_is_refused(finished, tmp_path):
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="file: is a file; need a folder"):
        export_webdataset(finished.run_uri, str(tmp_path / "file"))


@pytest.mark.parametrize("samples", [0, -5])
def test_tars_without_samples_are_refused(finished, tmp_path, samples):
    with pytest.raises(InputError, match=f"shard_samples: need >= 1, got {samples}"):
        export_webdataset(finished.run_uri, str(tmp_path / "out"), shard_samples=samples)


def test_an_error_raised_in_a_task_comes_out_as_itself(local_ray):
    from dfn_ray.on_ray.tasks import run_in_tasks

    def refuse(item: str) -> str:
        raise StorageError(f"{item}: cannot write it")

    with pytest.raises(StorageError) as told:
        list(run_in_tasks(["7"], refuse))
    assert str(told.value) == "7: cannot write it"
    assert type(told.value) is StorageError


def test_exporting_an_unfinished_run_is_refused(finished):
    (Path(finished.run_uri) / "selection.json").unlink()
    with pytest.raises(InputError, match="no finished subset"):
        export_uids(finished.run_uri, "x.npy")


def records(numbers: list[int]) -> np.ndarray:
    uids = [uid_of(number) for number in numbers]
    return np.array([(int(u[:16], 16), int(u[16:], 16)) for u in uids], dtype="u8,u8")


@pytest.mark.parametrize("header", [True, False])
def test_a_uid_list_materializes_its_samples_with_repeats_and_counts_what_is_not_there(
    local_ray, recipe, pool, tmp_path, header
):
    listed = np.sort(records([3, 3, 3, 100, 299, 7777]))
    path = tmp_path / "list.npy"
    if header:
        np.save(path, listed)
    else:
        path.write_bytes(listed.tobytes())
    job = recipe(pool)
    value = materialize_listed(
        job.pool, str(path), job.run_uri, execution=Execution(chunks_per_part=3)
    )
    assert (value["listed"], value["k"], value["not_found"]) == (6, 5, 1)
    assert value["counts"] == {"listed": 3, "rejected/not_listed": 297}
    uids = read(Path(job.run_uri) / "subset")["uid"].to_pylist()
    assert sorted(uids) == sorted(uid_of(n) for n in (3, 3, 3, 100, 299))
    assert verify_run(job.run_uri, full=True)["compared"] == 5
    export_webdataset(job.run_uri, str(tmp_path / "tars"))
    keys = [
        sample["__key__"]
        for sample in webdataset.WebDataset(
            str(tmp_path / "tars" / "00000000.tar"), shardshuffle=False
        )
    ]
    assert {f"{uid_of(3)}-{copy}" for copy in range(3)} < set(keys)
    # The same list again finds its run and has nothing to do.
    assert materialize_listed(job.pool, str(path), job.run_uri) == value


def test_an_unsorted_uid_list_is_refused(local_ray, recipe, pool, tmp_path):
    np.save(tmp_path / "list.npy", np.sort(records([1, 2, 3]))[::-1])
    job = recipe(pool)
    with pytest.raises(InputError, match="not sorted"):
        materialize_listed(job.pool, str(tmp_path / "list.npy"), job.run_uri)
