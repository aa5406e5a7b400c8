"""Recipes that are built in Python validate as those from TOML do."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from dfn_ray.config import (
    SCALES,
    Augmentation,
    Decode,
    Network,
    Optimizer,
    Pool,
    Prices,
    Recipe,
    Scorers,
    Select,
    Source,
    TrainRecipe,
    recipe_from,
    recipe_values,
)
from dfn_ray.errors import RecipeError
from tests.config.whole_recipes import VALUES

SECTIONS = [
    (Pool, {"uri": "x", "chunk_rows": 0}, "chunk_rows: need 1 <= chunk_rows <= 65536, got 0"),
    (Pool, {"uri": []}, "uri: need at least one, got none"),
    (Pool, {"uri": "x", "chunk_row": 1}, "chunk_row: no such setting; did you mean chunk_rows?"),
    (Pool, {}, "uri: missing"),
    (Decode, {"timeout_s": 0}, "timeout_s: need timeout_s > 0, got 0"),
    (Decode, {"resources": {"slot": -1}}, "resources.slot: need resources.slot > 0, got -1"),
    (
        Scorers,
        {"min_size": 3, "max_size": 2},
        "min_size: need 1 <= min_size <= max_size, got 3 and 2",
    ),
    (Scorers, {"threads": 0}, "threads: need threads >= 1, got 0"),
    (Select, {"threshold": 1.5}, "threshold: need -1.0 <= threshold <= 1.0, got 1.5"),
    (Prices, {"gpu_hour": float("inf")}, "gpu_hour: need a finite number, got inf"),
    (Augmentation, {"min_scale": 1.0, "max_scale": 0.5}, "min_scale: need min_scale <= max_scale"),
    (
        Network,
        {"model": "ViT-B-32", "pretrained": "x", "name": "a-b"},
        "name: need letters, digits",
    ),
    (Network, {"model": "s3://key:hunter2@b/x"}, "model: need a URI without credentials"),
]


@pytest.mark.parametrize(("section", "settings", "problem"), SECTIONS)
def test_mistakes_in_python_are_those_of_toml(section, settings, problem):
    with pytest.raises(RecipeError) as in_python:
        section(**settings)
    with pytest.raises(RecipeError) as in_toml:
        recipe_from(settings, kind=section)
    assert in_python.value.problems == in_toml.value.problems
    assert in_python.value.problems[0].startswith(problem)
    assert "hunter2" not in str(in_python.value)


def test_every_mistake_of_a_section_is_reported_at_once():
    with pytest.raises(RecipeError) as refusal:
        Scorers(min_size=0, gpus=-1, device="tpu")
    assert refusal.value.problems == [
        "min_size: need min_size >= 1, got 0",
        "gpus: need gpus >= 0, got -1",
        "device: need 'cpu' or 'cuda', got 'tpu'",
    ]
    with pytest.raises(RecipeError) as refusal:
        Scorers(min_size=2, device="cuda")
    assert refusal.value.problems == [
        "min_size: need 1 <= min_size <= max_size, got 2 and 1",
        'gpus: device = "cuda" needs gpus > 0, got 0',
    ]


def test_settings_are_given_by_name():
    with pytest.raises(RecipeError, match="Pool takes settings by name only, got 'x'"):
        Pool("x")  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("kind", VALUES, ids=lambda kind: kind.__name__)
def test_a_recipe_in_python_equals_the_one_from_toml(kind):
    recipe = recipe_from(VALUES[kind], kind=kind)
    sections = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    assert kind(**sections) == recipe
    assert kind(**VALUES[kind]) == recipe
    assert recipe_from(recipe_values(recipe), kind=kind) == recipe
    assert pickle.loads(pickle.dumps(recipe)) == recipe


def test_replace_makes_another_valid_recipe_and_refuses_an_invalid_one():
    recipe = recipe_from(VALUES[Recipe])
    fewer = dataclasses.replace(recipe, select=Select(keep_count=3))
    assert fewer.select.keep_count == 3
    assert fewer.pool is recipe.pool
    assert recipe.select.keep_count is None
    with pytest.raises(RecipeError, match="chunk_rows: need 1 <= chunk_rows <= 65536, got 0"):
        dataclasses.replace(recipe.pool, chunk_rows=0)
    with pytest.raises(RecipeError, match=r"select\.network: need one of dfn, got 'other'"):
        dataclasses.replace(recipe, select=Select(keep_count=3, network="other"))


def test_sections_are_frozen_and_hash_by_value():
    pool = Pool(uri="S3://bucket/pool")
    assert pool == Pool(uri=("s3://bucket/pool",))
    assert len({pool, Pool(uri=["s3://bucket/pool"]), Pool(uri="other")}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        pool.chunk_rows = 3  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("scale", SCALES)
def test_a_scale_is_the_same_in_python_and_toml(scale):
    source = Source(pool=Pool(uri="p"))
    values = {"run_uri": "r", "scale": scale, "sources": [{"pool": {"uri": "p"}}]}
    recipe = TrainRecipe(run_uri="r", scale=scale, sources=(source,))
    assert recipe == recipe_from(values, kind=TrainRecipe)
    assert dataclasses.replace(recipe, seed=1) == recipe_from(
        values | {"seed": 1}, kind=TrainRecipe
    )


def test_an_object_replaces_the_section_of_a_scale_and_a_table_is_merged_into_it():
    source = Source(pool=Pool(uri="p"))
    settings = {"run_uri": "r", "scale": "xlarge", "sources": (source,), "samples_seen": 10**6}
    whole = TrainRecipe(**settings, optimizer=Optimizer(learning_rate=1e-4))
    assert (whole.optimizer.beta2, whole.optimizer.warmup_steps) == (0.98, 500)
    merged = TrainRecipe(**settings, optimizer={"learning_rate": 1e-4})
    assert (merged.optimizer.beta2, merged.optimizer.warmup_steps) == (0.95, 10_000)
    assert whole.samples_seen == merged.samples_seen == 10**6


def test_without_a_scale_what_it_would_set_is_missing():
    with pytest.raises(RecipeError) as refusal:
        TrainRecipe(run_uri="r", sources=(Source(pool=Pool(uri="p")),))
    assert refusal.value.problems == [
        "model: missing",
        "samples_seen: missing",
        "batch_size: missing",
    ]
