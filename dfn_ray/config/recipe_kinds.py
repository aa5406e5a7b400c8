"""The kind of recipe that a file contains, for verbs that accept any."""

from __future__ import annotations

from typing import Any

from dfn_ray.config.evaluation import EvaluateRecipe
from dfn_ray.config.filtering import Recipe
from dfn_ray.config.load import parsed_toml
from dfn_ray.config.pipeline_recipe import PipelineRecipe
from dfn_ray.config.training import TrainRecipe

_OWN_SECTIONS = {
    PipelineRecipe: ("train", "evaluate", "dfn", "arms"),
    TrainRecipe: ("sources", "model", "samples_seen", "scale"),
    EvaluateRecipe: ("sets", "network"),
}
"""Settings that only this kind has."""


def recipe_kind(text: bytes) -> type[Any]:
    """The kind of recipe that a TOML text describes; filtering if undecided or not TOML."""
    try:
        values = parsed_toml(text.decode())
    except ValueError:  # reported by the function that loads the recipe
        return Recipe
    for kind, sections in _OWN_SECTIONS.items():
        if any(section in values for section in sections):
            return kind
    return Recipe
