"""A pool with every kind of damage: the run completes, and every sample is accounted for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.errors import InputError
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.testing.sample_pools import TarBuilder, photo
from tests.filtering.damaged import KINDS, write_damaged_pool
from tests.filtering.test_filter_pool import read

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def test_twenty_thousand_samples_with_every_damage_are_all_accounted_for(
    local_ray, recipe, tmp_path
):
    expected = write_damaged_pool(tmp_path / "pool", shards=20, samples=1000, damaged=0.01)
    assert len(expected) >= 20_000
    assert sum(outcome != "scored" for outcome in expected.values()) >= 2 * len(KINDS)
    job = recipe(
        tmp_path / "pool",
        "pool.chunk_rows=250",
        "decode.on_truncated=fail",
        "execution.chunks_per_part=8",
    )
    value = filter_pool(job)
    rows = read(Path(job.run_uri) / "scores").select(["shard", "key", "status", "reason"])
    found = {
        (row["shard"], row["key"]): "/".join(filter(None, (row["status"], row["reason"])))
        for row in rows.to_pylist()
    }
    assert len(found) == rows.num_rows, "a sample has two rows"
    wrong = {
        key: (found.get(key), expected.get(key))
        for key in found.keys() | expected.keys()
        if found.get(key) != expected.get(key)
    }
    assert wrong == {}
    assert value["counts"] == dict(sorted(Counter(expected.values()).items()))
    assert value["k"] == int(0.3 * len(expected))
    faults = {Path(shard).name: fault for shard, (fault, _) in value["faults"].items()}
    assert faults == {"cut-off.tar": "truncated_shard", "empty.tar": "empty_shard"}
    verify_run(job.run_uri, full=True)


def test_a_vanished_shard_and_a_broken_parquet_cost_themselves_and_no_more(
    local_ray, recipe, tmp_path
):
    folder = tmp_path / "pool"
    folder.mkdir()
    for name in ("a", "b", "gone"):
        tar = TarBuilder()
        for index in range(20):
            tar.sample(f"{name}{index}", image=photo(index), caption=f"picture {index} of {name}")
        (folder / f"{name}.tar").write_bytes(tar.getvalue())
    images = pa.array([photo(n) for n in range(10)], pa.binary())
    captions = pa.array([f"row {n}" for n in range(10)])
    pq.write_table(pa.table({"jpg": images, "caption": captions}), folder / "good.parquet")
    pq.write_table(pa.table({"jpg": images}), folder / "no-caption.parquet")
    pq.write_table(pa.table({"jpg": captions, "caption": captions}), folder / "mistyped.parquet")
    (folder / "page.parquet").write_bytes(b"<html>not found</html>")
    from dfn_ray.filtering.scoring.scoring_job import open_job

    job = recipe(folder, "execution.max_bad_shard_fraction=0.9", "select.keep_fraction=1.0")
    open_job(job, keep_bytes=True)  # the listing is made
    (folder / "gone.tar").unlink()
    with pytest.raises(Exception, match=r"pool\.shards: run has 7, recipe has 6"):
        filter_pool(job)
    (folder / "gone.tar").write_bytes(b"another")
    with pytest.raises(InputError, match="1 shards have changed in size since the run listed them"):
        filter_pool(job)
    (folder / "gone.tar").unlink()
    fresh = recipe(
        folder, "execution.max_bad_shard_fraction=0.9", "select.keep_fraction=1.0", run="fresh"
    )
    value = filter_pool(fresh)
    assert value["counts"] == {"scored": 50}
    assert {Path(shard).name: fault for shard, (fault, _) in value["faults"].items()} == {
        "mistyped.parquet": "mistyped_column",
        "no-caption.parquet": "missing_column",
        "page.parquet": "unreadable_shard",
    }
    assert value["k"] == 50
    verify_run(fresh.run_uri, full=True)
