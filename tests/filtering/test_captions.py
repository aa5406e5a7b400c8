"""A pool with several captions per sample: filtered, verified, exported and read again."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dfn_ray.config import Pool, recipe_from
from dfn_ray.errors import VerificationError
from dfn_ray.filtering.filter_pool import filter_pool, materialize
from dfn_ray.filtering.subset.export_subset import export_webdataset
from dfn_ray.filtering.verifying.rescore import _compare
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.pool import iter_chunks, list_shards
from dfn_ray.schema import Chunk
from dfn_ray.testing.sample_pools import TarBuilder, photo, uid_of
from tests.filtering.test_filter_pool import read
from tests.run.forging import forge_value

pytestmark = pytest.mark.ray


def captions_of(number: int) -> list[str]:
    return [
        f"picture {number} {word}"
        for word in ("one\nof two lines", "two", "三", "four", "five")[: 1 + number % 5]
    ]


@pytest.fixture(scope="module")
def several(local_ray, tmp_path_factory, network):
    """A recipe over 40 samples whose captions are arrays, and its finished run."""
    folder = tmp_path_factory.mktemp("several")
    for shard in range(2):
        tar = TarBuilder()
        for number in range(shard * 20, shard * 20 + 20):
            metadata = {"uid": uid_of(number), "captions": captions_of(number)}
            tar.sample(f"{number:03d}", image=photo(number), metadata=metadata)
        (folder / f"{shard}.tar").write_bytes(tar.getvalue())
    job = recipe_from(
        {
            "run_uri": str(tmp_path_factory.mktemp("finished") / "run"),
            "pool": {"uri": str(folder), "chunk_rows": 8, "caption": "list"},
            "networks": [{"name": "dfn", "model": f"local-dir:{network}"}],
            "captions": {"score": "best", "keep_scores": True},
            "select": {"keep_fraction": 0.5},
            "scorers": {"threads": 1},
        }
    )
    filter_pool(job)
    return job


def texts_in(pool: Pool) -> dict[str, list[str]]:
    found = {}
    for shard in list_shards(pool):
        for _, table in iter_chunks(shard, pool):
            for row in table.to_pylist():
                assert row["status"] is None
                found[row["key"] if pool.uid == "derive" else row["uid"]] = row["text"]
    return found


def test_the_subset_keeps_all_captions_as_lists_with_their_scores(several):
    rows = read(Path(several.run_uri) / "subset").to_pylist()
    assert len(rows) == 20
    numbers = {uid_of(n): n for n in range(40)}
    for row in rows:
        assert row["text"] == captions_of(numbers[row["uid"]])
        assert row["score_dfn"] == max(row["caption_scores_dfn"])
        assert len(row["caption_scores_dfn"]) == len(row["text"])
    scores = read(Path(several.run_uri) / "scores")
    assert sorted(scores["score_dfn"].to_pylist())[20:] == sorted(row["score_dfn"] for row in rows)
    assert verify_run(several.run_uri, full=True, rescore_chunks=1)["compared"] == 20


def test_a_subset_is_read_as_lists_again_and_materialised_ones_are_the_same(several, tmp_path):
    out = str(tmp_path / "out")
    materialize(several, out_uri=out)
    for run in (several.run_uri, out):
        texts = texts_in(Pool(uri=(f"{run}/subset",), caption="list"))
        assert texts == {uid: captions_of(n) for n in range(40) if (uid := uid_of(n)) in texts}
        assert len(texts) == 20
    assert verify_run(out, full=True)["compared"] == 20
    (chunk, _), *_ = iter_chunks(list_shards(Pool(uri=(f"{out}/subset",)))[0], Pool(uri=("x",)))
    assert 'set pool.caption = "list" to read it' in chunk.detail


def test_an_export_holds_all_captions_and_the_first_where_other_trainers_look(several, tmp_path):
    out = tmp_path / "tars"
    export_webdataset(several.run_uri, str(out), shard_samples=7)
    members: dict[str, str] = {}
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            for info in tar:
                file = tar.extractfile(info)
                assert file is not None
                if info.name.endswith((".txt", ".json")):
                    members[info.name] = io.TextIOWrapper(file, "utf-8", newline="").read()
    kept = {row["uid"]: row for row in read(Path(several.run_uri) / "subset").to_pylist()}
    for uid, row in kept.items():
        first, *others = row["text"]
        assert members[f"{uid}-0.txt"] == first
        assert [members[f"{uid}-0.{n}.txt"] for n, _ in enumerate(others, 1)] == others
        assert np.allclose(
            json.loads(members[f"{uid}-0.json"])["caption_scores_dfn"], row["caption_scores_dfn"]
        )
    assert sum(name.endswith(".txt") for name in members) == sum(
        len(row["text"]) for row in kept.values()
    )
    again = texts_in(Pool(uri=(str(out),), caption="list"))
    assert again == {uid: row["text"] for uid, row in kept.items()}
    # Whoever does not ask for several has the first.
    assert texts_in(Pool(uri=(str(out),))) == {uid: row["text"][0] for uid, row in kept.items()}


@pytest.mark.parametrize(("column", "value"), [("text", "another"), ("caption_scores_dfn", 0.125)])
def test_verify_notices_one_caption_and_one_kept_score_that_were_altered(
    several, tmp_path, column, value
):
    run = tmp_path / "run"
    shutil.copytree(several.run_uri, run)
    path = next((run / "subset").glob("*.parquet"))
    lists = pq.read_table(path)[column].to_pylist()
    at = max(range(len(lists)), key=lambda n: len(lists[n]))
    forge_value(path, column, at, [*lists[at][:-1], value])
    with pytest.raises(VerificationError, match=column):
        verify_run(str(run))


@pytest.mark.parametrize("stored", [[0.5, 0.25], [0.5], [0.5, 0.75, 0.0], None])
def test_scoring_again_compares_the_kept_score_of_each_caption(stored):
    place = {name: [1, 2] for name in ("row", "uid", "key", "status", "reason", "width", "height")}
    kind = pa.list_(pa.float32())
    due, other = ([[0.1], last] for last in ([0.5, 0.75], stored))
    again = pa.table({**place, "caption_scores_dfn": pa.array(due, kind)})
    table = pa.table({**place, "caption_scores_dfn": pa.array(other, kind)})
    chunk = Chunk(shard="s", first_row=7, rows=2, last=True)
    assert _compare("", chunk, again, again, {"caption_scores_dfn": 0.0}) == 0
    with pytest.raises(VerificationError, match="caption_scores_dfn of s row 8"):
        _compare("", chunk, table, again, {"caption_scores_dfn": 1e-5})
