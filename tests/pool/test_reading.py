from __future__ import annotations

import io

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfn_ray.config import Pool
from dfn_ray.errors import ShardChangedError, StorageError
from dfn_ray.pool import Shard, iter_chunks, list_shards, read_rows
from dfn_ray.schema import SAMPLE_SCHEMA, ShardFault
from dfn_ray.testing.sample_pools import TarBuilder, write_tar_shard


def tar_of(count: int) -> bytes:
    tar = TarBuilder()
    for number in range(count):
        tar.sample(f"{number:03d}", image=b"i%d" % number, caption=f"c{number}")
    return tar.getvalue()


def parquet_of(count: int) -> bytes:
    table = pa.table(
        {"image": [b"i%d" % n for n in range(count)], "text": [f"c{n}" for n in range(count)]}
    )
    file = io.BytesIO()
    pq.write_table(table, file, row_group_size=4)
    return file.getvalue()


SHARDS = {"tar": tar_of(20), "parquet": parquet_of(20)}


@settings(deadline=None, max_examples=40)
@given(rows=st.sets(st.integers(0, 19)), chunk_rows=st.integers(1, 25))
@pytest.mark.parametrize("kind", SHARDS)
def test_rows_read_again_are_the_rows_read_before(read, put, kind, rows, chunk_rows):
    shard = put(SHARDS[kind], name=f"0.{kind}")
    pool = Pool(uri=(shard.uri,), chunk_rows=chunk_rows)
    tables = list(read_rows(shard, pool, rows))
    assert all(table.schema == SAMPLE_SCHEMA for table in tables)
    whole = read(shard, chunk_rows=chunk_rows).rows
    assert [row for table in tables for row in table.to_pylist()] == [
        whole[r] for r in sorted(rows)
    ]


@pytest.mark.parametrize("kind", SHARDS)
def test_rows_that_are_no_longer_there_are_told(put, kind):
    shard = put(SHARDS[kind])
    match = r"2 of the requested rows.*the first is 20.*changed"
    with pytest.raises(ShardChangedError, match=match):
        list(read_rows(shard, Pool(uri=(shard.uri,)), [3, 20, 31]))
    gone = Shard(shard.uri.replace("00000", "00001"), "00001.tar", 9)
    with pytest.raises(ShardChangedError, match="missing_shard"):
        list(read_rows(gone, Pool(uri=(gone.uri,)), [3]))


@pytest.mark.parametrize("name", ["0.tar", "0.parquet", "0.bin"])
@pytest.mark.parametrize("kind", SHARDS)
def test_the_format_is_what_the_bytes_say_whatever_the_name(read, put, kind, name):
    result = read(put(SHARDS[kind], name=name))
    assert [row["text"] for row in result.rows] == [f"c{number}" for number in range(20)]
    assert result.last.fault is None


def test_a_forced_format_is_not_questioned(read):
    assert read(SHARDS["tar"], format="parquet").last.fault is ShardFault.UNREADABLE
    assert read(SHARDS["parquet"], format="webdataset").last.fault is ShardFault.UNREADABLE


@pytest.mark.parametrize("kind", SHARDS)
def test_a_store_that_fails_raises_and_blames_no_shard(put, monkeypatch, kind):
    shard = put(SHARDS[kind])
    memory_file = type(fsspec.filesystem("memory").open(shard.uri))
    reads = iter(range(100))

    def failing(self, size=-1):
        if next(reads) > 2:
            raise ConnectionResetError("connection reset by peer")
        return io.BytesIO.read(self, size)

    monkeypatch.setattr(memory_file, "read", failing, raising=False)
    with pytest.raises(StorageError, match=r"00000\.tar: cannot read it: connection reset"):
        list(iter_chunks(shard, Pool(uri=(shard.uri,))))


def test_a_shard_without_rights_raises(tmp_path, monkeypatch):
    shard = Shard(str(tmp_path / "0.tar"), "0.tar", 5)

    def refused(*args, **kwargs):
        raise PermissionError("no")

    monkeypatch.setattr("fsspec.implementations.local.LocalFileSystem.open", refused)
    with pytest.raises(StorageError, match="no permission to open"):
        list(iter_chunks(shard, Pool(uri=(shard.uri,))))


@pytest.mark.parametrize("root", ["memory://moved", "{tmp_path}"])
def test_a_pool_reads_alike_on_every_store(root, tmp_path):
    root = root.format(tmp_path=tmp_path)
    for number in range(2):
        write_tar_shard(f"{root}/{number:05d}.tar", [{"key": "k", "image": b"i", "caption": "c"}])
    pool = Pool(uri=(root,))
    rows = [
        row
        for shard in list_shards(pool)
        for _, t in iter_chunks(shard, pool)
        for row in t.to_pylist()
    ]
    assert [row["uid"] for row in rows] == [
        "ca2f0528dd5ca1f5d332628a82f60607",
        "9113731b169791862a92a7a04476c11e",
    ]
