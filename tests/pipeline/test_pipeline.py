"""The whole pipeline on small pools: every arm is run once and never repeated."""

from __future__ import annotations

import json

import pytest

from dfn_ray.config import Network, PipelineRecipe, recipe_from
from dfn_ray.errors import RecipeError, RunTakenOverError, StorageError
from dfn_ray.pipeline import pipeline
from dfn_ray.pipeline.comparison import compare_arms, comparison_table
from dfn_ray.pipeline.pipeline import _source, run_pipeline
from dfn_ray.run import open_run
from dfn_ray.testing.sample_pools import TarBuilder, photo

LABELS = 4


@pytest.fixture
def values(tmp_path, network, pool):
    """A pipeline on 300 samples, evaluated on 12 labelled images."""
    tar = TarBuilder()
    for number in range(12):
        tar.member(f"{number:04d}.jpg", photo(number)).member(
            f"{number:04d}.cls", str(number % LABELS)
        )
    (tmp_path / "set").mkdir()
    (tmp_path / "set/0.tar").write_bytes(tar.getvalue())
    model = {"model": f"local-dir:{network}", "random_weights_seed": 0}
    training = {
        "model": model,
        "samples_seen": 64,
        "batch_size": 32,
        "optimizer": {"warmup_steps": 1},
        "workers": {"threads": 1},
    }
    return {
        "run_uri": str(tmp_path / "pipeline"),
        "pool": {"uri": [str(pool)], "chunk_rows": 16},
        "arms": ["dfn", "random"],
        "evaluate_at_samples": [32],
        "dfn": {**training, "sources": [{"pool": {"uri": [str(pool)], "chunk_rows": 16}}]},
        "filter": {"select": {"keep_fraction": 0.25}, "scorers": {"threads": 1}},
        "train": training,
        "evaluate": {
            "sets": [
                {
                    "name": "small",
                    "pool": {"uri": [str(tmp_path / "set")]},
                    "classnames": [f"class {n}" for n in range(LABELS)],
                    "templates": ["{}"],
                }
            ],
            "scorers": {"threads": 1},
        },
    }


@pytest.mark.slow
def test_the_pipeline_trains_on_each_arm_compares_them_and_repeats_nothing(
    local_ray, values, tmp_path
):
    said: list[str] = []
    recipe = recipe_from(values, kind=PipelineRecipe)
    value = run_pipeline(recipe, say=said.append)
    finished = tmp_path / "pipeline"
    assert json.loads((finished / "comparison.json").read_text()) == value
    assert (finished / "comparison.png").read_bytes().startswith(b"\x89PNG")
    arms = value["metrics"]["small, acc1"]["arms"]
    assert set(arms) == {"dfn", "random"}
    for arm in arms:
        assert list((finished / "train" / arm / "seed-0/at-000000000032/eval").iterdir())
    kept = open_run(f"{finished}/filter").read_json("selection.json")
    assert kept is not None
    assert kept["k"] == 75
    random = open_run(f"{finished}/train/random/seed-0").description["recipe"]
    assert random["sources"][0]["sample_count"] == 75
    assert "trained on random" in said[-1]

    stored = json.loads((finished / "recipe.json").read_text())
    assert recipe_from(stored, kind=PipelineRecipe) == recipe
    written = {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")}
    again = run_pipeline(recipe, say=said.append)
    assert again == value
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*.safetensors")} == written


@pytest.fixture
def fake_stages(monkeypatch):
    """Stages that only yield metrics; `before_training` is called before each model is trained."""

    def replace_stages(before_training, value: float) -> None:
        def train(recipe, arm, seed, source):
            before_training()
            return {"small, acc1": value}

        monkeypatch.setattr(pipeline, "check_ray_reachable", lambda: None)
        monkeypatch.setattr(pipeline, "_filtering_network", lambda recipe, say: None)
        monkeypatch.setattr(pipeline, "_source", lambda *_: {})
        monkeypatch.setattr(pipeline, "_train", train)

    return replace_stages


def test_the_recipe_is_stored_before_the_first_stage(values, tmp_path, fake_stages):
    def dies():
        raise StorageError("the store is down")

    fake_stages(dies, 0.5)
    for seeds in ((0,), (0, 1)):
        recipe = recipe_from(values | {"seeds": seeds}, kind=PipelineRecipe)
        with pytest.raises(StorageError):
            run_pipeline(recipe, say=lambda _: None)
        stored = json.loads((tmp_path / "pipeline/recipe.json").read_text())
        assert recipe_from(stored, kind=PipelineRecipe) == recipe
    assert not (tmp_path / "pipeline/comparison.json").exists()


def test_a_pipeline_that_another_driver_runs_now_replaces_nothing(values, tmp_path, fake_stages):
    recipe, other = (
        recipe_from(values | {"seeds": seeds}, kind=PipelineRecipe) for seeds in ((0,), (0, 1))
    )

    def meanwhile():
        fake_stages(lambda: None, 0.75)
        run_pipeline(other, say=lambda _: None)

    fake_stages(meanwhile, 0.25)
    with pytest.raises(RunTakenOverError, match="was taken over"):
        run_pipeline(recipe, say=lambda _: None)
    comparison = json.loads((tmp_path / "pipeline/comparison.json").read_text())
    assert comparison["seeds"] == [0, 1]
    assert comparison["metrics"]["small, acc1"]["arms"]["dfn"]["mean"] == 0.75
    stored = json.loads((tmp_path / "pipeline/recipe.json").read_text())
    assert recipe_from(stored, kind=PipelineRecipe) == other


@pytest.mark.slow
def test_the_arm_of_rules_keeps_what_passes_them(local_ray, values, network):
    values |= {"arms": ["dfn", "rules"], "dfn": None, "rules": {"min_caption_words": 6}}
    values["filter"] = {**values["filter"], "networks": [{"model": f"local-dir:{network}"}]}
    recipe = recipe_from(values, kind=PipelineRecipe)
    source = _source(recipe, "rules", None, lambda _: None)
    kept = open_run(recipe.uri("rules")).read_json("selection.json")
    assert kept is not None
    assert 0 < kept["counts"]["scored"] == kept["k"] < 300
    assert kept["counts"]["rejected/caption_words"] == 300 - kept["k"]
    assert source["pool"]["uri"] == recipe.uri("rules", "subset")


def test_mistakes_of_all_stages_are_named_by_stage(values):
    values["train"] = {**values["train"], "batch_sise": 3}
    with pytest.raises(RecipeError, match=r"train\.batch_sise: no such setting"):
        recipe_from(values, kind=PipelineRecipe)
    values["train"] = {**values["dfn"]}
    with pytest.raises(RecipeError, match=r"train\.sources: is set by the pipeline itself"):
        recipe_from(values, kind=PipelineRecipe)


def test_seeds_start_from_weights_of_their_own(values):
    recipe = recipe_from(values, kind=PipelineRecipe)
    source = {"pool": {"uri": "x"}}
    recipes = [recipe.train_recipe("dfn", seed, source) for seed in (1, 2)]
    assert [r.model.random_weights_seed for r in recipes] == [1, 2]
    assert [r.seed for r in recipes] == [1, 2]
    assert recipe.filter_recipe(Network(model="local-dir:n")).networks[0].model == "local-dir:n"


def test_the_comparison_counts_in_how_many_seeds_the_subset_is_ahead():
    scores = {
        "dfn": {0: {"set, acc1": 0.5}, 1: {"set, acc1": 0.3}},
        "pool": {0: {"set, acc1": 0.2}, 1: {"set, acc1": 0.4}},
    }
    value = compare_arms(scores, network={"set, acc1": 0.9})
    found = value["metrics"]["set, acc1"]
    assert found["arms"]["dfn"]["mean"] == pytest.approx(0.4)
    assert found["arms"]["pool"]["dfn_ahead_in"] == 1
    assert found["arms"]["pool"]["spread"] == pytest.approx(0.1414, abs=1e-4)
    table = comparison_table(value)
    assert "dfn better in 1 of 2 seeds" in table
    assert "the filtering network itself 0.9000" in table
