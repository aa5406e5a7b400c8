"""The recipes: every setting of a run as frozen dataclasses, read from TOML and `--set`.

TOML -> `--set section.key=value` -> one validation that reports every mistake -> the resolved
recipe, which is stored in `run.json` beside the output. Importing this package loads neither Ray
nor torch, so `--dry-run` and `--help` answer at once.

    captions.py     [captions] of a Recipe
    filtering.py    Recipe: dfn-ray filter, score, select, materialize
    training.py     TrainRecipe: dfn-ray train
    evaluation.py   EvaluateRecipe: dfn-ray evaluate
    pipeline.py     PipelineRecipe: dfn-ray pipeline
    reading.py      from TOML to a recipe
    kinds.py        which kind of recipe a file is
    fractions.py    a share of a number of samples
    checks.py       what settings are checked for
"""

from dfn_ray.config.captions import Captions
from dfn_ray.config.evaluation import EvaluateRecipe, EvaluationSet
from dfn_ray.config.filtering import (
    Calibration,
    Decode,
    Execution,
    Network,
    Pool,
    Prices,
    Recipe,
    Rules,
    Scorers,
    Select,
)
from dfn_ray.config.fractions import count_of_fraction
from dfn_ray.config.kinds import recipe_kind
from dfn_ray.config.load import (
    load_recipe,
    parse_recipe,
    recipe_from,
    recipe_values,
    stored_pool,
)
from dfn_ray.config.pipeline import PipelineRecipe
from dfn_ray.config.training import (
    SCALES,
    Augmentation,
    Checkpoints,
    Feed,
    Labels,
    Logs,
    Optimizer,
    Source,
    TrainRecipe,
    Workers,
)

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
    "load_recipe",
    "parse_recipe",
    "recipe_from",
    "recipe_kind",
    "recipe_values",
    "stored_pool",
]
