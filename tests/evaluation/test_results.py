"""Results on storage and their averages, without a network."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

from dfn_ray.config import EvaluationSet, Network, Pool
from dfn_ray.errors import DamagedRunError
from dfn_ray.evaluation.datacomp import TASKS, group_averages, key_of
from dfn_ray.evaluation.results import Results, SetResult, results_table
from dfn_ray.storage import Store

RECIPE = {"run_uri": "run", "sets": []}


def result(name: str, network: str = "n", **metrics: float) -> SetResult:
    return SetResult(
        dataset=name,
        task="zeroshot_classification",
        language="en",
        metrics=metrics,
        images=1000,
        failed={"not_an_image": 2},
        fingerprint="f",
        network=network,
    )


def evaluation_set(name: str) -> EvaluationSet:
    return EvaluationSet(name=name, pool=Pool(uri=("x",)), classnames=("a",))


def results_of(run, spec: Network, network: str = "n") -> Results:
    return Results(run_uri=str(run), spec=spec, network=network, recipe=RECIPE)


@pytest.mark.parametrize(
    ("network", "file"),
    [
        (Network(model="ViT-B-32", pretrained="openai"), "wds_a_openai_ViT-B-32_en"),
        (Network(model="ViT-B-32", pretrained="s3://b/x/last.pt"), "wds_a_last.pt_ViT-B-32_en"),
        (Network(model="hf-hub:apple/DFN2B"), "wds_a__hf-hub_apple_DFN2B_en"),
        (Network(model="ViT-B-32", random_weights_seed=3), "wds_a_random3_ViT-B-32_en"),
        (Network(model="local-dir:/runs/one/network/"), "wds_a__one_network_en"),
        (Network(model="local-dir:/runs/a:b/one/network"), "wds_a__one_network_en"),
        (Network(model="local-dir:s3://bucket/runs/one/network"), "wds_a__one_network_en"),
    ],
)
def test_a_result_is_found_under_clip_benchmarks_name(tmp_path, network, file):
    results = results_of(tmp_path, network)
    stored = result("wds/a", acc1=0.5, acc5=math.nan)
    assert results.read(evaluation_set("wds/a")) is None
    results.write(evaluation_set("wds/a"), stored)
    assert [found.name for found in Store(str(tmp_path)).list("eval")] == [
        f"{file}_zeroshot_classification.json"
    ]
    found = results.read(evaluation_set("wds/a"))
    assert found is not None
    assert (found.metrics["acc1"], math.isnan(found.metrics["acc5"])) == (0.5, True)
    assert (found.images, found.failed, found.fingerprint) == (1000, {"not_an_image": 2}, "f")


def test_the_recipe_of_a_driver_that_writes_is_beside_the_results(tmp_path):
    results = results_of(tmp_path, Network(model="ViT-B-32", pretrained="openai"))
    results.take_over().write(evaluation_set("a"), result("a", acc1=0.5))
    (file,) = (tmp_path / "eval_attempts").iterdir()
    record = json.loads(file.read_text())
    assert record["recipe"] == RECIPE
    assert record["time"].endswith("Z")


def test_a_metric_that_does_not_exist_is_null_in_both_files(tmp_path):
    results = results_of(tmp_path, Network(model="ViT-B-32", pretrained="openai"))
    results.write(evaluation_set("a"), result("a", acc1=0.5, acc5=math.nan))
    results.write_lines()
    (file,) = Store(str(tmp_path)).list("eval")
    for data in (Store(str(tmp_path)).read(f"eval/{file.name}"),
                 Store(str(tmp_path)).read("eval_results.jsonl")):  # fmt: skip
        value = json.loads(data, parse_constant=pytest.fail)
        assert value["metrics"]["acc5"] is None


def test_lines_never_mix_networks_nor_take_others_files(tmp_path):
    spec = Network(model="ViT-B-32", pretrained="openai")
    results_of(tmp_path, spec).write(evaluation_set("a"), result("a", acc1=0.1))
    results_of(tmp_path, spec, "m").write(evaluation_set("b"), result("b", "m", acc1=0.2))
    theirs = {"dataset": "c", "model": "m", "pretrained": "p", "task": "t", "metrics": {}}
    Store(str(tmp_path)).write("eval/theirs.json", json.dumps(theirs).encode())
    assert [r.dataset for r in results_of(tmp_path, spec).write_lines()] == ["a"]
    (line,) = Store(str(tmp_path)).read("eval_results.jsonl").splitlines()
    assert json.loads(line) == {
        "key": "a",
        "dataset": "a",
        "metrics": {"acc1": 0.1, "main_metric": 0.1},
    }


@pytest.mark.parametrize("name", ["vtab/caltech101", "wds/vtab/caltech101", "Caltech-101"])
def test_datacomps_sets_are_known_by_key_and_by_name_with_their_main_metric(name):
    assert key_of(name) == "vtab/caltech101"
    named = result(name, acc1=0.1, mean_per_class_recall=0.2)
    assert named.main_metric == ("mean_per_class_recall", 0.2)


def test_a_main_metric_that_is_not_computed_is_none():
    assert result("wilds/fmow", acc1=0.3).main_metric == ("acc_worst_region", None)


def test_the_groups_are_those_of_datacomps_38_tasks():
    all_there = group_averages(dict.fromkeys(TASKS, 0.5))
    assert {name: (g.available, g.tasks) for name, g in all_there.items()} == {
        "ImageNet": (1, 1),
        "ImageNet dist. shifts": (6, 6),
        "VTAB": (13, 13),
        "Retrieval": (3, 3),
        "Average": (38, 38),
    }


def test_averages_are_over_what_is_there_and_say_so():
    groups = group_averages(
        {"imagenet1k": 0.6, "imagenet-a": 0.2, "imagenet-r": 0.4, "wilds/fmow": None, "own": 0.9}
    )
    assert {name: (round(g.mean, 9), g.available) for name, g in groups.items()} == {
        "ImageNet": (0.6, 1),
        "ImageNet dist. shifts": (0.3, 2),
        "Average": (0.4, 3),
    }
    shown = results_table((result("imagenet-a", acc1=0.2), result("wilds/fmow")), groups)
    assert shown.splitlines() == [
        "set         task                     main metric               images  failed",
        "imagenet-a  zeroshot_classification  acc1              0.2000   1,000       2",
        "wilds/fmow  zeroshot_classification  acc_worst_region    none   1,000       2",
        "",
        "DataComp                 mean          over",
        "ImageNet               0.6000   1 of 1 sets",
        "ImageNet dist. shifts  0.3000   2 of 6 sets",
        "Average                0.4000  3 of 38 sets",
    ]


def test_images_read_are_those_counted_failed_and_rejected_and_shards_are_stored_with_them(
    tmp_path,
):
    spec = Network(model="ViT-B-32", random_weights_seed=0)
    results = results_of(tmp_path, spec)
    item = EvaluationSet(name="own", pool=Pool(uri=("x",)))
    whole = replace(
        result("own", acc1=0.5),
        images=95,
        failed={"not_an_image": 3, "bad_label": 1},
        rejected={"image_side": 1},
        notes={"truncated_scored": 7},
        shards=4,
        shard_faults={"x/dog": "empty_shard: it contains no image"},
    )
    results.write(item, whole)
    (file,) = (tmp_path / "eval").iterdir()
    stored = json.loads(file.read_text())["dfn_ray"]
    assert stored["read"] == whole.read == 100
    assert results.read(item) == whole
    shown = results_table((whole,), {})
    assert "own: rejected image_side 1" in shown
    assert "own: noted truncated_scored 7" in shown
    assert "own: x/dog: empty_shard: it contains no image" in shown


def details(**changes):
    good = {"format": 1, "images": 1, "failed": {}, "fingerprint": "f", "network": "n"}
    return good | changes


@pytest.mark.parametrize(
    "change",
    [
        {"dataset": 1},
        {"task": None},
        {"metrics": []},
        {"metrics": {"acc1": "x"}},
        {"dfn_ray": 5},
        {"dfn_ray": {"fingerprint": "f"}},
        {"dfn_ray": details(images="x")},
        {"dfn_ray": details(failed=[])},
        {"dfn_ray": details(new=1)},
        {
            "dfn_ray": {
                "format": 1,
                "images": 1,
                "failed": {},
                "fingerprint": "f",
                "network": "n",
                "new": 1,
            }
        },
        {"dfn_ray": details(format=2)},
    ],
)
def test_a_stored_result_with_a_value_of_another_type_is_damage(tmp_path, change):
    results = results_of(tmp_path, Network(model="ViT-B-32", pretrained="openai"))
    results.write(evaluation_set("a"), result("a", acc1=0.5))
    (path,) = (tmp_path / "eval").iterdir()
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    with pytest.raises(DamagedRunError, match=rf"{path.name}: is damaged .*\. Delete it"):
        results.write_lines()
