"""Verbs that prepare and submit work for a cluster: doctor, plan, submit."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from dfn_ray.cli.documents import finding_values, plan_values
from dfn_ray.cli.options import URI, takes_json, takes_recipe
from dfn_ray.cli.output import Output
from dfn_ray.cli.recipe_argument import GivenRecipe, recipe_to_run, require_networks
from dfn_ray.errors import InputError, NotReadyError

RECIPE_KINDS = {
    "filter": "Recipe",
    "score": "Recipe",
    "select": "Recipe",
    "materialize": "Recipe",
    "train": "TrainRecipe",
    "evaluate": "EvaluateRecipe",
    "pipeline": "PipelineRecipe",
    "doctor": None,
    "plan": "Recipe",
}
"""Verbs over a recipe, and its class in `dfn_ray.config`; None: any."""


@click.command(
    "doctor",
    short_help="Check that everything a recipe needs is ready, on this machine and on the cluster.",
)
@takes_recipe()
@click.option(
    "--reference",
    type=URI,
    metavar="URI",
    help="Instead of the other checks, compare scores with those in a Parquet or npz file, by uid, "
    "on this machine.",
)
@click.option(
    "--samples",
    type=int,
    default=256,
    show_default=True,
    help="Number of samples to compare with --reference.",
)
@click.option(
    "--column",
    help="Column of scores in --reference.  [default: the only one, or the network's]",
)
@takes_json
def doctor(
    given: GivenRecipe, reference: str | None, samples: int, column: str | None, output: Output
) -> None:
    """Check that everything a RECIPE of any verb needs is ready, and say what to change.

    Exits with code 1 if anything should change. With --reference, compares the scores of some
    samples with published ones, and names the setting that makes them differ.
    """
    from dfn_ray.config import Recipe

    recipe = recipe_to_run(given, None, output)
    if column is not None and reference is None:
        raise InputError("--column: needs --reference, the file that contains the column")
    if recipe is None:
        return
    if reference is not None and not isinstance(recipe, Recipe):
        raise InputError(
            "--reference: needs a filtering recipe, whose pool contains the samples, got a "
            f"{type(recipe).__name__}"
        )
    not_ready = None
    try:
        if reference is None:
            from dfn_ray.doctor.doctor import doctor

            doctor(recipe, report=output.report)
        else:
            from dfn_ray.parity.parity import check_parity

            check_parity(recipe, reference, samples=samples, column=column, report=output.report)
    except NotReadyError as error:
        not_ready = error
    findings = list(map(finding_values, output.findings))
    output.finish({"ready": not_ready is None, "findings": findings})
    if not_ready is not None:
        raise not_ready


@click.command(
    "plan",
    short_help="Estimate time and cost of filtering a pool, from a pilot on a few shards.",
)
@takes_recipe()
@click.option(
    "--shards",
    type=int,
    default=8,
    show_default=True,
    help="Number of shards in the pilot; more shards narrow the intervals.",
)
@click.option(
    "--samples",
    type=int,
    default=2048,
    show_default=True,
    help="Number of samples in the pilot.",
)
@click.option(
    "--gpus",
    type=float,
    help="Largest number of GPUs to estimate for.  [default: those of scorers.max_size]",
)
@takes_json
def plan(given: GivenRecipe, shards: int, samples: int, gpus: float | None, output: Output) -> None:
    """Estimate how long filtering the pool of RECIPE takes and what it costs.

    Reads, decodes and scores a few shards on the cluster, and writes nothing.
    """
    from dfn_ray.config import Recipe

    recipe = recipe_to_run(given, Recipe, output)
    if recipe is None:
        return
    from dfn_ray.forecast.costs import cluster_forecast, options
    from dfn_ray.forecast.plan import most_scorers, plan
    from dfn_ray.on_ray.nodes import cluster_resources
    from dfn_ray.resolving.embedding_fingerprint import recipe_with_fixed_threads

    found = plan(recipe, shards=shards, samples=samples, gpus=gpus, say=output.say)
    recipe = recipe_with_fixed_threads(recipe)
    document = plan_values(
        found,
        cluster_forecast(recipe, found, cluster_resources()),
        options(recipe, found, most_scorers(recipe, gpus)),
        recipe.prices and recipe.prices.currency,
    )
    output.finish(document)


@click.command("submit", short_help="Run a verb over a recipe as a job on a Ray cluster.")
@click.argument("job_verb", type=click.Choice(list(RECIPE_KINDS)), metavar="VERB")
@takes_recipe(budget=True)
@click.option(
    "--address",
    required=True,
    metavar="URL",
    help="Address of the cluster's dashboard, such as http://HEAD:8265.",
)
@click.option(
    "--working-dir",
    metavar="FOLDER",
    help="Folder to send instead of the recipe alone, e.g. a clone whose code has changed.",
)
@click.option("--no-wait", is_flag=True, help="Exit once the job is submitted, without its log.")
def submit(
    given: GivenRecipe, job_verb: str, address: str, working_dir: str | None, no_wait: bool
) -> None:
    """Run 'dfn-ray VERB RECIPE' as a job on a Ray cluster, stream its log, exit with its exit code.

    VERB is filter, score, select, materialize, train, evaluate, pipeline, doctor or plan. Ctrl-C
    stops following the log; the job continues.
    """
    from dfn_ray import config
    from dfn_ray.cli.job import Job, command_line

    kind = RECIPE_KINDS[job_verb]
    recipe: Any = given.load(None if kind is None else getattr(config, kind))
    require_networks(recipe)
    job = Job(
        verb=job_verb,
        recipe=given.uri,
        run_uri=recipe.run_uri,
        overrides=given.overrides,
        working_dir=working_dir,
    )
    if given.dry_run:
        output = Output()
        output.say(json.dumps(config.recipe_values(recipe), indent=1))
        output.say(command_line(job, address, job.new_id()))
        return
    from dfn_ray.cli.submit import submit

    submit(job, address, follow=not no_wait, stream=sys.stdout)
