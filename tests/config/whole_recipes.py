"""One valid recipe of every kind with every section in it."""

from __future__ import annotations

from typing import Any

from dfn_ray.config import (
    EvaluateRecipe,
    PipelineRecipe,
    Recipe,
    TrainRecipe,
    recipe_from,
    recipe_values,
)

NETWORK = {"model": "ViT-B-32", "pretrained": "openai"}
SETS = [{"name": "pets", "pool": {"uri": "pets"}, "classnames": ["cat"], "templates": ["a {}"]}]
PLACES = {"labels": {"role": "x"}, "resources": {"slot": 1.0}}
TRAIN = {
    "run_uri": "run",
    "samples_seen": 100,
    "batch_size": 10,
    "model": NETWORK,
    "sources": [
        {
            "pool": {"uri": "a", "caption": "label"},
            "labels": {"classnames": "imagenet"},
            "weight": 1.0,
        },
        {"pool": {"uri": ["b", "c"]}, "weight": 2.0},
    ],
    "decode": PLACES,
    "workers": PLACES,
    "checkpoints": {"export_at_samples": [10, 20]},
}
VALUES: dict[type, dict[str, Any]] = {
    Recipe: {
        "run_uri": "run",
        "pool": {"uri": ["a", "b"]},
        "networks": [NETWORK],
        "decode": PLACES,
        "scorers": PLACES,
        "prices": {},
    },
    TrainRecipe: TRAIN,
    EvaluateRecipe: {"run_uri": "run", "network": NETWORK, "sets": SETS},
    PipelineRecipe: {
        "run_uri": "run",
        "pool": {"uri": "pool"},
        "dfn": {key: value for key, value in TRAIN.items() if key != "run_uri"},
        "filter": {"rules": {}, "select": {"keep_fraction": 0.5}},
        "train": {"samples_seen": 100, "batch_size": 10, "model": {**NETWORK}, "decode": {}},
        "evaluate": {"sets": SETS},
        "rules": {"min_caption_words": 3},
        "arms": ["dfn", "rules"],
        "evaluate_at_samples": [50],
        "seeds": [0, 1],
    },
}


def whole(kind: type) -> dict[str, Any]:
    """The values of a recipe with defaults filled in."""
    return recipe_values(recipe_from(VALUES[kind], kind=kind))
