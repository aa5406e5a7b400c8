"""The bytes that verify reads of a finished run, counted in the opened files."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.filtering import part_files
from dfn_ray.filtering.verifying import verify_samples
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.pool import listing_table
from dfn_ray.run import RunIdentity, RunKind, parquet_bytes, start_run
from dfn_ray.storage import Store
from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import filter_without_ray, recipe_of

ROW_GROUP_BYTES = 32 * 2**10
HOLE_BYTES = 8 * 2**10
"""Gap between two ranges below which pyarrow reads them together; small compared to row groups of
32 MiB."""


class WatchedFile:
    """A file that records the ranges read from it."""

    def __init__(self, file, ranges: list[range]) -> None:
        self._file, self._ranges = file, ranges

    def read(self, size=-1):
        start = self._file.tell()
        data = self._file.read(size)
        self._ranges.append(range(start, start + len(data)))
        return data

    def readinto(self, target):
        start = self._file.tell()
        count = self._file.readinto(target)
        self._ranges.append(range(start, start + count))
        return count

    def __getattr__(self, name):
        return getattr(self._file, name)

    def __enter__(self):
        return self

    def __exit__(self, *raised):
        self._file.close()


@contextmanager
def ranges_read() -> Iterator[dict[str, list[range]]]:
    """The ranges read of each file of a store, by its name."""
    found: dict[str, list[range]] = {}
    plain = Store.open

    def watched(self, name, **options):
        return WatchedFile(plain(self, name, **options), found.setdefault(name, []))

    with patch.object(Store, "open", watched):
        yield found


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A finished run whose subset file has several row groups; verify compares four samples."""
    monkeypatch.setattr(part_files, "ROW_GROUP_BYTES", ROW_GROUP_BYTES)
    monkeypatch.setattr(verify_samples, "SAMPLE_ROWS", 4)
    monkeypatch.setattr(verify_samples, "SAMPLE_SHARDS", 1)
    pool = write_pool(tmp_path / "pool", shards=2, samples=150)
    filter_without_ray(recipe_of(tmp_path / "run", pool, 0.8), part_chunks=100)
    return tmp_path / "run"


def groups_of(path: Path, name: str) -> list[tuple[range, set]]:
    """Position of a column in each row group of a file, and the row group's samples.

    Not for tiny files.
    """
    parquet = pq.ParquetFile(path)
    at = parquet.schema_arrow.names.index(name)
    found = []
    for number in range(parquet.num_row_groups):
        chunk = parquet.metadata.row_group(number).column(at)
        if chunk.total_compressed_size <= HOLE_BYTES:
            continue
        start = chunk.data_page_offset
        rows = parquet.read_row_group(number, columns=["shard", "row"]).to_pylist()
        samples = {(row["shard"], row["row"]) for row in rows}
        found.append((range(start, start + chunk.total_compressed_size), samples))
    return found


def bytes_of(lies: range, path: Path, read: dict[str, list[range]]) -> int:
    """Bytes of a range of a subset file that were read, counted once per read.

    Reads of the footer are not counted: pyarrow requests the last 64 KiB of a file for it.
    """
    ranges = read[f"subset/{path.name}"]
    size = path.stat().st_size
    parts = (
        range(max(r.start, lies.start), min(r.stop, lies.stop)) for r in ranges if r.stop < size
    )
    return sum(map(len, parts))


def test_of_images_verify_reads_no_more_than_the_row_groups_that_hold_its_sample(run, monkeypatch):
    compared = set()

    def watched(uri, shard, here, of_pool):
        compared.update((shard, row) for row in here["row"].to_pylist())
        plain(uri, shard, here, of_pool)

    plain = verify_samples._compare
    monkeypatch.setattr(verify_samples, "_compare", watched)
    with ranges_read() as read:
        assert verify_run(str(run))["compared"] == 4
    assert len(compared) == 4
    files = sorted((run / "subset").glob("*.parquet"))
    passed = 0
    for path in files:
        for lies, samples in groups_of(path, "image"):
            there = bytes_of(lies, path, read)
            assert there == (len(lies) if samples & compared else 0)
            passed += not samples & compared
    assert passed >= 5


def test_full_reads_every_image_once(run):
    with ranges_read() as read:
        assert verify_run(str(run), full=True)["compared"] == 240
    for path in (run / "subset").glob("*.parquet"):
        for lies, _ in groups_of(path, "image"):
            assert bytes_of(lies, path, read) == len(lies)


def test_of_a_file_on_an_object_store_no_more_is_fetched_than_is_asked_for(s3, proxy):
    images = pa.array([random.Random(n).randbytes(2**20) for n in range(12)], pa.binary())
    table = pa.table({"image": images, "uid": [f"{n:032x}" for n in range(12)]})
    run = start_run(
        "s3://runs/read-here-and-there",
        RunIdentity(kind=RunKind.FILTER, fingerprint={}, listing=listing_table([])),
        recipe={},
    )
    run.write("subset/a.parquet", parquet_bytes(table, "a.parquet", row_group_size=4))
    proxy.reset()
    assert (
        run.read_table("subset/a.parquet", ["uid"])["uid"].to_pylist() == table["uid"].to_pylist()
    )
    assert run.rows_of("subset/a.parquet") == 12
    # Two footers of 64 KiB; a block read ahead has 8 MiB.
    assert 0 < proxy.bytes_out < 2**18
