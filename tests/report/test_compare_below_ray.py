"""The scores that a comparison reads, on runs made without Ray and networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray import cli
from dfn_ray.config import Select, count_of_fraction
from dfn_ray.errors import DamagedRunError, InputError
from dfn_ray.filtering.filter_pool import materialize
from dfn_ray.forecast.estimate import _kept_in_pilot
from dfn_ray.report import gallery
from dfn_ray.report.compare import compare_runs
from dfn_ray.run import RunIdentity, RunKind, open_run, read_part, scan_parts, start_run
from dfn_ray.storage import read_uri
from tests.report.conftest import BOTH, SAMPLES, SHARDS
from tests.run.below_ray import no_ray, recipe_of, score_of


def test_each_run_is_compared_by_the_network_that_selected(made):
    runs = [made("dfn", networks=BOTH), made("against", networks=BOTH, deciding="against")]
    found = compare_runs([recipe.run_uri for recipe in runs])
    assert found.spearman[0, 1] == pytest.approx(-1)
    assert found.overlap[0, 1] == 0


def test_a_run_that_is_only_scored_is_compared_by_the_network_of_its_recipe(made, tmp_path):
    runs = [made("dfn", networks=BOTH), made("against", networks=BOTH, deciding="against")]
    for recipe in runs:
        (tmp_path / recipe.run_uri / "selection.json").unlink()
    with pytest.raises(InputError, match="has no selection; set --keep-fraction"):
        compare_runs([recipe.run_uri for recipe in runs])
    found = compare_runs([recipe.run_uri for recipe in runs], keep_fraction=0.5)
    assert found.spearman[0, 1] == pytest.approx(-1)


def test_a_materialized_subset_is_compared_by_the_scores_it_was_made_from(made, hundred, tmp_path):
    scored = made("scored", networks=BOTH)
    other = recipe_of(tmp_path / "scored", hundred, 0.2, networks=BOTH, deciding="against")
    with no_ray():
        materialize(other, out_uri=str(tmp_path / "out"))
    found = compare_runs([str(tmp_path / "out"), scored.run_uri])
    assert found.keep_fraction == pytest.approx(0.2)
    assert found.samples == SHARDS * SAMPLES
    assert found.spearman[0, 1] == pytest.approx(-1)


@pytest.mark.parametrize(
    "data",
    [
        '{"metr',
        "[]",
        "{}",
        '{"format": 1, "metrics": {"a": 1}}',
        '{"format": 1, "metrics": {"a": {"arms": {"dfn": 1}}}}',
        '{"metrics": {}}',
        '{"format": 2, "metrics": {}}',
    ],
)
def test_a_comparison_of_a_story_that_is_cut_or_of_another_shape_is_damage(made, data):
    runs = [made(name).run_uri for name in ("one", "other")]
    Path(runs[0], "comparison.json").write_text(data)
    with pytest.raises(DamagedRunError, match=r"comparison\.json: is damaged: .*; delete it"):
        compare_runs(runs)


def test_the_run_of_a_uid_list_has_no_scores_to_compare(made, tmp_path):
    scored = made("scored")
    opened = open_run(scored.run_uri)
    listed = start_run(
        str(tmp_path / "listed"),
        RunIdentity(kind=RunKind.LISTED, fingerprint={"uids": "u"}, listing=opened.listing()),
        recipe={"run_uri": str(tmp_path / "listed"), "pool": opened.recipe["pool"], "uids": "u"},
    )
    with pytest.raises(InputError, match="listed: has no scores"):
        compare_runs([scored.run_uri, listed.uri])


def test_of_a_larger_pool_only_parts_with_drawn_shards_are_read(made, monkeypatch):
    runs = [made(name).run_uri for name in ("one", "other")]
    read = []

    def watched(run, columns, names=None):
        read.extend((run, name) for name in names)
        return plain(run, columns, names)

    plain = gallery.scan_parts
    monkeypatch.setattr(gallery, "scan_parts", watched)
    found = compare_runs(runs, samples=SHARDS * SAMPLES // 2)
    assert found.samples == SHARDS * SAMPLES // 2
    drawn = set(open_run(runs[0]).listing()["uri"].to_pylist()[::2])
    holding = [
        (run, name)
        for run in map(open_run, runs)
        for name in run.part_names()
        if drawn & {chunk.shard for chunk in read_part(run.store, name).chunks}
    ]
    assert sorted(name for _, name in read) == sorted(name for _, name in holding)
    assert len(read) < sum(len(open_run(uri).part_names()) for uri in runs)


@pytest.mark.parametrize("uid_type", [pa.string(), pa.large_string()])
def test_samples_without_a_subgroup_are_unknown(made, tmp_path, uid_type):
    runs = [made(name, networks=BOTH, deciding=name).run_uri for name in BOTH]
    uids = sorted(
        uid
        for _, table in scan_parts(open_run(runs[0]), ["uid"])
        for uid in table["uid"].to_pylist()
    )
    some = uids[:60]
    groups = pa.table({"uid": pa.array(some, uid_type), "kind": [n % 2 for n in range(len(some))]})
    pq.write_table(groups, tmp_path / "groups.parquet")
    found = compare_runs(runs, keep_fraction=0.3, groups_uri=str(tmp_path / "groups.parquet"))
    best = set(sorted(uids, key=score_of)[-30:])
    assert list(found.keep_rates) == ["0", "1", "unknown"]
    for kind, members in {
        "0": some[::2],
        "1": some[1::2],
        "unknown": set(uids) - set(some),
    }.items():
        assert found.keep_rates[kind][0] == pytest.approx(len(best & set(members)) / len(members))


def test_a_groups_file_that_is_none_is_named(made, tmp_path):
    runs = [made(name).run_uri for name in ("one", "other")]
    (tmp_path / "groups.parquet").write_bytes(b"uid,kind\n")
    with pytest.raises(InputError, match=r"groups\.parquet: is not a readable Parquet file"):
        compare_runs(runs, groups_uri=str(tmp_path / "groups.parquet"))


def test_the_picture_is_drawn_into_an_absent_folder_and_onto_an_object_store(made, tmp_path):
    runs = [made(name).run_uri for name in ("one", "other")]
    for picture in (f"{tmp_path}/absent/folder/compare.png", "memory://pictures/compare.png"):
        assert cli.run(["compare", *runs, "--picture", picture]) == 0
        assert read_uri(picture).startswith(b"\x89PNG")


def test_a_fraction_counts_as_it_is_written_wherever_samples_are_counted(made):
    assert count_of_fraction(0.29, 100) == 29
    kept = _kept_in_pilot(Select(keep_fraction=0.29), np.arange(100, dtype=np.float32), 1)
    assert kept.sum() == 29
    runs = [made(name, networks=BOTH, deciding=name).run_uri for name in BOTH]
    # Of 100 samples in opposite orders both keep what the best 57 and the last 57 have in common;
    # 0.57 * 100 < 57.
    assert compare_runs(runs, keep_fraction=0.57).overlap[0, 1] == pytest.approx(14 / 57)
