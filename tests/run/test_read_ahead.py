"""Passes over the files of a run read several files at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest

from dfn_ray.config import Recipe, Select
from dfn_ray.filtering import filter_pool
from dfn_ray.filtering.filter_pool import select
from dfn_ray.filtering.scoring.calibrate import bounds_from_scores
from dfn_ray.filtering.selecting import exact_k, run_scores
from dfn_ray.filtering.selecting.select_run import select_run
from dfn_ray.filtering.subset import export_subset
from dfn_ray.filtering.subset.settle import Settler
from dfn_ray.filtering.verifying import verify
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.pool import list_pool
from dfn_ray.report.compare import compare_runs
from dfn_ray.report.gallery import overview
from dfn_ray.run import Run, open_run, scan_ledger
from dfn_ray.storage import Store
from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import filter_without_ray, recipe_of

PATIENCE_S = 0.5
"""Time after which a read that no other read overlaps counts as alone."""
PARTS = 24
FEW_ALONE = 8
"""Reads allowed to be alone: those of a single file, and the last of a pass."""


@contextmanager
def reads_alone() -> Iterator[tuple[Counter[str], Counter[str]]]:
    """Counts of file opens by folder: those that overlapped no other in that folder, and all."""
    alone, total = Counter[str](), Counter[str]()
    under_way: dict[str, list[threading.Event]] = defaultdict(list)
    lock, plain = threading.Lock(), Store.open

    def opened(store: Store, name: str, **options):
        folder, mine = name.rpartition("/")[0], threading.Event()
        with lock:
            here = under_way[folder]
            here.append(mine)
            if len(here) > 1:
                for each in here:
                    each.set()
        met = mine.wait(PATIENCE_S)
        with lock:
            here.remove(mine)
            alone[folder] += not met
            total[folder] += 1
        return plain(store, name, **options)

    with patch.object(Store, "open", opened):
        yield alone, total


@pytest.fixture(scope="module")
def pool(tmp_path_factory) -> Path:
    """A run with as many chunks as parts, 5 rows each."""
    return write_pool(tmp_path_factory.mktemp("pool"), shards=4, samples=30)


@pytest.fixture(scope="module")
def finished(pool, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    filter_without_ray(recipe_of(folder, pool, 0.5), part_chunks=1)
    assert len(open_run(str(folder)).part_names()) == PARTS
    return folder


def ledger_of(recipe: Recipe) -> None:
    run = open_run(recipe.run_uri)
    scan_ledger(run.store, run.fingerprint)


def calibrate(recipe: Recipe) -> None:
    run = open_run(recipe.run_uri)
    names = run.part_names()
    bounds_from_scores(run, recipe, list_pool(recipe.pool).shards, "0" * 64, names)


def select_of_ties(recipe: Recipe) -> None:
    """A selection in which all samples have the same score, so uids and places decide."""
    run = open_run(recipe.run_uri)
    with patch.object(exact_k, "score_key", lambda score: np.full(len(score), 7, np.uint32)):
        selected, _ = select_run(run, recipe.select, "dfn")
    assert selected.selection.last_tie is not None


def survey(recipe: Recipe) -> None:
    """The work of `materialize` before its first task."""
    run = open_run(recipe.run_uri)
    selected, of_run = select_run(run, recipe.select, "dfn")
    settler = Settler(of_run.without_parts(), selected.selection, recipe.pool, run, from_pool=True)
    assert filter_pool._survey(settler, of_run.names).missing


PASSES: dict[str, tuple[str, Callable[[Recipe], object]]] = {
    "calibrate": ("scores", calibrate),
    "scan of the footers": ("scores", ledger_of),
    "select": ("scores", lambda recipe: select(replace(recipe, select=Select(keep_fraction=0.3)))),
    "select, all tied": ("scores", select_of_ties),
    "survey": ("scores", survey),
    "gallery": ("scores", lambda recipe: overview(open_run(recipe.run_uri), "dfn", 0.5, 3)),
    "compare": ("scores", lambda recipe: compare_runs([recipe.run_uri] * 2, keep_fraction=0.3)),
    "export": ("subset", lambda recipe: export_subset._subset_files(open_run(recipe.run_uri))),
    "verify, parts": ("scores", lambda recipe: verify_run(recipe.run_uri)),
    "verify, subset": ("subset", lambda recipe: verify_run(recipe.run_uri)),
    "verify --full, parts": ("scores", lambda recipe: verify_run(recipe.run_uri, full=True)),
    "verify --full, subset": ("subset", lambda recipe: verify_run(recipe.run_uri, full=True)),
}
"""Folder and reading function."""


@pytest.mark.parametrize("name", PASSES)
def test_a_pass_reads_files_ahead(name, pool, finished, monkeypatch):
    # Which opens files one by one, as it compares their images with those of the pool.
    monkeypatch.setattr(verify, "compare_with_pool", lambda *_: 0)
    folder, work = PASSES[name]
    with reads_alone() as (alone, opened):
        work(recipe_of(finished, pool, 0.5))
    assert opened[folder] >= 2 * FEW_ALONE
    assert alone[folder] <= FEW_ALONE


def test_threads_that_read_ahead_load_the_pool_listing_once(pool, finished):
    run_scores._SHARDS.clear()
    loaded, plain = Counter[str](), Run.listing

    def listing(run: Run) -> pa.Table:
        loaded["index" if threading.current_thread().name.startswith("scan") else "verb"] += 1
        time.sleep(0.2)  # so that the others come meanwhile
        return plain(run)

    with patch.object(Run, "listing", listing):
        select(replace(recipe_of(finished, pool, 0.5), select=Select(keep_fraction=0.2)))
    assert loaded["index"] == 1
