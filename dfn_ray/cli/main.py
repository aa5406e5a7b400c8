"""`dfn-ray VERB`: parse, load the recipe, call one function, map errors to exit codes.

Exit codes: 0 done, 1 failed, 2 wrong input. Verbs load Ray and torch only when they work.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from dfn_ray import __version__
from dfn_ray.config import (
    EvaluateRecipe,
    PipelineRecipe,
    Pool,
    Recipe,
    TrainRecipe,
    load_recipe,
    parse_recipe,
    recipe_from,
    recipe_kind,
    recipe_values,
)
from dfn_ray.console.printable import print_in_any_encoding, printable, printable_line
from dfn_ray.errors import DfnRayError, InputError, RecipeError
from dfn_ray.filtering.selecting.selection_table import selection_table
from dfn_ray.on_ray.ray_address import check_ray_reachable
from dfn_ray.storage import Store, is_local
from dfn_ray.uris import require_valid_uri, uri_argument

DEMO = "demo"
"""In the place of a recipe: the one that ships with the package."""
Verb = Callable[[argparse.Namespace], None]
R = TypeVar("R")
RECIPES: Mapping[str, type[Any] | None] = {
    "filter": Recipe,
    "score": Recipe,
    "select": Recipe,
    "materialize": Recipe,
    "doctor": None,
    "plan": Recipe,
    "train": TrainRecipe,
    "evaluate": EvaluateRecipe,
    "run": PipelineRecipe,
}
"""The kind of recipe that a verb takes; None: any."""
_URIS = ("recipe", "run_uri", "pool_uri", "uids", "groups", "reference")
"""Options that are paths or URIs."""
_TARGETS = ("out_uri", "out", "picture")
"""Those that are written to."""
ON_RAY = frozenset(RECIPES) - {"select", "doctor", "plan"}
"""Verbs over a recipe that write by Ray: they ask whether there is one before they do."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # `ray job stop`, Kubernetes and spot machines end a driver so: it stops as by Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    print_in_any_encoding()
    options = _parser().parse_args(arguments)
    try:
        _require_flawless_uris(options)
        options.verb(options)
    except DfnRayError as error:
        _say(f"dfn-ray {options.name}: {error}", sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        _say(
            "dfn-ray: stopped; what is committed stays, the same command goes on from there",
            sys.stderr,
        )
        return 1
    return 0


def _require_flawless_uris(options: argparse.Namespace) -> None:
    for name in (*_URIS, *_TARGETS):
        given = getattr(options, name, None)
        for uri in [given] if isinstance(given, str) else given or ():
            require_valid_uri(uri, name, is_target=name in _TARGETS)


_Verbs = Any
"""What `add_subparsers` returns: argparse names no public type for it."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="dfn-ray",
        description="Score an image-text pool with a data filtering network and keep exactly the best.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="name", required=True, metavar="VERB")
    _add_demo(verbs)
    _add_recipe_verbs(verbs)
    _add_submit(verbs)
    _add_planning(verbs)
    _add_run_verbs(verbs)
    _add_inspect(verbs)
    return parser


def _add_demo(verbs: _Verbs) -> None:
    demo = verbs.add_parser(
        "demo", help="the whole job on a real embedded pool, minutes on a laptop"
    )
    demo.add_argument(
        "--out", type=_uri, default="runs/demo", help="run folder (default: %(default)s)"
    )
    demo.set_defaults(verb=_demo)


def _add_recipe_verbs(verbs: _Verbs) -> None:
    for name, verb, text in (
        ("filter", _filter, "pool -> subset: score, select, write; resumes"),
        ("score", _score, "score the pool, move no images"),
        ("select", _select, "select from stored scores, without scoring"),
    ):
        parser_of = _with_recipe(verbs.add_parser(name, help=text))
        parser_of.set_defaults(verb=verb)
        if verb is not _select:
            _with_budget(parser_of)

    materialize = _with_recipe(
        verbs.add_parser("materialize", help="write the subset of a selection or of a uid list")
    )
    materialize.add_argument(
        "--uids", type=_uri, help="a sorted u8,u8 list (.npy) instead of the selection"
    )
    materialize.add_argument("--out", type=_uri, help="folder for the subset; needed with --uids")
    materialize.set_defaults(verb=_materialize)

    for name, verb, text in (
        ("train", _train, "CLIP, or a filtering network, on subsets and pools; resumes"),
        ("evaluate", _evaluate, "zero-shot classification and retrieval; skips what is done"),
        ("run", _run, "the whole story: DFN, filter, train, evaluate, compare; resumes"),
    ):
        _with_recipe(verbs.add_parser(name, help=text)).set_defaults(verb=verb)


def _add_submit(verbs: _Verbs) -> None:
    submit = verbs.add_parser("submit", help="a verb over a recipe as a job on a Ray cluster")
    submit.add_argument("job_verb", choices=RECIPES, metavar="VERB", help=", ".join(RECIPES))
    _with_recipe(submit)
    _with_budget(submit)
    submit.add_argument(
        "--address", required=True, help="of the cluster's dashboard, as http://HEAD:8265"
    )
    submit.add_argument(
        "--working-dir",
        help="folder to send instead of the recipe alone, e.g. a clone whose code has changed",
    )
    submit.add_argument(
        "--no-wait", action="store_true", help="do not follow the log; exit once it is submitted"
    )
    submit.set_defaults(verb=_submit)


def _add_planning(verbs: _Verbs) -> None:
    doctor = verbs.add_parser("doctor", help="is everything ready for a recipe, of any verb?")
    _with_recipe(doctor).set_defaults(verb=_doctor)
    doctor.add_argument(
        "--reference",
        type=_uri,
        help="Parquet or npz with uid and a column of scores: compare with them, without a cluster, instead",
    )
    doctor.add_argument(
        "--samples", type=int, default=256, help="compared with --reference (default: %(default)s)"
    )
    doctor.add_argument("--column", help="of --reference (default: guessed)")

    plan = verbs.add_parser("plan", help="how long and how much filtering takes, from a pilot")
    _with_recipe(plan).set_defaults(verb=_plan)
    plan.add_argument(
        "--shards",
        type=int,
        default=8,
        help="of the pilot; more narrow its intervals (default: %(default)s)",
    )
    plan.add_argument(
        "--samples", type=int, default=2048, help="of the pilot (default: %(default)s)"
    )
    plan.add_argument("--gpus", type=float, help="up to how many (default: scorers.max_size)")


def _add_run_verbs(verbs: _Verbs) -> None:
    export = verbs.add_parser(
        "export", help="a finished subset for other trainers, or a network for transformers"
    )
    export.add_argument("run_uri", type=_uri, help="a run; with --network, or any network's folder")
    export.add_argument(
        "out_uri", type=_uri, help="a .npy file, or a folder for WebDataset tars or the network"
    )
    export.add_argument(
        "--network",
        action="store_true",
        help="write the network of a training run in the layout of transformers (CLIPModel, SiglipModel); also of a "
        "folder, local-dir:PATH or hf-hub:ORG/REPO",
    )
    export.add_argument(
        "--shard-samples", type=int, default=10_000, help="samples per tar (default: %(default)s)"
    )
    export.set_defaults(verb=_export)

    compare = verbs.add_parser("compare", help="filters of one pool side by side")
    compare.add_argument(
        "run_uri", type=_uri, nargs="+", help="filtering runs, or runs of dfn-ray run"
    )
    compare.add_argument(
        "--keep-fraction", type=float, help="at which to compare (default: the first run's)"
    )
    compare.add_argument(
        "--groups", type=_uri, help="Parquet file: uid and subgroup, for keep rates"
    )
    compare.add_argument("--picture", type=_uri, help="PNG file to draw")
    compare.set_defaults(verb=_compare)

    verify = verbs.add_parser("verify", help="prove a finished run from storage")
    verify.add_argument("run_uri", type=_uri)
    verify.add_argument("--full", action="store_true", help="compare the bytes of all kept samples")
    verify.add_argument(
        "--rescore",
        type=int,
        default=0,
        metavar="N",
        help="score N random chunks again and compare",
    )
    verify.set_defaults(verb=_verify)


def _add_inspect(verbs: _Verbs) -> None:
    inspect = verbs.add_parser("inspect", help="what is in a pool, and what is broken")
    inspect.add_argument("pool_uri", type=_uri, nargs="+")
    inspect.add_argument(
        "--shards", type=int, default=8, help="shards looked into (default: %(default)s)"
    )
    inspect.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="key=value",
        help="a setting of [pool]: caption=label, format=folder, image_column=photo",
    )
    inspect.set_defaults(verb=_inspect)


def _with_recipe(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    parser.add_argument("recipe", type=_uri, help="the recipe, a TOML file or its URI")
    parser.add_argument(
        "--set", action="append", default=[], metavar="section.key=value", help="override a setting"
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved recipe, look at everything that it names, start nothing",
    )
    return parser


def _with_budget(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--budget",
        help="stop scoring, resumable, once so much is spent by [prices] (12.50) or so long scored (2h)",
    )


def _filter(options: argparse.Namespace) -> None:
    recipe = _recipe(options, Recipe)
    if recipe is not None:
        from dfn_ray.filtering.filter_pool import filter_pool

        _say(selection_table(recipe.run_uri, filter_pool(recipe)))


def _score(options: argparse.Namespace) -> None:
    recipe = _recipe(options, Recipe)
    if recipe is not None:
        from dfn_ray.filtering.filter_pool import score

        score(recipe)


def _select(options: argparse.Namespace) -> None:
    recipe = _recipe(options, Recipe)
    if recipe is not None:
        from dfn_ray.filtering.filter_pool import select

        _say(selection_table(recipe.run_uri, select(recipe)))


def _materialize(options: argparse.Namespace) -> None:
    recipe = _recipe(options, Recipe)
    if recipe is None:
        return
    from dfn_ray.filtering.filter_pool import materialize
    from dfn_ray.filtering.subset.reshard import materialize_listed

    if options.uids is None:
        value = materialize(recipe, out_uri=options.out)
    elif options.out is None:
        raise RecipeError(["--uids: needs --out, the run folder of the subset"])
    else:
        value = materialize_listed(
            recipe.pool,
            options.uids,
            options.out,
            decode=recipe.decode,
            execution=recipe.execution,
        )
    _say(selection_table(options.out or recipe.run_uri, value))


def _train(options: argparse.Namespace) -> None:
    recipe = _recipe(options, TrainRecipe)
    if recipe is not None:
        from dfn_ray.training.result import result_lines
        from dfn_ray.training.train_clip import train

        _say("\n".join(result_lines(train(recipe))))


def _run(options: argparse.Namespace) -> None:
    recipe = _recipe(options, PipelineRecipe)
    if recipe is not None:
        from dfn_ray.pipeline.pipeline import run_pipeline

        run_pipeline(recipe, say=_say)


def _evaluate(options: argparse.Namespace) -> None:
    recipe = _recipe(options, EvaluateRecipe)
    if recipe is not None:
        from dfn_ray.evaluation.evaluate import evaluate_sets
        from dfn_ray.evaluation.results import results_table

        evaluation = evaluate_sets(recipe)
        _say(results_table(evaluation.results, evaluation.groups))


def _submit(options: argparse.Namespace) -> None:
    from dfn_ray.cli.submit import Job, command_line, submit

    def job(recipe: Any) -> Job:
        return Job(
            verb=options.job_verb,
            recipe=options.recipe,
            run_uri=recipe.run_uri,
            overrides=(*options.set, *_budget(options)),
            working_dir=options.working_dir,
        )

    recipe = _load(options, RECIPES[options.job_verb])
    _require_networks(options, recipe)
    if options.dry_run:
        planned = job(recipe)
        _say(json.dumps(recipe_values(recipe), indent=1))
        _say(command_line(planned, options.address, planned.new_id()))
    else:
        submit(job(recipe), options.address, follow=not options.no_wait, stream=sys.stdout)


def _doctor(options: argparse.Namespace) -> None:
    recipe = _recipe(options, None)
    if options.column is not None and options.reference is None:
        raise InputError("--column: is that of a file of scores; name it by --reference")
    if recipe is None:
        return
    if options.reference is None:
        from dfn_ray.doctor.doctor import doctor

        doctor(recipe, say=_say)
    elif isinstance(recipe, Recipe):
        from dfn_ray.parity.parity import check_parity

        check_parity(
            recipe, options.reference, samples=options.samples, column=options.column, say=_say
        )
    else:
        raise InputError("--reference: needs a recipe of filtering, whose pool it is about")


def _plan(options: argparse.Namespace) -> None:
    recipe = _recipe(options, Recipe)
    if recipe is not None:
        from dfn_ray.forecast.plan import plan

        plan(recipe, shards=options.shards, samples=options.samples, gpus=options.gpus, say=_say)


def _export(options: argparse.Namespace) -> None:
    if options.network:
        _export_network(options)
        return
    from dfn_ray.filtering.subset.export_subset import export_uids, export_webdataset

    if options.out_uri.endswith(".npy"):
        _say(f"{export_uids(options.run_uri, options.out_uri):,} uids in {options.out_uri}")
    else:
        check_ray_reachable()
        shards = export_webdataset(
            options.run_uri, options.out_uri, shard_samples=options.shard_samples
        )
        _say(f"{shards:,} tars in {options.out_uri}")


def _export_network(options: argparse.Namespace) -> None:
    from dfn_ray.training.export_network import export_network

    for note in export_network(options.run_uri, options.out_uri):
        _say(f"note: {note}")
    _say(f"the network in transformers' layout in {options.out_uri}")


def _compare(options: argparse.Namespace) -> None:
    from dfn_ray.report.compare import compare_runs
    from dfn_ray.report.comparison_report import comparison_lines, draw_comparison

    found = compare_runs(
        options.run_uri, keep_fraction=options.keep_fraction, groups_uri=options.groups
    )
    _say(comparison_lines(found))
    if options.picture is not None:
        folder, _, name = options.picture.rpartition("/")
        Store(folder or ".").write(name, draw_comparison(found))


def _verify(options: argparse.Namespace) -> None:
    from dfn_ray.filtering.verifying.verify import verify_run

    if options.rescore < 0:
        raise InputError(f"--rescore: need a number of chunks >= 0, got {options.rescore}")
    verify_run(options.run_uri, full=options.full, rescore_chunks=options.rescore, say=_say)
    _say(f"{options.run_uri}: every promise holds")


def _inspect(options: argparse.Namespace) -> None:
    from dfn_ray.pool import inspect_pool

    pool = recipe_from({"uri": options.pool_uri}, options.set, Pool)
    report = inspect_pool(pool, shards=options.shards)
    _say("\n".join(printable_line(line) for line in report.lines()))


def _uri(text: str) -> str:
    """A path or URI of the command line, without secrets."""
    try:
        return uri_argument(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _demo(options: argparse.Namespace) -> None:
    if not is_local(options.out):
        raise InputError(f"--out: need a folder of this machine, got {options.out}")
    check_ray_reachable()
    from dfn_ray.demo.run import run_demo

    run_demo(Path(options.out), say=_say)


def _recipe(options: argparse.Namespace, kind: type[R] | None) -> R | Any | None:
    """The recipe to work on; None after a dry run, which printed it, and what was found of all that it names."""
    recipe: Any = _load(options, kind)
    _require_networks(options, recipe)
    if not options.dry_run:
        if options.name in ON_RAY:
            check_ray_reachable()
        return recipe
    from dfn_ray.dry_run.recipes import dry_run

    _say(json.dumps(recipe_values(recipe), indent=1))
    places = {"uid_list": getattr(options, "uids", None), "out_uri": getattr(options, "out", None)}
    dry_run(options.name, recipe, say=_say, **places)
    return None


def _require_networks(options: argparse.Namespace, recipe: Any) -> None:
    if isinstance(recipe, Recipe) and getattr(options, "uids", None) is None:
        recipe.require_networks()


def _load(options: argparse.Namespace, kind: type[R] | None) -> R | Any:
    """The recipe of a file, of a URI, or the one that ships with the package."""
    overrides = [*options.set, *_budget(options)]
    is_story = kind in (PipelineRecipe, None)
    if is_story and options.recipe == DEMO and not Path(DEMO).exists():
        from dfn_ray.demo.story import story_values

        return recipe_from(story_values(), overrides, PipelineRecipe)
    if "://" in options.recipe:
        folder, _, name = options.recipe.rpartition("/")
        text = Store(folder).read(name)
        return parse_recipe(text, overrides, kind or recipe_kind(text), source=options.recipe)
    if kind is None and (path := Path(options.recipe)).is_file():
        kind = recipe_kind(path.read_bytes())
    return load_recipe(options.recipe, overrides, kind or Recipe)


def _budget(options: argparse.Namespace) -> list[str]:
    """`--budget` as the setting it stands for: hours with an h, else money."""
    budget: str | None = getattr(options, "budget", None)
    if budget is None:
        return []
    number = budget.removesuffix("h")
    try:
        float(number)
    except ValueError:
        need = "an amount of money by [prices], as 12.50, or hours, as 2h or 0.5h"
        raise RecipeError([f"--budget: need {need}, got {budget}"]) from None
    return [f"prices.budget={number}" if number == budget else f"execution.max_hours={number}"]


def _say(text: str, stream: Any = None) -> None:
    (stream or sys.stdout).write(f"{printable(text)}\n")
