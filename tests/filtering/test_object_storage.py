"""Pool and run on a real S3 server give what they give on disk."""

from __future__ import annotations

import shutil

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.errors import InputError
from dfn_ray.filtering.export import export_webdataset
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.verify import verify_run
from dfn_ray.pool import list_shards
from dfn_ray.storage import Store

pytestmark = pytest.mark.ray


def subset(uri: str) -> list[dict]:
    fs, root = fsspec.url_to_fs(f"{uri}/subset")
    fs.invalidate_cache()
    rows = []
    for path in fs.ls(root, detail=False):
        with fs.open(path) as file:
            rows += pq.read_table(file).to_pylist()
    for row in rows:
        row["shard"] = row["shard"].rpartition("/")[2]
    return sorted(rows, key=lambda row: (row["shard"], row["row"]))


def test_a_run_on_s3_equals_the_run_on_disk(local_ray, s3, recipe, pool, tmp_path):
    shutil.copytree(pool, s3.folder / "pools" / "pool")
    there = recipe("s3://pools/pool/{00000..00005}.tar", "run_uri=s3://runs/a/run")
    here = recipe(pool)
    assert filter_pool(there)["threshold"] == filter_pool(here)["threshold"]
    assert subset(there.run_uri) == subset(here.run_uri)
    assert verify_run(there.run_uri, full=True)["kept"] == 90
    store = Store(there.run_uri)
    secret = s3.secret.encode()
    for name in ("run.json", "selection.json", "attempt.json", "pool.parquet"):
        assert secret not in store.read(name)
    # Nothing is left to do: the same recipe again changes nothing.
    before = [(file.uri, file.size_bytes) for file in store.list("scores")]
    filter_pool(there)
    assert [(file.uri, file.size_bytes) for file in store.list("scores")] == before
    assert export_webdataset(there.run_uri, "s3://runs/tars", shard_samples=40) == 3


def test_a_stream_that_breaks_leaves_no_object(s3):
    store = Store("s3://runs/streams")

    def pieces():
        yield b"a" * 2**20
        raise RuntimeError("source died")

    with pytest.raises(RuntimeError, match="source died"):
        store.write_stream("list.npy", pieces())
    assert not store.exists("list.npy")
    store.write_stream("list.npy", [b"ab", b"cd"])
    assert store.read("list.npy") == b"abcd"


def test_a_missing_bucket_is_told_before_anything_starts(s3, recipe):
    with pytest.raises(InputError, match="no-such-bucket"):
        list_shards(recipe("s3://no-such-bucket/*.tar").pool)


def test_image_parquet_is_readable_from_s3_by_plain_pyarrow(local_ray, s3, recipe, pool):
    job = recipe(pool, "run_uri=s3://runs/plain/run")
    filter_pool(job)
    fs, root = fsspec.url_to_fs(f"{job.run_uri}/subset")
    table = pa.concat_tables([pq.read_table(fs.open(path)) for path in fs.ls(root, detail=False)])
    assert table.num_rows == 90
