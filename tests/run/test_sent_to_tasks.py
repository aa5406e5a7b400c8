"""The data sent to tasks does not grow with the number of shards and parts of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from ray import cloudpickle

from dfn_ray.filtering import filter_pool
from dfn_ray.filtering.filter_pool import materialize, select
from dfn_ray.filtering.selecting import run_scores
from dfn_ray.filtering.selecting.run_scores import RunScores
from dfn_ray.filtering.subset import export_subset
from dfn_ray.filtering.subset.export_subset import export_webdataset
from dfn_ray.filtering.verifying import verify, verify_parts, verify_subset
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.pool import Shard, listing_table
from dfn_ray.run import RunIdentity, RunKind, open_run, start_run
from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import no_ray, recipe_of, score_without_ray

FEW, MANY = 2, 20
"""Shards of a run, each with three parts."""
DIGITS = 40
"""Allowed difference in bytes, for longer numbers and names."""


@contextmanager
def sent() -> Iterator[list[int]]:
    """The sizes of the functions and items that would be sent to tasks; the work is done here."""
    sizes: list[int] = []

    def each(items: Sequence[str], function: Callable[[str], str], *_: Any) -> Iterator[str]:
        sizes.extend(map(len, items))
        sizes.append(len(cloudpickle.dumps(function)))
        return map(function, items)

    def over_slices(
        items: Sequence[str], function: Callable[[Sequence[str]], Any], **options: Any
    ) -> Any:
        sizes.append(len(cloudpickle.dumps(function)))
        yield function(items)

    with no_ray(), ExitStack() as patches:
        for module in (filter_pool, export_subset):
            patches.enter_context(patch.object(module, "run_in_tasks", each))
        for module in (run_scores, verify, verify_parts, verify_subset):
            patches.enter_context(patch.object(module, "run_in_slices", over_slices))
        yield sizes


@pytest.fixture
def runs(tmp_path) -> tuple[Path, Path]:
    """Two folders with names of equal length, each with a pool and a scored run."""
    folders = tmp_path / "few0", tmp_path / "many"
    for folder, shards in zip(folders, (FEW, MANY), strict=True):
        pool = write_pool(folder / "pool", shards=shards, samples=15)
        score_without_ray(recipe_of(folder / "run", pool, 0.5), part_chunks=1)
    return folders[0], folders[1]


VERBS: dict[str, Callable[[Path], object]] = {
    "select": lambda at: select(recipe_of(at / "run", at / "pool", 0.3)),
    "materialize --out": lambda at: materialize(
        recipe_of(at / "run", at / "pool", 0.5), out_uri=str(at / "out")
    ),
    "materialize": lambda at: materialize(recipe_of(at / "run", at / "pool", 0.5)),
    "export": lambda at: export_webdataset(str(at / "run"), str(at / "tars"), shard_samples=4),
    "verify": lambda at: verify_run(str(at / "run"), full=True),
}
"""Verbs in this order: each uses the output of those before."""


def test_what_a_task_is_sent_does_not_grow_with_the_run(runs):
    few, many = runs
    for name, verb in VERBS.items():
        largest = []
        for folder in (few, many):
            with sent() as sizes:
                verb(folder)
            largest.append(max(sizes))
        assert largest[1] <= largest[0] + DIGITS, name


def test_the_scores_of_a_run_are_sent_without_its_shards(tmp_path):
    sizes = []
    for count in (10, 1000):
        shards = [Shard(f"/pool/{n:05d}.tar", f"{n:05d}.tar", 1000) for n in range(count)]
        uri = str(tmp_path / f"{count:04d}")
        start_run(
            uri,
            RunIdentity(kind=RunKind.FILTER, fingerprint={}, listing=listing_table(shards)),
            recipe={},
        )
        found = RunScores(open_run(uri), "dfn", (), {})
        assert len(found.shard_index) == len(found.shard_uris) == count
        sizes.append(len(cloudpickle.dumps(found)))
    assert sizes[1] <= sizes[0] + DIGITS
