"""Data filtering networks on Ray: score a pool, keep exactly the k best samples, train on them.

The verbs of the command line as functions of the same recipes:

    recipe = dfn_ray.load_recipe("recipe.toml")
    selection = dfn_ray.filter_pool(recipe)
    dfn_ray.verify(recipe.run_uri)

A finished run as tables:

    run = dfn_ray.open_run("s3://my-bucket/runs/dfn-15")
    scores = run.scores.to_pandas(["uid", "score_dfn"])
    subset = run.subset.to_ray()

Images and captions in this process, without a run:

    network = dfn_ray.load_network("hf-hub:apple/DFN-public")
    table = network.score(["cat.jpg", "dog.jpg"], ["a cat asleep", "two dogs"])

Each name imports its module on first use: `import dfn_ray` alone imports neither Ray nor torch, and
has no side effects.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dfn_ray.config import (
        Decode,
        EvaluateRecipe,
        Network,
        PipelineRecipe,
        Pool,
        Recipe,
        Rules,
        Scorers,
        Select,
        TrainRecipe,
        parse_recipe,
        recipe_from,
    )
    from dfn_ray.config.recipe_files import load_recipe
    from dfn_ray.errors import (
        BudgetSpentError,
        DamagedRunError,
        DfnRayError,
        ErrorLimitExceededError,
        FingerprintError,
        IncompleteRunError,
        InputError,
        JobDetachedError,
        JobFailedError,
        MissingFileError,
        NoProgressError,
        NotReadyError,
        RecipeError,
        RunTakenOverError,
        ScorersFailedError,
        ShardChangedError,
        StorageAccessError,
        StorageError,
        TrainingFailedError,
        VerificationError,
        WorkersFailedError,
    )
    from dfn_ray.evaluation.evaluate import evaluate_sets as evaluate
    from dfn_ray.filtering.filter_pool import filter_pool, materialize, score, select
    from dfn_ray.filtering.verifying.verify import verify_run as verify
    from dfn_ray.interactive.exports import export
    from dfn_ray.interactive.pair_scorer import PairScorer, load_network
    from dfn_ray.interactive.run_reader import RunReader
    from dfn_ray.interactive.run_reader import open_reader as open_run
    from dfn_ray.interactive.run_table import RunTable
    from dfn_ray.pipeline.pipeline import run_pipeline
    from dfn_ray.pool import inspect_pool as inspect
    from dfn_ray.report.compare import compare_runs as compare
    from dfn_ray.training.export_network import export_network
    from dfn_ray.training.train_clip import train

__version__ = "0.1.0"

_HOMES = {
    # the recipes
    "load_recipe": ("dfn_ray.config.recipe_files", "load_recipe"),
    "parse_recipe": ("dfn_ray.config", "parse_recipe"),
    "recipe_from": ("dfn_ray.config", "recipe_from"),
    "Recipe": ("dfn_ray.config", "Recipe"),
    "TrainRecipe": ("dfn_ray.config", "TrainRecipe"),
    "EvaluateRecipe": ("dfn_ray.config", "EvaluateRecipe"),
    "PipelineRecipe": ("dfn_ray.config", "PipelineRecipe"),
    "Pool": ("dfn_ray.config", "Pool"),
    "Rules": ("dfn_ray.config", "Rules"),
    "Decode": ("dfn_ray.config", "Decode"),
    "Network": ("dfn_ray.config", "Network"),
    "Scorers": ("dfn_ray.config", "Scorers"),
    "Select": ("dfn_ray.config", "Select"),
    # the verbs
    "filter_pool": ("dfn_ray.filtering.filter_pool", "filter_pool"),
    "score": ("dfn_ray.filtering.filter_pool", "score"),
    "select": ("dfn_ray.filtering.filter_pool", "select"),
    "materialize": ("dfn_ray.filtering.filter_pool", "materialize"),
    "verify": ("dfn_ray.filtering.verifying.verify", "verify_run"),
    "export": ("dfn_ray.interactive.exports", "export"),
    "export_network": ("dfn_ray.training.export_network", "export_network"),
    "train": ("dfn_ray.training.train_clip", "train"),
    "evaluate": ("dfn_ray.evaluation.evaluate", "evaluate_sets"),
    "run_pipeline": ("dfn_ray.pipeline.pipeline", "run_pipeline"),
    "compare": ("dfn_ray.report.compare", "compare_runs"),
    "inspect": ("dfn_ray.pool", "inspect_pool"),
    # a notebook
    "open_run": ("dfn_ray.interactive.run_reader", "open_reader"),
    "RunReader": ("dfn_ray.interactive.run_reader", "RunReader"),
    "RunTable": ("dfn_ray.interactive.run_table", "RunTable"),
    "load_network": ("dfn_ray.interactive.pair_scorer", "load_network"),
    "PairScorer": ("dfn_ray.interactive.pair_scorer", "PairScorer"),
    # the errors
    "DfnRayError": ("dfn_ray.errors", "DfnRayError"),
    "InputError": ("dfn_ray.errors", "InputError"),
    "RecipeError": ("dfn_ray.errors", "RecipeError"),
    "FingerprintError": ("dfn_ray.errors", "FingerprintError"),
    "StorageError": ("dfn_ray.errors", "StorageError"),
    "MissingFileError": ("dfn_ray.errors", "MissingFileError"),
    "StorageAccessError": ("dfn_ray.errors", "StorageAccessError"),
    "ShardChangedError": ("dfn_ray.errors", "ShardChangedError"),
    "RunTakenOverError": ("dfn_ray.errors", "RunTakenOverError"),
    "ErrorLimitExceededError": ("dfn_ray.errors", "ErrorLimitExceededError"),
    "BudgetSpentError": ("dfn_ray.errors", "BudgetSpentError"),
    "NotReadyError": ("dfn_ray.errors", "NotReadyError"),
    "IncompleteRunError": ("dfn_ray.errors", "IncompleteRunError"),
    "NoProgressError": ("dfn_ray.errors", "NoProgressError"),
    "ScorersFailedError": ("dfn_ray.errors", "ScorersFailedError"),
    "TrainingFailedError": ("dfn_ray.errors", "TrainingFailedError"),
    "JobFailedError": ("dfn_ray.errors", "JobFailedError"),
    "JobDetachedError": ("dfn_ray.errors", "JobDetachedError"),
    "VerificationError": ("dfn_ray.errors", "VerificationError"),
    "WorkersFailedError": ("dfn_ray.errors", "WorkersFailedError"),
    "DamagedRunError": ("dfn_ray.errors", "DamagedRunError"),
}
"""By public name: the module and the name there."""

__all__ = [
    "BudgetSpentError",
    "DamagedRunError",
    "Decode",
    "DfnRayError",
    "ErrorLimitExceededError",
    "EvaluateRecipe",
    "FingerprintError",
    "IncompleteRunError",
    "InputError",
    "JobDetachedError",
    "JobFailedError",
    "MissingFileError",
    "Network",
    "NoProgressError",
    "NotReadyError",
    "PairScorer",
    "PipelineRecipe",
    "Pool",
    "Recipe",
    "RecipeError",
    "Rules",
    "RunReader",
    "RunTable",
    "RunTakenOverError",
    "Scorers",
    "ScorersFailedError",
    "Select",
    "ShardChangedError",
    "StorageAccessError",
    "StorageError",
    "TrainRecipe",
    "TrainingFailedError",
    "VerificationError",
    "WorkersFailedError",
    "compare",
    "evaluate",
    "export",
    "export_network",
    "filter_pool",
    "inspect",
    "load_network",
    "load_recipe",
    "materialize",
    "open_run",
    "parse_recipe",
    "recipe_from",
    "run_pipeline",
    "score",
    "select",
    "train",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, own_name = _HOMES[name]
    value = getattr(import_module(module), own_name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
