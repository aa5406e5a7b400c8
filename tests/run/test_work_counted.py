"""Work per committed part, and per breach of a subset: counted, not timed."""

from __future__ import annotations

from collections import Counter
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.console.progress import Progress
from dfn_ray.errors import VerificationError
from dfn_ray.filtering import chain
from dfn_ray.filtering.chain import Committed
from dfn_ray.filtering.scoring import score_pool
from dfn_ray.filtering.scoring.bounds import EVERYTHING
from dfn_ray.filtering.scoring.scoring_job import ScoringJob
from dfn_ray.filtering.scoring.spending import CostMeter
from dfn_ray.filtering.verifying import verify_subset
from dfn_ray.filtering.verifying.row_sums import BUCKETS, first_different_row, rows_of_bucket
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.on_ray.ray_metrics import PoolMetrics
from dfn_ray.on_ray.work import Work
from dfn_ray.pool import Shard, listing_table
from dfn_ray.run import Ledger, RunIdentity, RunKind, start_run
from dfn_ray.schema import Chunk
from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import filter_without_ray, recipe_of
from tests.run.forging import forge

PARTS = 40


def counted(value: Any, passes: list[str]) -> Any:
    """A copy of a tuple, list or dict that records each pass over it."""
    kind = type(value)

    def noting(name: str):
        def method(self, *args):
            passes.append(f"{kind.__name__}.{name}")
            return getattr(kind, name)(self, *args)

        return method

    names = ("__iter__", "__reversed__", "keys", "values", "items", "copy", "index", "count")
    methods = {name: noting(name) for name in names if hasattr(kind, name)}
    return type("Counted", (kind,), methods)(value)


@pytest.fixture
def job(tmp_path) -> ScoringJob:
    """A job of many shards with a budget, before any commit."""
    recipe = recipe_of(tmp_path / "run", tmp_path / "pool", 0.5)
    shards = tuple(Shard(f"/pool/{n:05d}.tar", f"{n:05d}.tar", 1000) for n in range(500))
    run = start_run(
        recipe.run_uri,
        RunIdentity(kind=RunKind.FILTER, fingerprint={}, listing=listing_table(shards)),
        recipe={},
    )
    return ScoringJob(
        recipe,
        run,
        shards,
        (),
        Ledger(),
        Progress(500_000),
        PoolMetrics(recipe.run_uri, shards=500, total_bytes=500_000),
        CostMeter(recipe, run),
        total_bytes=500_000,
    )


def test_a_committed_part_costs_the_driver_no_pass_over_shards_or_parts(job):
    passes: list[str] = []

    def committed(*_, **__):
        """Yields a shard per part.

        Passes are counted from the first one on: those before belong to the attempt.
        """
        for shard in job.shards[:PARTS]:
            chunk = Chunk(shard=shard.uri, first_row=0, rows=10, last=True, bytes_read=1000)
            yield Committed(f"part-{shard.name}", (chunk,), {"scored": 10})

    work = [Work(job.shards[0])]
    ledger = job.ledger
    ledger.names, ledger._rows = counted(ledger.names, passes), counted(ledger._rows, passes)
    watched = ScoringJob(
        **{name: getattr(job, name) for name in job.__dataclass_fields__}
        | {"shards": counted(job.shards, passes)}
    )
    assert sum(shard.size_bytes for shard in watched.shards) == 500_000
    assert passes == ["tuple.__iter__"], "a pass is noted"
    passes.clear()
    with patch.object(chain, "score_stream", committed):
        score_pool._run_round(watched, lambda: work, EVERYTHING, None)  # type: ignore[arg-type]
    assert (ledger.part_count, ledger.complete_shards) == (PARTS, PARTS)
    assert passes == []


class CountedPlace(int):
    """The place of a row, which counts its comparisons."""

    compared = 0
    __hash__ = int.__hash__

    def __eq__(self, other):
        CountedPlace.compared += 1
        return int(self) == int(other)


class CountedUid(str):
    """A uid, which counts its comparisons."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        CountedUid.compared += 1
        return str(self) == str(other)


@pytest.mark.parametrize("breach", ["another uid", "absent", "twice", "foreign"])
def test_naming_a_breach_compares_each_row_a_few_times(breach):
    def rows(count: int) -> list[tuple[str, dict[str, Any]]]:
        return [
            (
                "file",
                {
                    "place": CountedPlace(n),
                    "uid": CountedUid(f"{n:032x}"),
                    "shard": "0.tar",
                    "row": n,
                },
            )
            for n in range(count)
        ]

    count = 2000
    CountedPlace.compared = CountedUid.compared = 0
    due, found = rows(count), rows(count)
    if breach == "another uid":
        found[-1][1]["uid"] = CountedUid("other")
    elif breach == "absent":
        found.pop()
    elif breach == "twice":
        found.append(rows(count)[-1])
    else:
        due.pop()
    said = first_different_row(iter(due), iter(found), ["uid"])
    assert f"0.tar row {count - 1}" in said or f"of 0.tar row {count - 1}" in said
    assert CountedPlace.compared < 10 * count
    assert CountedUid.compared < 10 * count


def test_of_a_subset_with_a_breach_only_the_rows_of_one_bucket_are_held():
    place = np.arange(50 * BUCKETS, dtype=np.uint64)
    pieces = np.array_split(place, 20)
    table = [("file", pa.table({"place": piece, "row": piece})) for piece in pieces]
    held = sum(1 for _ in rows_of_bucket(table, 7))
    assert 0 < held < 150


def test_verify_looks_for_a_breach_among_the_rows_of_one_bucket(tmp_path, monkeypatch):
    pool = write_pool(tmp_path / "pool", shards=2, samples=300)
    filter_without_ray(recipe_of(tmp_path / "run", pool, 0.5), part_chunks=20)
    file = max((tmp_path / "run" / "subset").glob("*.parquet"))
    forge(file, pq.read_table(file).slice(1))
    held = Counter[str]()
    plain = verify_subset.first_different_row

    def watched(due, found, columns):
        due, found = list(due), list(found)
        held.update(due=len(due), found=len(found))
        return plain(due, found, columns)

    monkeypatch.setattr(verify_subset, "first_different_row", watched)
    with pytest.raises(VerificationError, match="kept by the selection but not in the subset"):
        verify_run(str(tmp_path / "run"))
    # 300 are kept: in one of 16,384 buckets there is one, seldom two.
    assert 1 <= held["due"] <= 5
    assert held["found"] == held["due"] - 1
