"""Target: recipes. Valid ones survive a round trip; every mistake is a RecipeError."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from random import Random

from dfn_ray.config import (
    EvaluateRecipe,
    PipelineRecipe,
    Recipe,
    TrainRecipe,
    parse_recipe,
    recipe_from,
    recipe_values,
)
from dfn_ray.errors import RecipeError
from tests.fuzz import odd_text
from tests.fuzz.case import Case, Target, require
from tests.fuzz.mutate import mutate

_FILTER = """
run_uri = "runs/a"
[pool]
uri = ["pool/{00000..00009}.tar", "more"]
chunk_rows = 64
[rules]
min_caption_words = 3
max_aspect_ratio = 3.0
[[networks]]
model = "ViT-B-32"
random_weights_seed = 1
[scorers]
labels = {role = "score"}
device = "cpu"
[select]
keep_fraction = 0.15
"""
_TRAIN = """
run_uri = "runs/b"
samples_seen = 1000
batch_size = 8
[model]
model = "ViT-B-32"
random_weights_seed = 1
[[sources]]
pool = {uri = "pool"}
[workers]
device = "cpu"
"""
_EVALUATE = """
run_uri = "runs/c"
[network]
model = "ViT-B-32"
random_weights_seed = 1
[[sets]]
name = "pets"
classnames = ["cat", "dog"]
templates = ["a {}"]
pool = {uri = "pets", caption = "label"}
[scorers]
device = "cpu"
"""
_RECIPES = (
    (_FILTER, Recipe),
    (_FILTER, Recipe),
    (_TRAIN, TrainRecipe),
    (_EVALUATE, EvaluateRecipe),
    (_FILTER, PipelineRecipe),
)

_HARMLESS = (
    "pool.chunk_rows=1_000", "pool.max_caption_bytes=0xff", "run_uri=a=b", 'run_uri="é\\n\\u0001"',
    "decode.timeout_s=1e3", "decode.timeout_s=7", 'decode.labels={"a.b" = "c"}',
    "decode.labels.role=x", "scorers.gpus=0", "decode.max_pixels=1", "scorers.batch_size=3",
    " decode.cpus = 0.5", "decode.mode=fast",
)  # fmt: skip

_VALUES = (
    "0", "-1", "1", "9223372036854775808", "0xff", "1_000", "1e400", "nan", "-inf", "0.15",
    "1.0000000001", "true", '""', "''", '"none"', "[]", "[[]]", "[1, 'a']", "{}",
    "{a = {b = {c = 1}}}", "1979-05-27", "07:32:00", "1979-05-27T07:32:00Z", '"\\u0000"',
    '"\\U0001F600"', '"""\na\n"""', "[" * 100 + "]" * 100, "none", "", "[" * 5000,
    '"s3://b/p?X-Amz-Signature=1"', '"https://u:p@h/x"', "9" * 5000, "{a.b = 1, a.c = 2}",
    '"\\ud800"', "-0.0",
)  # fmt: skip
_NAMES = (
    "pool.uri", "pool.format", "pool.chunk_rows", "pool.max_caption_bytes", "rules.min_image_side",
    "select.keep_fraction", "rules.max_aspect_ratio", "networks.0.model", "networks.0.name",
    "networks.1.model", "networks.-1.model", "scorers", "scorers.gpus", "scorers.labels",
    "scorers.labels.a.b", "decode.timeout_s", "run_uri", "select", "select.count", "pool",
    "samples_seen", "sources.0.pool.uri", "sources.0.weight", "workers.max_size", "optimizer.betas",
    "a.b", "", ".", "é.ü", "networks", "decode.labels.x", "execution.max_attempts", "batch_size",
    "model.model", "pool.uri.0", "pool.uri.9",
)  # fmt: skip


def make(rng: Random) -> Case:
    """A recipe with odd lines and overrides, or with damaged text."""
    text, kind = rng.choice(_RECIPES)
    if rng.random() < 0.3:
        return _right(rng, text, kind)
    overrides = [f"{rng.choice(_NAMES)}={_value(rng)}" for _ in range(rng.choice((0, 1, 1, 3)))]
    if rng.random() < 0.1:
        overrides.append(rng.choice(("", "=", "pool", odd_text.text(rng, 3), "pool.uri", "=1")))
    lines = text.splitlines()
    for _ in range(rng.choice((0, 1, 2))):
        at = rng.randrange(len(lines))
        name = lines[at].partition("=")[0].strip() if "=" in lines[at] else rng.choice(_NAMES)
        lines[at] = f"{name or 'x'} = {_value(rng)}"
    raw = rng.choice(("\n", "\r\n")).join(lines).encode("utf-8", "surrogatepass")
    valid = rng.random() < 0.6
    note = f"{kind.__name__}, --set {overrides}"
    if not valid:
        damage = mutate(rng, raw)
        raw, note = damage.data, f"{note}: {damage.note}"

    def check(folder: Path) -> Counter[str]:
        del folder
        try:
            recipe = parse_recipe(raw, overrides, kind, source="recipe.toml")
        except RecipeError as error:
            require(
                error.problems and all(error.problems), "a mistake without a word", error.problems
            )
            return Counter(["refused"])
        stored = json.loads(json.dumps(recipe_values(recipe)))
        require(recipe_from(stored, (), kind) == recipe, "a stored recipe reads as another", stored)
        return Counter(["ok"])

    return Case(valid=valid, note=note, files={"recipe.toml": raw}, check=check)


def _right(rng: Random, text: str, kind: type) -> Case:
    """A valid recipe with common overrides."""
    overrides = rng.sample(_HARMLESS, rng.randint(0, 3))
    if kind is not Recipe:
        overrides = [override for override in overrides if override.startswith("run_uri")]

    def check(folder: Path) -> Counter[str]:
        del folder
        if kind is PipelineRecipe:
            return Counter(["not tried"])
        recipe = parse_recipe(text.encode(), overrides, kind, source="recipe.toml")
        stored = json.loads(json.dumps(recipe_values(recipe)))
        require(recipe_from(stored, (), kind) == recipe, "a stored recipe reads as another", stored)
        return Counter(["ok"])

    return Case(
        valid=True,
        note=f"right, --set {overrides}",
        files={"recipe.toml": text.encode()},
        check=check,
    )


def _value(rng: Random) -> str:
    if rng.random() < 0.1:
        return json.dumps(odd_text.text(rng, 3), ensure_ascii=False)
    return rng.choice(_VALUES)


TARGET = Target("recipe", 2, make)
