"""Checks of everything that each kind of recipe names, before anything starts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from dfn_ray.config import (
    EvaluateRecipe,
    EvaluationSet,
    Network,
    PipelineRecipe,
    Pool,
    Recipe,
    TrainRecipe,
)
from dfn_ray.console.tables import size, table
from dfn_ray.dry_run.finding import Finding, run_check
from dfn_ray.dry_run.network_files import network_finding
from dfn_ray.dry_run.shard_faults import BadShardLimit, execution_limit, listing_finding
from dfn_ray.errors import DfnRayError, InputError
from dfn_ray.evaluation.sets import LocatedSet, classes_of, locate, refuse_run_in_sets
from dfn_ray.filtering.preflight import refuse_before
from dfn_ray.pool import Shard, list_pool, listing_notes, require_outside_pool
from dfn_ray.resolving.prompts import class_names, prompt_templates
from dfn_ray.storage import open_uri, stat
from dfn_ray.uids.file_layout import uid_file_layout

AnyRecipe = Recipe | TrainRecipe | EvaluateRecipe | PipelineRecipe


def dry_run(
    verb: str,
    recipe: AnyRecipe,
    *,
    uid_list: str | None,
    out_uri: str | None,
    report: Callable[[Finding], None],
) -> None:
    """Reports one line per thing that a verb needs from a recipe.

    Raises InputError with all mistakes at the end, StorageError if a store still fails after
    retries.
    """
    errors: list[DfnRayError] = []
    for finding in recipe_findings(verb, recipe, uid_list=uid_list, out_uri=out_uri):
        report(finding)
        if finding.error is not None:
            errors.append(finding.error)
    failed = next((error for error in errors if error.exit_code == 1), None)
    if failed is not None or len(errors) == 1:
        raise failed or errors[0]
    if errors:
        raise InputError(
            f"{len(errors)} things to change:\n" + "\n".join(f"  {error}" for error in errors)
        )


def figures(recipe: AnyRecipe) -> str:
    """A table of the sizes that a recipe asks for, by itself."""
    return table(_figures(recipe))


def _figures(recipe: AnyRecipe) -> list[tuple[str, int | str]]:
    """Figures that follow from the recipe alone, as table rows."""
    rows: list[tuple[str, int | str]] = [("run", recipe.run_uri)]
    if isinstance(recipe, PipelineRecipe):
        return [
            *rows,
            ("arms", ", ".join(recipe.arms)),
            ("seeds", ", ".join(map(str, recipe.seeds))),
        ]
    if isinstance(recipe, TrainRecipe):
        workers = recipe.workers
        return [
            *rows,
            ("samples seen", recipe.samples_seen),
            ("steps", recipe.samples_seen // recipe.batch_size),
            ("workers", f"{workers.min_size} to {workers.max_size} on {workers.device}"),
        ]
    scorers = recipe.scorers
    return [*rows, ("scorers", f"{scorers.min_size} to {scorers.max_size} on {scorers.device}")]


def recipe_findings(
    verb: str, recipe: AnyRecipe, *, uid_list: str | None = None, out_uri: str | None = None
) -> Iterator[Finding]:
    """Yields a finding for each thing that a verb needs, as soon as it is known.

    Bad findings do not end the checks.
    """
    if isinstance(recipe, TrainRecipe):
        return _training(recipe, "")
    if isinstance(recipe, EvaluateRecipe):
        return _evaluation(recipe)
    if isinstance(recipe, PipelineRecipe):
        return _pipeline(recipe)
    return _filtering(verb, recipe, uid_list, out_uri)


def _filtering(
    verb: str, recipe: Recipe, uid_list: str | None, out_uri: str | None
) -> Iterator[Finding]:
    shards: list[Shard] = []
    limit = execution_limit(recipe) if uid_list is None else None  # copying a uid list has no limit
    yield from _pool("pool", recipe.pool, shards, limit=limit)
    if uid_list is not None:
        # The destination, no run of a recipe, is checked after the list is read.
        yield run_check("uid list", lambda: _uid_list(uid_list, "--uids"))
        return
    for number, network in enumerate(recipe.networks):
        yield network_finding(network, f"networks.{number}")
    if shards:
        yield run_check("run", lambda: _run(verb, recipe, shards, out_uri))


def _run(verb: str, recipe: Recipe, shards: Sequence[Shard], out_uri: str | None) -> str:
    # The doctor and `plan` check for `filter`.
    refuse_before("filter" if verb in ("doctor", "plan") else verb, recipe, shards, out_uri)
    return f"{out_uri or recipe.run_uri} does not belong to another run"


def _training(recipe: TrainRecipe, prefix: str, *, sources: bool = True) -> Iterator[Finding]:
    """Yields findings on a training recipe.

    `prefix` locates its settings in a pipeline recipe (`dfn.`), where an earlier stage may provide
    the sources.
    """
    limit = BadShardLimit(f"{prefix}max_bad_shard_fraction", recipe.max_bad_shard_fraction)
    for number, source in enumerate(recipe.sources if sources else ()):
        setting = f"{prefix}sources.{number}"
        shards: list[Shard] = []
        yield from _pool(
            f"source {source.name}", source.pool, shards, limit=limit, run_uri=recipe.run_uri
        )
        if (uids := source.uid_list) is not None:
            yield run_check(
                "uid list", lambda uids=uids, at=setting: _uid_list(uids, f"{at}.uid_list")
            )
        if (labels := source.labels) is not None:
            yield run_check(
                "classes", lambda labels=labels: _classes(labels.classnames, labels.templates)
            )
    yield network_finding(recipe.model, f"{prefix}model")


def _evaluation(recipe: EvaluateRecipe) -> Iterator[Finding]:
    yield from _sets(recipe.sets, recipe.run_uri)
    yield network_finding(recipe.network, "network")


def _sets(sets: Sequence[EvaluationSet], run_uri: str) -> Iterator[Finding]:
    for spec in sets:
        located: list[LocatedSet] = []
        yield run_check(f"set {spec.name}", _location_check(spec, run_uri, located))
        for item in located:
            yield from (Finding(f"set {spec.name}", note) for note in item.notes)
            if spec.task == "zeroshot_classification":
                yield run_check("classes", lambda item=item: _class_counts(*classes_of(item)))


def _location_check(
    spec: EvaluationSet, run_uri: str, located: list[LocatedSet]
) -> Callable[[], str]:
    """A check that finds a set's shards and appends the set to `located`."""

    def check() -> str:
        item = locate(spec)
        refuse_run_in_sets(run_uri, [item])
        located.append(item)
        return f"{spec.task}, {len(item.shards):,} shards, {item.size_bytes:,} bytes"

    return check


def _pipeline(recipe: PipelineRecipe) -> Iterator[Finding]:
    """Yields findings on what the stages need and no earlier stage produces."""
    shards: list[Shard] = []
    trained = Network(model=f"local-dir:{recipe.uri('dfn', 'network')}")
    filtering = recipe.filter_recipe(None if recipe.dfn is None else trained)
    limit = execution_limit(filtering, "filter.")
    yield from _pool("pool", recipe.pool, shards, limit=limit, run_uri=recipe.run_uri)
    if recipe.dfn is not None:
        yield from _training(recipe.dfn_recipe(), "dfn.")
    else:
        for number, network in enumerate(filtering.networks):
            yield network_finding(network, f"filter.networks.{number}")
    training = recipe.train_recipe("dfn", recipe.seeds[0], {"pool": {"uri": "subset"}})
    yield from _training(training, "train.", sources=False)
    evaluation = recipe.evaluate_recipe("dfn", recipe.seeds[0], training.model)
    yield from _sets(evaluation.sets, recipe.run_uri)


def _pool(
    name: str,
    pool: Pool,
    listed: list[Shard],
    *,
    limit: BadShardLimit | None,
    run_uri: str | None = None,
) -> Iterator[Finding]:
    """Yields findings on a pool's listing and adds its shards to `listed`.

    The pool must not include files that the run writes to `run_uri`.
    """
    notes: list[str] = []

    def check() -> str:
        listing = list_pool(pool)
        if run_uri is not None:
            require_outside_pool(pool, run_uri, setting="run_uri", shards=listing.shards)
        listed.extend(listing.shards)
        notes.extend(listing_notes(listing))
        return f"{len(listed):,} shards, {sum(shard.size_bytes for shard in listed):,} bytes"

    finding = run_check(name, check)
    yield listing_finding(name, finding.text, listed, limit) if finding.ok else finding
    yield from (Finding(name, note) for note in notes)


def _uid_list(uri: str, setting: str) -> str:
    """A uid list by its first bytes and its size; its order is checked when it is read."""
    file = stat(uri)
    if file is None:
        raise InputError(f"{setting}: {uri}: need a uid list, found a folder")
    with open_uri(uri, in_order=False) as opened:
        layout = uid_file_layout(opened, file.size_bytes, uri)
    return f"{uri}, {layout.count:,} uids, {size(file.size_bytes)}"


def _classes(names: Sequence[str], templates: Sequence[str]) -> str:
    return _class_counts(class_names(names), prompt_templates(templates))


def _class_counts(names: Sequence[str], templates: Sequence[str]) -> str:
    return f"{len(names):,} class names, {len(templates):,} templates"
