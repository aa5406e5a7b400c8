"""`--json`: one document on stdout, all else on stderr, numbers as numbers."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import numpy as np
import pytest

from dfn_ray.cli import run
from dfn_ray.cli.documents import evaluation_values, plan_values
from dfn_ray.cli.output import Output, json_text, plain
from dfn_ray.evaluation.datacomp import GroupAverage
from dfn_ray.evaluation.evaluate import Evaluation
from dfn_ray.evaluation.results import SetResult
from dfn_ray.testing.sample_pools import write_pool
from tests.run.below_ray import filter_without_ray, no_ray, recipe_of

SHARDS, SAMPLES = 2, 20


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    return write_pool(tmp_path_factory.mktemp("pool"), shards=SHARDS, samples=SAMPLES)


@pytest.fixture
def finished(tmp_path, pool) -> str:
    """A finished run, with its recipe beside it as `recipe.toml`."""
    recipe = recipe_of(tmp_path / "run", pool, 0.5)
    filter_without_ray(recipe)
    (tmp_path / "recipe.toml").write_text(
        f'run_uri = "{tmp_path}/run"\nselect.keep_fraction = 0.5\n'
        f'pool = {{uri = "{pool}", chunk_rows = 5}}\n'
        'networks = [{name = "dfn", model = "local-dir:/none"}]\n'
    )
    return str(tmp_path / "run")


@pytest.fixture
def document(capsys):
    """Runs a verb with --json; its exit code, the document, and what it said beside it."""

    def run_json(*words: str) -> tuple[int, Any, str]:
        code = run([*words, "--json"])
        said = capsys.readouterr()
        return code, json.loads(said.out), said.err

    return run_json


def test_inspect(document, pool):
    code, value, said = document("inspect", str(pool))
    assert (code, said) == (0, "")
    assert value["shards"] == SHARDS
    assert value["size_bytes"] == sum(path.stat().st_size for path in pool.glob("*.tar"))
    assert value["statuses"] == {"readable": value["samples_seen"]}
    assert value["examples"][0]["width"] > 0
    assert all(isinstance(v, float) for v in value["quantiles"]["width"].values())


def test_verify(document, finished):
    with no_ray():
        code, value, said = document("verify", finished)
    assert code == 0
    assert value == {
        "run_uri": finished,
        "shards": SHARDS,
        "samples": SHARDS * SAMPLES,
        "kept": SHARDS * SAMPLES // 2,
        "compared": value["compared"],
        "rescored_chunks": 0,
    }
    assert "counts add up: 40 samples" in said


def test_select_prints_selection_json(document, finished, tmp_path):
    with no_ray():
        code, value, said = document(
            "select", f"{tmp_path}/recipe.toml", "--set", "select.keep_fraction=0.25"
        )
    assert (code, said) == (0, "")
    (stored,) = (tmp_path / "run" / "selections").rglob("selection.json")
    kept = json.loads(stored.read_text())
    assert {key: value[key] for key in ("k", "threshold", "counts", "samples")} == {
        key: kept[key] for key in ("k", "threshold", "counts", "samples")
    }
    assert value["k"] == SHARDS * SAMPLES // 4


def test_compare(document, finished):
    with no_ray():
        code, value, said = document("compare", finished, finished)
    assert (code, said) == (0, "")
    assert value["samples"] == SHARDS * SAMPLES
    assert value["overlap"] == [[1.0, 1.0], [1.0, 1.0]]
    assert [item["name"] for item in value["filters"]] == ["run", "run"]


def test_export_of_a_uid_list(document, finished, tmp_path):
    out = f"{tmp_path}/list.npy"
    code, value, said = document("export", finished, out)
    assert (code, said) == (0, "")
    assert value == {"run_uri": finished, "out_uri": out, "uids": SHARDS * SAMPLES // 2}
    assert len(np.load(out)) == value["uids"]


TRAIN = (
    'run_uri = "{0}/run"\nsamples_seen = 8\nbatch_size = 4\n[model]\nmodel = "ViT-B-32"\n'
    'random_weights_seed = 0\n[[sources]]\npool = {{uri = "{1}"}}\n'
)


@pytest.fixture
def train_recipe(tmp_path, pool) -> str:
    path = tmp_path / "train.toml"
    path.write_text(TRAIN.format(tmp_path, pool))
    return str(path)


def test_a_doctor_that_has_something_to_change_prints_its_findings_and_is_1(
    document, train_recipe, tmp_path
):
    code, value, said = document("doctor", train_recipe)
    assert code == 0
    assert value["ready"] is True
    code, value, said = document("doctor", train_recipe, "--set", "model.model=local-dir:/none")
    assert code == 1
    assert value["ready"] is False
    (wrong,) = (finding for finding in value["findings"] if not finding["ok"])
    assert "local-dir:/none" in wrong["text"]
    assert "CHANGE" in said
    assert said.endswith("dfn-ray doctor: 1 thing to change before this recipe can run\n")


def test_a_dry_run_is_one_document_too(document, train_recipe):
    code, value, said = document("train", train_recipe, "--dry-run")
    assert code == 0
    assert value["recipe"]["samples_seen"] == 8
    assert {finding["name"] for finding in value["findings"]} >= {"source pairs"}
    assert "samples seen" in said
    code, value, said = document(
        "train", train_recipe, "--dry-run", "--set", "model.model=local-dir:/none"
    )
    assert code == 2
    assert [finding["ok"] for finding in value["findings"]].count(False) == 1
    assert "dfn-ray train: " in said


def test_a_verb_that_fails_prints_no_document(capsys, tmp_path):
    assert run(["verify", str(tmp_path), "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("dfn-ray verify: ")


def test_what_anything_else_prints_goes_to_stderr(capsys, monkeypatch, finished):
    from dfn_ray.filtering.verifying import verify

    def verify_run(*_: object, **__: object) -> dict[str, int]:
        sys.stdout.write("from a library\n")
        return {"shards": 1}

    monkeypatch.setattr(verify, "verify_run", verify_run)
    assert run(["verify", finished, "--json"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["shards"] == 1
    assert said.err == "from a library\n"


def test_results_of_an_evaluation_hold_numbers_and_null_for_what_there_is_not():
    result = SetResult(
        dataset="small",
        task="zeroshot_classification",
        language="en",
        metrics={"acc1": 0.5, "acc5": math.nan},
        images=4,
        failed={},
        fingerprint="a",
        network="b",
    )
    average = GroupAverage(mean=0.5, available=1, tasks=2)
    value = json.loads(json_text(evaluation_values(Evaluation((result,), {"all": average}))))
    assert value["results"][0]["metrics"] == {"acc1": 0.5, "acc5": None}
    assert value["results"][0]["main_metric"] == "acc1"
    assert value["results"][0]["main_metric_value"] == 0.5
    assert value["groups"]["all"]["mean"] == 0.5


def test_a_plan_has_its_intervals_as_numbers(pool, tmp_path):
    from dfn_ray.forecast.costs import cluster_forecast, options
    from tests.forecast.test_plan import estimated

    recipe = recipe_of(tmp_path / "run", pool, 0.5)
    found = estimated()
    value = plan_values(
        found, cluster_forecast(recipe, found, {"CPU": 4}), options(recipe, found, 2), None
    )
    value = json.loads(json_text(value))
    assert value["samples"] == {"value": 1e6, "low": 0.9e6, "high": 1.1e6}
    assert [option["scorers"] for option in value["options"]] == [1, 2]
    assert value["options"][0]["hours"]["value"] > 0
    assert value["options"][0]["money"] is None
    assert value["this_cluster"]["decode_per_s"] > 0


def test_a_document_is_ascii_without_controls_and_numpy_is_plain():
    text = json_text({"a": "caf\u00e9 \x1b[31m \x7f \x9b", "b": np.float32(0.5), "c": (math.inf,)})
    assert text.isascii()
    assert not any(ord(c) < 32 or ord(c) == 127 for c in text.replace("\n", ""))
    assert json.loads(text) == {"a": "caf\u00e9 \x1b[31m \x7f \x9b", "b": 0.5, "c": [None]}
    assert plain(np.arange(4).reshape(2, 2)) == [[0, 1], [2, 3]]


def test_text_is_printed_where_stdout_is_at_the_time(capsys):
    output = Output()
    output.say("a\x1b")
    output.finish({"a": 1}, "b")
    assert capsys.readouterr().out == "a\\x1b\nb\n"
