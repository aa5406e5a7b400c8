"""`dfn-ray train`: CLIP, or a filtering network, on one or several sources, until samples_seen.

Index the sources once, then let Ray Train run workers again and again, each time from the last checkpoint, until the
last sample is seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import ray

from dfn_ray.config import Source, TrainRecipe, recipe_values
from dfn_ray.console.progress import TrainingProgress
from dfn_ray.errors import StorageError, TrainingFailedError, last_line
from dfn_ray.network.frozen import WEIGHTS_FILE, FrozenNetwork
from dfn_ray.on_ray.ray_address import check_ray_reachable
from dfn_ray.on_ray.ray_metrics import TrainingMetrics
from dfn_ray.on_ray.session import connect
from dfn_ray.pool import Shard, list_pool, listing_notes, listing_table, refuse_inside
from dfn_ray.preparing.embedding_fingerprint import reading_versions
from dfn_ray.preparing.fetch_networks import fetch_network
from dfn_ray.preparing.prompts import class_names, prompt_templates
from dfn_ray.run import RESULT, Run, parquet_bytes, start_run
from dfn_ray.training.chain import index_sources
from dfn_ray.training.data.feed import Feeding, LabelCaptions
from dfn_ray.training.data.index import INDEX_SCHEMA, source_counts, split_index
from dfn_ray.training.data.next_samples import NextSamples
from dfn_ray.training.data.read_counts import (
    judge_sources,
    judge_trained,
    limits_of,
    training_values,
)
from dfn_ray.training.fit import fit
from dfn_ray.training.position import Position, latest_position, reached
from dfn_ray.training.worker_spec import WorkerSpec, network_folder
from dfn_ray.uids.lookup import open_uid_list

INDEX = "index.parquet"
Shards = tuple[tuple[Shard, ...], ...]
"""Of each source."""


def train(recipe: TrainRecipe, *, until_samples: int | None = None) -> dict[str, Any]:
    """Train until `samples_seen`, or go on where an earlier attempt stopped; `until_samples` stops earlier.

    Returns what `result.json` of the run has: samples_seen, steps, the URI of the trained network, which `dfn-ray filter`
    and open_clip load as `local-dir:` (or from an object store, dfn_ray alone), what was read of each source
    (`SourceCounts`) and what failed while training. Raises InputError for wrong input, FingerprintError when the run
    there is another's, ErrorBudgetExceededError when more samples or shards are bad than the recipe allows, StorageError
    when a store still fails after all retries, TrainingFailedError when workers die without getting any further.
    """
    check_ray_reachable()
    target = min(recipe.samples_seen, until_samples or recipe.samples_seen)
    run, shards, network, notes = _open(recipe)
    progress = TrainingProgress(recipe.samples_seen)
    for note in (*notes, *run.notes()):
        progress.say(note)
    metrics = TrainingMetrics(recipe.run_uri, total_samples=recipe.samples_seen)
    try:
        if not _is_done(run, recipe, target):
            connect()
            table = _index(run, recipe, shards, progress.say)
            sources = source_counts(table, recipe.sources, shards)
            for source in sources:
                progress.say(source.line())
                if warning := source.warning():
                    progress.say(warning)
            plan = _plan(run, recipe, shards, network, table)
            judge_sources(sources, limits_of(recipe))
            read = sum((Counter(source.counts) for source in sources), Counter[str]())
            job = WorkerSpec(
                run=run, recipe=recipe, network=ray.put(network), until_samples=target, read=read
            )
            _fit_until(job, plan, progress, metrics)
    finally:
        progress.close()
        metrics.close()
    return _result(run, recipe, shards)


def _result(run: Run, recipe: TrainRecipe, shards: Shards) -> dict[str, Any]:
    """What the run has come to, also written to it."""
    position, table = latest_position(run), _stored_index(run)
    sources = () if table is None else source_counts(table, recipe.sources, shards)
    value = {
        "samples_seen": position.samples_seen,
        "steps": position.steps,
        "network": run.store.uri_of(network_folder()),
        **training_values(position.counts),
        "sources": [source.values() for source in sources],
    }
    stored, before = run.read_json_bytes(RESULT)
    if stored != value:
        run.replace_json(RESULT, value, before)
    return value


def _open(recipe: TrainRecipe) -> tuple[Run, Shards, FrozenNetwork, list[str]]:
    """The run, the shards of each source, the network to start from, and what is to be said about the listings."""
    listings = [list_pool(source.pool) for source in recipe.sources]
    for source, listing in zip(recipe.sources, listings, strict=True):
        refuse_inside(source.pool, recipe.run_uri, setting="run_uri", shards=listing.shards)
    shards = tuple(listing.shards for listing in listings)
    network = fetch_network(recipe.model)
    run = start_run(
        recipe.run_uri,
        kind="train",
        recipe=recipe_values(recipe),
        fingerprint=_fingerprint(recipe, network),
        listing=listing_table([shard for some in shards for shard in some]),
        accept_versions=recipe.accept_versions,
        section="",
    )
    return run, shards, network, listing_notes(*listings)


def _fingerprint(recipe: TrainRecipe, network: FrozenNetwork) -> dict[str, Any]:
    """What changes which weights come out: everything but where and how fast it runs."""
    values = recipe_values(recipe)
    for free in (
        "run_uri", "model", "workers", "checkpoints", "logs", "scale", "max_failed_fraction",
        "max_bad_shard_fraction", "accept_versions",
    ):  # fmt: skip
        del values[free]
    for free in ("prefetch_batches", "groups_per_attempt", "no_progress_timeout_s"):
        del values["feed"][free]
    for free in ("cpus", "labels", "resources"):
        del values["decode"][free]
    for source, stored in zip(recipe.sources, values["sources"], strict=True):
        del stored["pool"]["give_up_unreachable"]
        if source.uid_list is not None:
            stored["uid_list"] = open_uid_list(source.uid_list).sha256
    pools = [source.pool for source in recipe.sources]
    return {
        "training": values,
        "start": network.fingerprint(),
        "versions": [reading_versions(pool) for pool in pools],
    }


def _is_done(run: Run, recipe: TrainRecipe, target: int) -> bool:
    left = target - latest_position(run).samples_seen
    finished = target < recipe.samples_seen or run.store.exists(
        f"{network_folder()}/{WEIGHTS_FILE}"
    )
    return left < recipe.batch_size and finished


def _plan(
    run: Run, recipe: TrainRecipe, shards: Shards, network: FrozenNetwork, table: pa.Table
) -> NextSamples:
    indexes = split_index(table, recipe.sources, shards)
    feeding = Feeding(
        sources=recipe.sources,
        captions=tuple(_captions(source) for source in recipe.sources),
        decode=recipe.decode,
        transform=network.transform,
        augmentation=recipe.augmentation,
        tokenizer=network.tokenizer,
        seed=recipe.seed,
    )
    height, width = network.transform.size
    plan = NextSamples(
        run=run,
        recipe=recipe,
        indexes=indexes,
        feeding=ray.put(feeding),
        row_bytes=height * width * 3 + network.tokenizer.context_length * 4,
    )
    next(plan.groups())  # sample_count is judged here, before workers start
    return plan


def _stored_index(run: Run) -> pa.Table | None:
    """The index as the run stored it; None where there is none, or one without counts of what was read."""
    if not run.exists(INDEX):
        return None
    table = run.read_table(INDEX)
    return table if table.schema.names == INDEX_SCHEMA.names else None


def _index(run: Run, recipe: TrainRecipe, shards: Shards, say: Callable[[str], None]) -> pa.Table:
    """The index as the run stored it, else by walking the sources."""
    if (stored := _stored_index(run)) is not None:
        return stored
    for source in recipe.sources:
        if source.uid_list is not None:
            open_uid_list(source.uid_list)  # refuses an unsorted one
    table = index_sources(recipe, shards, say)
    run.write(INDEX, parquet_bytes(table, INDEX, compression="zstd"))
    return table


def _captions(source: Source) -> LabelCaptions | None:
    if source.labels is None:
        return None
    return LabelCaptions(
        class_names(source.labels.classnames), prompt_templates(source.labels.templates)
    )


def _fit_until(
    job: WorkerSpec, plan: NextSamples, progress: TrainingProgress, metrics: TrainingMetrics
) -> None:
    """Run workers until the target is reached.

    Raises TrainingFailedError, or the StorageError of a reader or worker, after too many starts without progress.
    """
    run, recipe, target = job.run, job.recipe, job.until_samples
    strikes = 0
    while not _is_done(run, recipe, target):
        before = latest_position(run)
        _check_error_limits(job, before, before.counts)
        _say_repeats(run, progress, before.samples_seen)
        ending = fit(job, plan, progress, metrics)
        after, error = latest_position(run), ending.error
        moved = after.samples_seen > before.samples_seen
        if error is None and (moved or _is_done(run, recipe, target)):
            strikes = 0
            continue
        run.check_attempt()
        strikes = 1 if moved else strikes + 1
        if error is None:
            _check_error_limits(
                job, after, Counter(after.counts) + Counter(ending.unplaced), final=True
            )
        why = "the data gave no batch" if error is None else last_line(error)
        if strikes > recipe.workers.max_failures or error is None:
            if isinstance(error, StorageError):
                raise error
            raise TrainingFailedError(
                f"{run.store.uri}: workers stopped at {after.samples_seen:,} samples, {strikes} times without "
                f"getting further: {why}"
            ) from error
        progress.say(f"workers died ({why})")


def _check_error_limits(
    job: WorkerSpec, position: Position, counts: Mapping[str, int], *, final: bool | None = None
) -> None:
    """Raise ErrorBudgetExceededError when more samples failed than the recipe allows."""
    left = job.recipe.samples_seen - position.samples_seen
    judge_trained(
        job.read,
        counts,
        position.samples_seen,
        limits_of(job.recipe),
        where=f"{job.run.store.uri}: ",
        final=left < job.recipe.batch_size if final is None else final,
    )


def _say_repeats(run: Run, progress: TrainingProgress, samples_seen: int) -> None:
    """Say from where a run goes on and what it does again."""
    if before := reached(run):
        again = max(0, before - samples_seen)
        progress.say(f"going on from {samples_seen:,} samples; {again:,} are trained on again")
