"""Server faults cost a pool nothing but files that the server reports as missing."""

from __future__ import annotations

import io
import random

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.config import Pool
from dfn_ray.errors import StorageError
from dfn_ray.pool import Shard, iter_chunks
from dfn_ray.schema import ShardFault
from dfn_ray.storage import Store
from dfn_ray.storage.retries import Policy
from dfn_ray.testing.http_server import READABLE, Fault, serve_http
from dfn_ray.testing.s3_proxy import Fault as S3Fault
from dfn_ray.testing.s3_proxy import Faults
from dfn_ray.testing.sample_pools import TarBuilder

MIDDLE = 6 * 2**20
TRANSIENT = (
    Fault.STATUS_403, Fault.STATUS_429, Fault.STATUS_500, Fault.STATUS_503, Fault.RESET,
    Fault.STALL, Fault.CUT,
)  # fmt: skip
SAMPLES = 10


@pytest.fixture(scope="module")
def tar() -> bytes:
    """More than 8 MiB, so that a walk takes several ranges."""
    chance = random.Random(0)
    tar = TarBuilder()
    for number in range(SAMPLES):
        tar.sample(f"{number:03d}", image=chance.randbytes(10**6), caption=f"c{number}")
    return tar.getvalue()


@pytest.fixture
def server(tar, monkeypatch):
    policy = Policy(attempts=3, doubtful_attempts=2, longest_wait_s=0, stall_s=0.8)
    monkeypatch.setattr("dfn_ray.storage.retries.POLICY", policy)
    with serve_http({"00000.tar": tar}) as server:
        yield server


def read(uri):
    """Keys and images by key, and the fault of the shard."""
    pool = Pool(uri=(uri,), chunk_rows=4)
    images, fault = {}, None
    for chunk, table in iter_chunks(Shard(uri, uri.rpartition("/")[2], 0), pool):
        fault = chunk.fault
        images |= {row["key"]: row["image"] for row in table.to_pylist()}
    return images, fault


@pytest.mark.parametrize("from_byte", [0, MIDDLE], ids=["at open", "in the middle"])
@pytest.mark.parametrize("fault", [*TRANSIENT, Fault.CUT_NO_LENGTH])
def test_a_fault_that_passes_costs_no_sample(server, fault, from_byte):
    whole, _ = read(server.uri("00000.tar"))
    assert len(whole) == SAMPLES
    server.plan(fault, times=1, from_byte=from_byte)
    assert read(server.uri("00000.tar")) == (whole, None)


@pytest.mark.parametrize("from_byte", [0, MIDDLE], ids=["at open", "in the middle"])
@pytest.mark.parametrize("fault", READABLE)
def test_a_server_without_ranges_or_lengths_or_with_compression_costs_no_sample(
    server, fault, from_byte
):
    server.plan(fault, from_byte=from_byte)
    images, shard_fault = read(server.uri("00000.tar"))
    assert (len(images), shard_fault) == (SAMPLES, None)


@pytest.mark.parametrize("from_byte", [0, MIDDLE], ids=["at open", "in the middle"])
@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_fault_that_stays_is_no_fault_of_the_shard(server, fault, from_byte):
    server.plan(fault, from_byte=from_byte)
    with pytest.raises(StorageError, match=r"00000\.tar: cannot (open|read) it"):
        read(server.uri("00000.tar"))


def test_a_cut_body_without_length_is_no_fault_of_a_parquet_shard(server):
    out = io.BytesIO()
    images = [random.Random(number).randbytes(200_000) for number in range(SAMPLES)]
    pq.write_table(pa.table({"image": images, "text": ["c"] * SAMPLES}), out, row_group_size=4)
    server.files["0.parquet"] = out.getvalue()
    server.plan(Fault.CUT_NO_LENGTH, times=1)
    found, fault = read(server.uri("0.parquet"))
    assert (len(found), fault) == (SAMPLES, None)


def test_a_cut_body_after_a_range_is_no_fault_of_the_shard(server):
    server.plan(Fault.CUT_NO_LENGTH, from_byte=MIDDLE)
    with pytest.raises(StorageError, match=r"00000\.tar: cannot read it: failed"):
        read(server.uri("00000.tar"))


@pytest.mark.parametrize("fault", [Fault.STATUS_404, Fault.STATUS_410])
def test_what_the_server_says_is_not_there_is_a_missing_shard(server, fault):
    server.plan(fault)
    assert read(server.uri("00000.tar")) == ({}, ShardFault.MISSING)


@pytest.fixture
def on_s3(s3, fresh_s3, proxy, tar, monkeypatch):
    """The same shard on an S3 server behind the fault proxy."""
    policy = Policy(attempts=8, doubtful_attempts=2, longest_wait_s=0)
    monkeypatch.setattr("dfn_ray.storage.retries.POLICY", policy)
    Store("s3://pools/transport").write("00000.tar", tar)
    return "s3://pools/transport/00000.tar"


def test_s3_on_a_bad_day_costs_no_sample(on_s3, proxy):
    whole, _ = read(on_s3)
    kinds = (S3Fault.SLOW_DOWN, S3Fault.INTERNAL_ERROR, S3Fault.RESET, S3Fault.SHORT)
    for seed in range(3):
        proxy.reset()
        proxy.faults = Faults(share=0.5, seed=seed, kinds=kinds)
        assert read(on_s3) == (whole, None)
    assert proxy.faulty > 0


@pytest.mark.parametrize("operation", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "kind",
    [
        S3Fault.SLOW_DOWN,
        S3Fault.INTERNAL_ERROR,
        S3Fault.RESET,
        S3Fault.SHORT,
        S3Fault.DENIED,
        S3Fault.EXPIRED,
    ],
)
def test_s3_that_stays_bad_is_no_fault_of_the_shard(on_s3, proxy, kind, operation):
    if (kind, operation) == (S3Fault.SHORT, "HEAD"):
        pytest.skip("an answer to HEAD has no body")
    proxy.faults = Faults(share=1.0, kinds=(kind,), operations=(operation, "LIST"))
    with pytest.raises(StorageError, match=r"00000\.tar: (cannot|no permission to) (open|read) it"):
        read(on_s3)
