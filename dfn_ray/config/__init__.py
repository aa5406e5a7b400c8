"""Recipes: every setting of a run, as frozen dataclasses from TOML, `--set` or Python.

TOML -> `--set section.key=value` -> one validation that reports every mistake -> the resolved
recipe, which is stored in `run.json` beside the output. Importing this package loads neither Ray
nor torch, so `--dry-run` and `--help` answer at once.

    filtering.py        Recipe: dfn-ray filter, score, select, materialize, plan
    training.py         TrainRecipe: dfn-ray train
    evaluation.py       EvaluateRecipe: dfn-ray evaluate
    pipeline_recipe.py  PipelineRecipe: dfn-ray pipeline

    pool.py             [pool], [rules]
    networks.py         [[networks]], [decode], [scorers]
    caption_score.py    [captions]
    selection.py        [select], [calibration]
    execution.py        [execution], [prices]
    sources.py          [[sources]], [augmentation]
    optimization.py     [optimizer], and the scales
    workers.py          [workers], [feed], [checkpoints], [logs]

    load.py             TOML to recipe and back
    recipe_files.py     TOML in files of this machine and in stores; not imported by this package,
                        because it names `storage`, which the network's code must not know
    recipe_kinds.py     the kind of recipe in a file
    json_schema.py      JSON Schema of recipes, for editors: docs/schemas/
    sections.py         the decorator of sections
    checks.py           types of settings: ranges, URIs
    mistakes.py         sentences for what validation finds
    fractions.py        exact fraction of a number of samples
"""

from dfn_ray.config.caption_score import Captions
from dfn_ray.config.evaluation import EvaluateRecipe, EvaluationSet
from dfn_ray.config.execution import Execution, Prices
from dfn_ray.config.filtering import Recipe
from dfn_ray.config.fractions import count_of_fraction
from dfn_ray.config.load import parse_recipe, recipe_from, recipe_values, stored_pool
from dfn_ray.config.networks import Decode, Network, Scorers
from dfn_ray.config.optimization import SCALES, Optimizer
from dfn_ray.config.pipeline_recipe import PipelineRecipe
from dfn_ray.config.pool import Pool, Rules
from dfn_ray.config.recipe_kinds import recipe_kind
from dfn_ray.config.selection import Calibration, Select
from dfn_ray.config.sources import Augmentation, Labels, Source
from dfn_ray.config.training import TrainRecipe
from dfn_ray.config.workers import Checkpoints, Feed, Logs, Workers

__all__ = [
    "SCALES",
    "Augmentation",
    "Calibration",
    "Captions",
    "Checkpoints",
    "Decode",
    "EvaluateRecipe",
    "EvaluationSet",
    "Execution",
    "Feed",
    "Labels",
    "Logs",
    "Network",
    "Optimizer",
    "PipelineRecipe",
    "Pool",
    "Prices",
    "Recipe",
    "Rules",
    "Scorers",
    "Select",
    "Source",
    "TrainRecipe",
    "Workers",
    "count_of_fraction",
    "parse_recipe",
    "recipe_from",
    "recipe_kind",
    "recipe_values",
    "stored_pool",
]
