"""Verbs over a pool and its subset: filter, score, select, materialize, export, verify."""

from __future__ import annotations

import click

from dfn_ray.cli.documents import verified_values
from dfn_ray.cli.options import TARGET_URI, URI, takes_json, takes_recipe
from dfn_ray.cli.output import Output
from dfn_ray.cli.recipe_argument import GivenRecipe, recipe_to_run
from dfn_ray.errors import InputError, RecipeError


@click.command(
    "filter",
    short_help="Score a pool, select the best samples and write them as a subset; resumes.",
)
@takes_recipe(budget=True)
@takes_json
def filter_pool(given: GivenRecipe, output: Output) -> None:
    """Score the pool of RECIPE, select the best samples and write them as a subset.

    RECIPE is a TOML file or its URI. The same command resumes a run that was stopped.
    """
    from dfn_ray.config import Recipe

    recipe = recipe_to_run(given, Recipe, output)
    if recipe is None:
        return
    from dfn_ray.filtering.filter_pool import filter_pool
    from dfn_ray.filtering.selecting.selection_table import selection_table

    value = filter_pool(recipe)
    output.finish(value, selection_table(recipe.run_uri, value))


@click.command("score", short_help="Score a pool without writing a subset; resumes.")
@takes_recipe(budget=True)
def score(given: GivenRecipe) -> None:
    """Score the pool of RECIPE and store the scores; no images are copied.

    The same command resumes a run that was stopped. Use 'dfn-ray select' to select from the scores.
    """
    from dfn_ray.config import Recipe

    recipe = recipe_to_run(given, Recipe, Output())
    if recipe is None:
        return
    from dfn_ray.filtering.filter_pool import score

    score(recipe)


@click.command("select", short_help="Select from stored scores, without scoring again.")
@takes_recipe()
@takes_json
def select(given: GivenRecipe, output: Output) -> None:
    """Select from the stored scores of RECIPE's run by another rule, without scoring again.

    Example: dfn-ray select recipe.toml --set select.keep_fraction=0.3
    """
    from dfn_ray.config import Recipe

    recipe = recipe_to_run(given, Recipe, output)
    if recipe is None:
        return
    from dfn_ray.filtering.filter_pool import select
    from dfn_ray.filtering.selecting.selection_table import selection_table

    value = select(recipe)
    output.finish(value, selection_table(recipe.run_uri, value))


@click.command("materialize", short_help="Write the subset of a selection, or of a list of uids.")
@takes_recipe()
@click.option(
    "--uids",
    type=URI,
    metavar="URI",
    help="A sorted u8,u8 list (.npy) to take instead of the selection.",
)
@click.option(
    "--out",
    type=TARGET_URI,
    metavar="URI",
    help="Folder for the subset, as a run of its own; required with --uids.",
)
@takes_json
def materialize(given: GivenRecipe, uids: str | None, out: str | None, output: Output) -> None:
    """Write the subset that RECIPE's selection keeps, from a scored run and its pool.

    With --uids no scores are needed: the samples of the list are copied from the pool.
    """
    from dfn_ray.config import Recipe

    recipe = recipe_to_run(given, Recipe, output, uid_list=uids, out_uri=out)
    if recipe is None:
        return
    from dfn_ray.filtering.filter_pool import materialize
    from dfn_ray.filtering.selecting.selection_table import selection_table
    from dfn_ray.filtering.subset.uid_list_subset import materialize_listed

    if uids is None:
        value = materialize(recipe, out_uri=out)
    elif out is None:
        raise RecipeError(["--uids: needs --out, the run folder of the subset"])
    else:
        value = materialize_listed(
            recipe.pool, uids, out, decode=recipe.decode, execution=recipe.execution
        )
    output.finish(value, selection_table(out or recipe.run_uri, value))


@click.command(
    "export",
    short_help="Export a finished subset for other trainers, or a network for transformers.",
)
@click.argument("run_uri", type=URI)
@click.argument("out_uri", type=TARGET_URI)
@click.option(
    "--network",
    is_flag=True,
    help="Export the network of a training run in the layout of transformers (CLIPModel, "
    "SiglipModel). RUN_URI may also be a folder with a network, local-dir:PATH or "
    "hf-hub:ORG/REPO.",
)
@click.option(
    "--shard-samples",
    type=int,
    help="Number of samples per tar; 10,000 by default.",
)
@takes_json
def export(
    run_uri: str, out_uri: str, network: bool, shard_samples: int | None, output: Output
) -> None:
    """Export the subset of a finished run, or the network of a training run.

    OUT_URI decides the format of a subset: a name that ends in .npy gives DataComp's list of uids,
    a folder gives WebDataset tars.
    """
    places = {"run_uri": run_uri, "out_uri": out_uri}
    if network:
        from dfn_ray.training.export_network import export_network

        notes = export_network(run_uri, out_uri)
        lines = [f"note: {note}" for note in notes]
        lines.append(f"wrote the network in transformers' layout to {out_uri}")
        output.finish({**places, "notes": notes}, "\n".join(lines))
        return
    from dfn_ray.interactive import exports

    written = "uids" if exports.is_uid_list(out_uri) else "tars"
    count = exports.export(run_uri, out_uri, shard_samples=shard_samples)
    output.finish({**places, written: count}, f"{count:,} {written} in {out_uri}")


@click.command("verify", short_help="Check a finished run against what is on storage.")
@click.argument("run_uri", type=URI)
@click.option(
    "--full",
    is_flag=True,
    help="Compare the bytes of all kept samples with the pool, and check every file against its "
    "digest.",
)
@click.option(
    "--rescore",
    type=int,
    default=0,
    metavar="N",
    help="Score N random chunks again and compare.",
)
@takes_json
def verify(run_uri: str, full: bool, rescore: int, output: Output) -> None:
    """Check that a finished run is complete, exact and unaltered, from its files and its pool.

    Prints a line for each check that passes, and exits with code 1 at the first that fails.
    """
    from dfn_ray.filtering.verifying.verify import verify_run

    if rescore < 0:
        raise InputError(f"--rescore: need a number of chunks >= 0, got {rescore}")
    counts = verify_run(run_uri, full=full, rescore_chunks=rescore, say=output.say)
    output.finish(verified_values(run_uri, counts, rescore), f"{run_uri}: all checks passed")
