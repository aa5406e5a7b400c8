"""The pipeline's demo data: the parts shared with the pool, and those that must differ."""

from __future__ import annotations

import json
import re

import pyarrow.parquet as pq
import pytest

from dfn_ray.demo.filter_demo import DATA
from tools.demo_data.judge import read_samples

HELD_OUT = DATA / "held_out"


@pytest.fixture(scope="module")
def classnames() -> list[str]:
    return (HELD_OUT / "classnames.txt").read_text().splitlines()


def test_every_held_out_class_is_a_name_that_the_pool_shows_beside_the_right_picture(classnames):
    truth = pq.read_table(DATA / "truth.parquet").to_pylist()
    named = {row["shown_caption"] for row in truth if row["kind"] == "clean"}
    assert set(classnames) == named
    assert len(set(classnames)) == len(classnames)


def test_held_out_holds_one_drawing_of_each_class_in_clip_benchmarks_layout(classnames):
    shards = int((HELD_OUT / "test" / "nshards.txt").read_text())
    samples = [
        sample
        for number in range(shards)
        for sample in read_samples(HELD_OUT / "test" / f"{number}.tar")
    ]
    assert [int(sample["cls"]) for sample in samples] == list(range(len(classnames)))
    assert all(sample["webp"][8:12] == b"WEBP" for sample in samples)
    assert (HELD_OUT / "dataset_type.txt").read_text() == "classification\n"
    templates = (HELD_OUT / "zeroshot_classification_templates.txt").read_text().splitlines()
    assert [template.format(c="cat") for template in templates] == ["cat"]


def test_clean_pairs_are_of_neither_the_pools_artist_nor_the_held_out_one():
    sources: set[str] = set()
    uids: list[str] = []
    for shard in sorted((DATA / "clean").glob("*.tar")):
        for sample in read_samples(shard):
            described = json.loads(sample["json"])
            assert described["caption"] == sample["txt"].decode()
            sources.add(re.sub("#.*", "", described["source"]))
            uids.append(described["uid"])
    assert sources == {
        "@lobehub/fluent-emoji-3d@1.1.0",
        "@lobehub/fluent-emoji-flat@1.1.0",
        "@iconify-json/emojione@1.2.3",
        "@iconify-json/fxemoji@1.2.2",
    }
    assert len(set(uids)) == len(uids) == 4333
