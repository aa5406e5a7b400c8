"""Evaluation of a network on the sets of a recipe, one after the other, each read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from ray import ObjectRef

from dfn_ray.config import EvaluateRecipe, Rules, recipe_values
from dfn_ray.console.progress import Progress
from dfn_ray.errors import ErrorLimitExceededError, InputError
from dfn_ray.evaluation import chain
from dfn_ray.evaluation.datacomp import GroupAverage, group_averages
from dfn_ray.evaluation.embedder import with_captions, with_labels
from dfn_ray.evaluation.gather import Gathered, gather
from dfn_ray.evaluation.metrics import Metrics, classification_metrics, retrieval_metrics
from dfn_ray.evaluation.results import Results, SetResult
from dfn_ray.evaluation.sets import Classes, LocatedSet, classes_of, locate, refuse_run_in_sets
from dfn_ray.evaluation.zero_shot import classifier_cells, classifiers
from dfn_ray.network.packed import PackedNetwork
from dfn_ray.on_ray.capacity import reporting_missing_capacity, scoring_requirements
from dfn_ray.on_ray.ray_address import check_ray_reachable
from dfn_ray.on_ray.session import connect, put_networks
from dfn_ray.pool import listing_table
from dfn_ray.pool.error_limits import ErrorLimits, by_reason, failures, first_fault, rejections
from dfn_ray.preparing.prepare import Preparation
from dfn_ray.resolving.embedding_fingerprint import (
    decode_fingerprint,
    forward_fingerprint,
    pool_fingerprint,
    reading_versions,
    recipe_with_fixed_threads,
)
from dfn_ray.resolving.fetch_networks import fetch_network
from dfn_ray.run import fingerprint_digest, listing_digest
from dfn_ray.schema import ShardFault


@dataclass(frozen=True)
class _Job:
    """A set to be evaluated, with the fingerprint of everything that affects its result."""

    located: LocatedSet
    classes: Classes
    """Names and templates; both empty for retrieval."""
    fingerprint: str


@dataclass(frozen=True)
class Evaluation:
    """The results of an evaluation."""

    results: tuple[SetResult, ...]
    """Results of the recipe's sets, in its order."""
    groups: Mapping[str, GroupAverage]
    """DataComp's groups over all of the network's results in the run."""


def evaluate_sets(recipe: EvaluateRecipe) -> Evaluation:
    """Evaluates the recipe's sets that have no result of this network yet, and stores the results.

    Images that fail count neither as right nor as wrong; the result contains their number. Raises
    InputError before anything starts if network, sets or class names are invalid;
    ErrorLimitExceededError if a set has a bad shard or more failed images than the recipe allows.
    The results of earlier sets are stored even then.
    """
    check_ray_reachable()
    recipe = recipe_with_fixed_threads(recipe)
    located = [locate(item) for item in recipe.sets]
    refuse_run_in_sets(recipe.run_uri, located)
    network = fetch_network(recipe.network)
    jobs = [_job(item, network, recipe) for item in located]
    results = Results(
        run_uri=recipe.run_uri,
        spec=recipe.network,
        network=fingerprint_digest(network.fingerprint()),
        recipe=recipe_values(recipe),
    )
    done = {job.fingerprint: found for job in jobs if (found := _stored(results, job, recipe))}
    todo = [job for job in jobs if job.fingerprint not in done]
    progress = Progress(sum(job.located.size_bytes for job in todo), stage="evaluating")
    try:
        progress.say(f"{recipe.run_uri}: {len(jobs)} sets, {len(done)} of them already evaluated")
        for note in (note for item in located for note in item.notes):
            progress.say(note)
        if todo:
            connect()
            results = results.take_over()
            shared = put_networks([network])
            of_classes = _classifiers(todo, recipe, shared, progress)
            for job in todo:
                if results.read(job.located.spec) is not None:
                    progress.say(
                        f"{job.located.spec.name}: evaluating again: the stored result is of "
                        "another network or recipe"
                    )
                gathered = _embed(job, recipe, network, shared, progress)
                check_gathered(job.located, gathered, recipe, progress)
                result = _result(job, gathered, of_classes.get(job.classes), results.network)
                results.write(job.located.spec, result)
                done[job.fingerprint] = result
    finally:
        stored = results.write_lines() if done else ()
        progress.close()
    groups = group_averages({result.key: result.main_metric[1] for result in stored})
    return Evaluation(tuple(done[job.fingerprint] for job in jobs), groups)


def _job(located: LocatedSet, network: PackedNetwork, recipe: EvaluateRecipe) -> _Job:
    """The set with its class names read, and its fingerprint."""
    classes = classes_of(located)
    fingerprint: dict[str, Any] = {
        "network": network.fingerprint(),
        "set": [located.spec.name, located.spec.task, located.spec.language],
        "classes": [list(part) for part in classes],
        "pool": pool_fingerprint(located.pool),
        "versions": reading_versions(located.pool, located.shards),
        "bytes": sum(shard.size_bytes for shard in located.shards),
        "listing": listing_digest(listing_table(located.shards)),
        "decode": decode_fingerprint(recipe.decode),
        "scorers": forward_fingerprint(recipe.scorers),
    }
    return _Job(located, classes, fingerprint_digest(fingerprint))


def _stored(results: Results, job: _Job, recipe: EvaluateRecipe) -> SetResult | None:
    """The stored result with the same fingerprint, if it is within this recipe's limits."""
    found = results.read(job.located.spec)
    if found is None or found.fingerprint != job.fingerprint:
        return None
    return None if _exceeds(found.failed, found.images, recipe) else found


def _classifiers(
    jobs: list[_Job], recipe: EvaluateRecipe, network: ObjectRef, progress: Progress
) -> dict[Classes, np.ndarray]:
    """Class embeddings of all sets, in one pass; sets with equal names and templates share them."""
    classes = list(dict.fromkeys(job.classes for job in jobs if job.classes[0]))
    if not classes:
        return {}
    prompts = sum(len(names) * len(templates) for names, templates in classes)
    progress.say(f"embedding {prompts:,} prompts")
    embedded = chain.embed_cells(classifier_cells(classes), network=network, recipe=recipe)
    with reporting_missing_capacity(
        scoring_requirements(recipe.decode, recipe.scorers), progress.say
    ):
        return classifiers(classes, embedded)


def _embed(
    job: _Job,
    recipe: EvaluateRecipe,
    network: PackedNetwork,
    shared: ObjectRef,
    progress: Progress,
) -> Gathered:
    """The embeddings of a set's images and captions, on the driver."""
    preparation = Preparation(Rules(), recipe.decode, (network.transform,), ())
    labelled = job.located.spec.task == "zeroshot_classification"
    cells = chain.embed_set(
        job.located,
        prepare=partial(with_labels if labelled else with_captions, preparation=preparation),
        network=shared,
        recipe=recipe,
    )
    with reporting_missing_capacity(
        scoring_requirements(recipe.decode, recipe.scorers), progress.say
    ):
        return gather(cells, progress)


def check_gathered(
    located: LocatedSet, gathered: Gathered, recipe: EvaluateRecipe, progress: Progress
) -> None:
    """Reports failures. Raises ErrorLimitExceededError if the set is too incomplete."""
    name = located.spec.name
    # A class folder without images is a class without samples; an empty tar is a broken one.
    allowed = ShardFault.EMPTY if located.pool.format == "folder" else None
    where = f"sets.{name}: "
    bad = {shard: why for shard, why in gathered.faults.items() if why[0] is not allowed}
    if bad:
        raise ErrorLimitExceededError(
            f"{where}{len(bad):,} of {len(located.shards):,} shards are bad, e.g. "
            f"{first_fault(bad)}; the set is incomplete. Restore the shards, or remove the set"
        )
    for shard, (fault, detail) in gathered.faults.items():
        progress.say(f"warning: {name}: {shard}: {fault}: {detail}")
    if gathered.notes:
        progress.say(f"{name}: {by_reason(gathered.notes)}")
    limits = ErrorLimits(max_failed_fraction=recipe.max_failed_fraction, max_bad_shard_fraction=0)
    limits.check_samples(gathered.counts, where=where, what="images")
    if failed := failures(gathered.counts):
        progress.say(
            f"warning: {name}: {sum(failed.values()):,} of {sum(gathered.counts.values()):,} "
            f"images failed and are excluded from the metrics ({by_reason(failed)})"
        )


def _result(job: _Job, gathered: Gathered, class_CD: np.ndarray | None, network: str) -> SetResult:
    spec = job.located.spec
    return SetResult(
        dataset=spec.name,
        task=spec.task,
        language=spec.language,
        metrics=_metrics(spec.name, gathered, class_CD),
        images=len(gathered.image_ND),
        failed=failures(gathered.counts),
        rejected=rejections(gathered.counts),
        notes=dict(gathered.notes),
        shards=len(job.located.shards),
        shard_faults={
            shard: f"{fault}: {detail}" for shard, (fault, detail) in gathered.faults.items()
        },
        fingerprint=job.fingerprint,
        network=network,
    )


def _metrics(name: str, gathered: Gathered, class_CD: np.ndarray | None) -> Metrics:
    if len(gathered.image_ND) == 0:
        raise InputError(f"sets.{name}: contains no usable image; check it with dfn-ray inspect")
    if gathered.text_MD is not None and gathered.image_of_text_M is not None:
        return retrieval_metrics(gathered.image_ND, gathered.text_MD, gathered.image_of_text_M)
    assert gathered.label_N is not None
    assert class_CD is not None
    try:
        return classification_metrics(gathered.image_ND, class_CD, gathered.label_N)
    except InputError as error:
        raise InputError(f"sets.{name}: {error}") from None


def _exceeds(failed: Mapping[str, int], images: int, recipe: EvaluateRecipe) -> bool:
    """True if more images failed than the recipe allows, given `images` that did not."""
    count = sum(failed.values())
    return images == 0 or count > recipe.max_failed_fraction * (images + count)
