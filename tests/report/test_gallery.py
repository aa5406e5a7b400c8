"""The example pairs of a run, against a sort of all its scores."""

from __future__ import annotations

import numpy as np
import pytest

from dfn_ray.report.gallery import HISTOGRAM_BINS, overview, read_pairs, scored_tables
from dfn_ray.run import open_run
from tests.report.conftest import SAMPLES, SHARDS


def scored(run):
    """(shard, row, score) of every sample of a run, by score."""
    rows = [
        (row["shard"], row["row"], row["score"])
        for table in scored_tables(run, "dfn", ["shard", "row"])
        for row in table.to_pylist()
    ]
    return sorted(rows, key=lambda row: row[2])


@pytest.mark.parametrize("examples", [1, 7, SHARDS * SAMPLES + 1])
def test_examples_are_the_ends_of_the_sorted_scores_and_those_around_the_threshold(made, examples):
    run = open_run(made("run").run_uri)
    by_score = scored(run)
    assert len({score for *_, score in by_score}) == len(by_score) == SHARDS * SAMPLES
    threshold = by_score[-30][2]
    seen = overview(run, "dfn", threshold, examples)
    dropped, kept = by_score[:-30], by_score[-30:]
    assert seen.best == by_score[::-1][:examples]
    assert seen.above == kept[:examples][::-1]
    assert seen.below == dropped[::-1][:examples]
    assert seen.worst == by_score[:examples][::-1]


def test_the_histogram_counts_every_score_once(made):
    run = open_run(made("run").run_uri)
    scores = np.array([score for *_, score in scored(run)])
    counts = overview(run, "dfn", 0.0, 1).counts
    assert counts.sum() == len(scores)
    edges = np.linspace(-1, 1, HISTOGRAM_BINS + 1)
    assert counts.tolist() == np.histogram(scores, edges)[0].tolist()


def test_pairs_come_from_the_pool_in_the_order_asked_for(made):
    recipe = made("run")
    run = open_run(recipe.run_uri)
    places = scored(run)[:: SAMPLES // 2]
    pairs = read_pairs(run, places)
    uids = {
        (row["shard"], row["row"]): row["uid"]
        for table in scored_tables(run, "dfn", ["shard", "row", "uid"])
        for row in table.to_pylist()
    }
    assert [pair.uid for pair in pairs] == [uids[shard, row] for shard, row, _ in places]
    assert [pair.score for pair in pairs] == [score for *_, score in places]
    assert all(pair.image.startswith(b"\xff\xd8") and pair.text for pair in pairs)
