"""A finished run as tables of other libraries."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

import dfn_ray
from dfn_ray.run import Ledger
from dfn_ray.testing.sample_pools import write_pool
from tests.run import below_ray
from tests.run.below_ray import (
    expected,
    filter_without_ray,
    recipe_of,
    score_of,
    score_without_ray,
)

SAMPLES = 2 * 14


@pytest.fixture
def small_pool(tmp_path):
    return write_pool(tmp_path / "pool", shards=2, samples=14)


@pytest.fixture
def run_uri(tmp_path, small_pool):
    recipe = recipe_of(tmp_path / "run", small_pool, 0.5)
    filter_without_ray(recipe)
    return recipe.run_uri


def test_scores_are_a_row_per_sample_and_the_subset_a_row_per_kept_one(run_uri, small_pool):
    run = dfn_ray.open_run(run_uri)
    scores = run.scores.to_pandas(["uid", "score_dfn"])
    assert len(scores) == len(set(scores["uid"])) == SAMPLES
    assert all(
        score == np.float32(score_of(uid))
        for uid, score in zip(scores["uid"], scores["score_dfn"], strict=True)
    )
    subset = run.subset.to_arrow(["uid", "image"])
    assert set(subset["uid"].to_pylist()) == expected(small_pool, 0.5)
    assert subset.num_rows == run.selection["k"] == SAMPLES // 2
    assert all(image[:2] == b"\xff\xd8" for image in subset["image"].to_pylist())
    assert run.recipe["select"]["keep_fraction"] == 0.5
    assert run.scores.to_arrow().column_names == run.scores.columns


def test_a_chunk_that_two_parts_commit_is_read_once(tmp_path, small_pool, monkeypatch):
    recipe = recipe_of(tmp_path / "run", small_pool, 0.5)
    score_without_ray(recipe)
    # A second driver that has not seen what the first one committed.
    monkeypatch.setattr(below_ray, "scan_ledger", lambda *_: Ledger())
    score_without_ray(recipe)
    scores = dfn_ray.open_run(recipe.run_uri).scores
    stored = sum(scores.run.rows_of(name) for name in scores.files)
    assert stored == 2 * SAMPLES
    table = scores.to_arrow(["uid"])
    assert table.num_rows == len(set(table["uid"].to_pylist())) == SAMPLES
    assert table.column_names == ["uid"]


def test_torch_workers_share_the_rows(run_uri, small_pool):
    subset = dfn_ray.open_run(run_uri).subset
    rows = subset.to_torch(["uid", "text"], transform=lambda row: row["uid"])
    for workers in (0, 2):
        uids = list(torch.utils.data.DataLoader(rows, None, num_workers=workers))
        assert sorted(uids) == sorted(expected(small_pool, 0.5))


def test_what_is_not_there_yet_is_said(tmp_path, small_pool):
    with pytest.raises(dfn_ray.InputError, match="no run"):
        dfn_ray.open_run(str(tmp_path / "none"))
    recipe = recipe_of(tmp_path / "scored", small_pool, 0.5)
    score_without_ray(recipe)
    run = dfn_ray.open_run(recipe.run_uri)
    assert run.scores.to_arrow(["uid"]).num_rows == SAMPLES
    with pytest.raises(dfn_ray.IncompleteRunError, match="select"):
        _ = run.selection
    with pytest.raises(dfn_ray.IncompleteRunError, match="select"):
        _ = run.subset
    with pytest.raises(dfn_ray.InputError, match="score_other"):
        run.scores.to_arrow(["score_other"])


@pytest.mark.ray
def test_a_ray_dataset_has_the_same_rows(local_ray, finished):
    run = dfn_ray.open_run(finished.run_uri)
    for table, columns in ((run.scores, ["uid", "score_dfn"]), (run.subset, ["uid", "image"])):
        found = list(table.to_ray(columns).iter_rows())
        rows = table.to_arrow(columns).to_pylist()
        assert sorted(map(str, found)) == sorted(map(str, rows))
        assert len(rows) > 10
    assert isinstance(run.scores.to_ray().schema().base_schema, pa.Schema)
