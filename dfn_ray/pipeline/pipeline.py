"""`dfn-ray pipeline`: the stages in order, and what the pipeline itself stores in its run.

    recipe.json               the resolved recipe
    comparison.json, .png     the comparison of the arms, and its picture
    pipeline_attempts/*.json  one per driver: its recipe and versions
    dfn, filter, rules, train/ARM/seed-N   the runs of the stages

Each stage resumes itself, so the whole run resumes. Only the last driver replaces the files.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from dfn_ray.config import EvaluateRecipe, Network, PipelineRecipe, recipe_values
from dfn_ray.evaluation.evaluate import evaluate_sets
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.selecting.selection_table import selection_table
from dfn_ray.on_ray.ray_address import check_ray_reachable
from dfn_ray.pipeline.comparison import Scores, compare_arms, comparison_table
from dfn_ray.report.arms import draw_arms
from dfn_ray.run import create_attempt, versions
from dfn_ray.storage import Store
from dfn_ray.training.train_clip import train
from dfn_ray.training.worker_spec import trained_network_folder

RECIPE, COMPARISON, PICTURE = "recipe.json", "comparison.json", "comparison.png"
ATTEMPTS = "pipeline_attempts"


def run_pipeline(recipe: PipelineRecipe, *, say: Callable[[str], None]) -> dict[str, Any]:
    """Runs the unfinished stages; stores and returns the comparison of the arms.

    Raises the errors of the stages, and RunTakenOverError if another driver runs the pipeline now;
    finished stages stay finished.
    """
    check_ray_reachable()
    store, values = Store(recipe.run_uri), recipe_values(recipe)
    attempt = create_attempt(store, {"versions": versions(), "recipe": values}, ATTEMPTS)
    attempt.rewrite(store, RECIPE, json.dumps(values, indent=1).encode())
    network = _filtering_network(recipe, say)
    sources = {arm: _source(recipe, arm, network, say) for arm in recipe.arms}
    scores: Scores = {}
    for seed in recipe.seeds:  # seed by seed, so that all arms can be compared early
        for arm in recipe.arms:
            say(f"\n== train on {arm}, seed {seed}")
            scores.setdefault(arm, {})[seed] = _train(recipe, arm, seed, sources[arm])
    own = None if network is None else _main_metrics(recipe.evaluate_recipe("network", 0, network))
    value = compare_arms(scores, network=own)
    attempt.rewrite(store, COMPARISON, json.dumps(value, indent=1).encode())
    attempt.rewrite(store, PICTURE, draw_arms(value))
    say("\n" + comparison_table(value) + f"\n\npicture: {recipe.uri(PICTURE)}")
    return value


def _filtering_network(recipe: PipelineRecipe, say: Callable[[str], None]) -> Network | None:
    """The network that [dfn] trains; None if [filter] names one."""
    if recipe.dfn is None:
        return None
    say("== train the filtering network")
    trained = train(recipe.dfn_recipe())
    return Network(model=f"local-dir:{trained['network']}")


def _source(
    recipe: PipelineRecipe, arm: str, network: Network | None, say: Callable[[str], None]
) -> dict[str, Any]:
    """The training source of an arm, as an entry of `[[sources]]`."""
    pool = recipe_values(recipe.pool)
    if arm == "pool":
        return {"name": arm, "pool": pool}
    filtering = recipe.rules_recipe(network) if arm == "rules" else recipe.filter_recipe(network)
    say(f"\n== filter the pool ({arm})")
    value = filter_pool(filtering)
    if arm == "random":
        return {"name": arm, "pool": pool, "sample_count": value["k"]}
    say(selection_table(filtering.run_uri, value))
    subset = {"uri": f"{filtering.run_uri}/subset", "chunk_rows": recipe.pool.chunk_rows}
    if recipe.pool.several_captions:
        subset["caption"] = "list"
    return {"name": arm, "pool": subset}


def _train(recipe: PipelineRecipe, arm: str, seed: int, source: dict[str, Any]) -> dict[str, float]:
    """Trains a model of an arm, evaluates it at checkpoints and at the end; returns its metrics."""
    training = recipe.train_recipe(arm, seed, source)
    for point in sorted(recipe.evaluate_at_samples):
        train(training, until_samples=point + training.batch_size - 1)
        model = _model(f"{training.run_uri}/{trained_network_folder(point)}")
        _main_metrics(recipe.evaluate_recipe(arm, seed, model, at_samples=point))
    return _main_metrics(recipe.evaluate_recipe(arm, seed, _model(train(training)["network"])))


def _model(folder_uri: str) -> Network:
    return Network(model=f"local-dir:{folder_uri}", name="induced")


def _main_metrics(recipe: EvaluateRecipe) -> dict[str, float]:
    """The main metric of each set, by `set, metric`."""
    return {
        f"{result.dataset}, {name}": value
        for result in evaluate_sets(recipe).results
        for name, value in [result.main_metric]
        if value is not None
    }
