"""Outputs must not become part of the pool that they are made from."""

from __future__ import annotations

import pytest

from dfn_ray.config import Pool
from dfn_ray.errors import InputError
from dfn_ray.pool import Shard, list_shards, require_outside_pool


@pytest.fixture
def pool(tmp_path):
    """A pool folder with a shard, and one on another disk behind a link."""
    for name in ("data/pool/0.tar", "data/pool/x/1.tar", "disk/sub/2.tar", "data/pool/cat/a.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "data/pool/d1").symlink_to(tmp_path / "disk")
    (tmp_path / "link").symlink_to(tmp_path / "data/pool")
    return tmp_path / "data/pool"


def refused(pool: Pool, uri: str, **options) -> bool:
    shards: list[Shard] = list_shards(pool)
    try:
        require_outside_pool(pool, uri, setting="run_uri", shards=shards, **options)
    except InputError:
        return True
    return False


@pytest.mark.parametrize(
    ("pattern", "run", "is_refused"),
    [
        ("data/pool", "data/pool/run", True),
        ("data/pool", "data/pool", True),
        ("data/pool", "data/pool/x/deep/run", True),
        ("data/pool", "link/run", True),
        ("link", "data/pool/run", True),
        ("data/pool", "data/pool/d1/run", True),
        ("data/pool", "disk/run", True),
        ("data/pool", "disk/sub/run", True),
        ("data/pool/**/*.parquet", "data/pool/run", True),
        ("data/pool/*/*", "data/pool/x", True),
        ("data/{pool,pool}", "data/pool/run", True),
        ("data/pool/cat", "data/run", False),
        ("data/pool", "data/run", False),
        ("data/pool", "data/pool-run", False),
        ("data/pool", "data", False),
        ("data/pool", "data/pool/.run", False),
        ("data/pool", "data/pool/x/_runs/1", False),
        ("data/pool/*.tar", "data/pool/run", False),
        ("data/pool/**/*.tar", "data/pool/run", False),
        ("data/pool/{0..9}.tar", "data/pool/run", False),
        ("data/pool/0.tar", "data/pool/run", False),
    ],
)
def test_a_run_is_refused_where_the_listing_would_take_in_its_files(
    pool, tmp_path, pattern, run, is_refused
):
    uri = (f"{tmp_path}/{pattern}",)
    if "{pool,pool}" in pattern or "parquet" in pattern or pattern.endswith("/cat"):
        there = Pool(uri=uri)
        assert (_refused_unlisted(there, f"{tmp_path}/{run}")) is is_refused
    else:
        assert refused(Pool(uri=uri), f"{tmp_path}/{run}") is is_refused


def _refused_unlisted(pool: Pool, uri: str) -> bool:
    try:
        require_outside_pool(pool, uri, setting="run_uri")
    except InputError:
        return True
    return False


def test_a_refusal_names_the_setting_the_place_and_the_pattern(pool):
    with pytest.raises(
        InputError, match=rf"^run_uri: {pool}/run lies in the pool, where {pool} of"
    ):
        require_outside_pool(Pool(uri=(str(pool),)), f"{pool}/run", setting="run_uri")


def test_a_run_around_its_pool_is_refused_only_where_it_writes_into_it(tmp_path):
    for name in ("subset", "deep/subset"):
        pool = tmp_path / name
        pool.mkdir(parents=True)
        (pool / "0.tar").write_bytes(b"1")
    assert refused(Pool(uri=(f"{tmp_path}/subset",)), str(tmp_path))
    assert not refused(Pool(uri=(f"{tmp_path}/deep/subset",)), str(tmp_path))


def test_tars_of_an_export_are_refused_where_a_pattern_takes_tars(pool):
    tars = Pool(uri=(f"{pool}/**/*.tar",))
    assert refused(tars, f"{pool}/export", writes=("00000000.tar",))
    assert not refused(tars, f"{pool}/export", writes=("uids.npy",))


def test_any_file_below_a_class_folder_is_part_of_it_and_any_folder_beside_it_a_class(tmp_path):
    for name in ("pool/ant/a.jpg", "pool/bee/b.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1")
    root = f"{tmp_path}/pool"
    pool = Pool(uri=(root,), format="folder")
    for run in ("run", ".run", "_run", "ant", ""):
        assert refused(pool, f"{root}/{run}".rstrip("/"))
    assert not refused(pool, f"{root}/ant/.run")
    assert not refused(pool, str(tmp_path))


def test_object_stores_are_compared_in_one_spelling():
    pool = Pool(uri=("s3a://bucket/pool/",))
    for run in ("s3://bucket/pool/run/", "s3a://bucket/pool/x"):
        with pytest.raises(InputError, match=r"run_uri: s3.* lies in the pool"):
            require_outside_pool(pool, run, setting="run_uri")
    for run in ("s3://bucket/pool2", "s3://other/pool/run", "/bucket/pool/run"):
        require_outside_pool(pool, run, setting="run_uri")
    require_outside_pool(Pool(uri=("https://host/{0..9}.tar",)), "/data/run", setting="run_uri")
