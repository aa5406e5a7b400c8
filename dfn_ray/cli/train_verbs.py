"""Verbs that train and evaluate: train, evaluate, pipeline."""

from __future__ import annotations

import click

from dfn_ray.cli.documents import evaluation_values
from dfn_ray.cli.options import takes_json, takes_recipe
from dfn_ray.cli.output import Output
from dfn_ray.cli.recipe_argument import GivenRecipe, recipe_to_run


@click.command(
    "train", short_help="Train CLIP, or a filtering network, on subsets and pools; resumes."
)
@takes_recipe()
@takes_json
def train(given: GivenRecipe, output: Output) -> None:
    """Train the network of RECIPE on its sources: subsets, pools, lists of uids.

    The same command resumes a run that was stopped, in the middle of a pass.
    """
    from dfn_ray.config import TrainRecipe

    recipe = recipe_to_run(given, TrainRecipe, output)
    if recipe is None:
        return
    from dfn_ray.training.result import result_lines
    from dfn_ray.training.train_clip import train

    result = train(recipe)
    output.finish(result, "\n".join(result_lines(result)))


@click.command(
    "evaluate",
    short_help="Evaluate a network by zero-shot classification and retrieval; skips finished sets.",
)
@takes_recipe()
@takes_json
def evaluate(given: GivenRecipe, output: Output) -> None:
    """Evaluate the network of RECIPE on its sets, by zero-shot classification and retrieval.

    Sets that have a result already are skipped. Results are in the formats of CLIP_benchmark and
    DataComp.
    """
    from dfn_ray.config import EvaluateRecipe

    recipe = recipe_to_run(given, EvaluateRecipe, output)
    if recipe is None:
        return
    from dfn_ray.evaluation.evaluate import evaluate_sets
    from dfn_ray.evaluation.results import results_table

    evaluation = evaluate_sets(recipe)
    output.finish(
        evaluation_values(evaluation), results_table(evaluation.results, evaluation.groups)
    )


@click.command(
    "pipeline",
    short_help="Run all stages: train a filtering network, filter, train on the subset, evaluate, "
    "compare; resumes.",
)
@takes_recipe()
@takes_json
def pipeline(given: GivenRecipe, output: Output) -> None:
    """Run all stages: train a filtering network, filter, train on the subset, evaluate, compare.

    Models are trained on the subset and on each of the other arms of RECIPE, and evaluated on its
    sets. RECIPE 'demo' runs on data that ships with the package and takes ten minutes on a laptop.
    The same command resumes a pipeline that was stopped.
    """
    from dfn_ray.config import PipelineRecipe

    recipe = recipe_to_run(given, PipelineRecipe, output)
    if recipe is None:
        return
    from dfn_ray.pipeline.pipeline import run_pipeline

    output.finish(run_pipeline(recipe, say=output.say))
