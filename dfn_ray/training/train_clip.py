"""`dfn-ray train`: CLIP, or a filtering network, on one or several sources, until samples_seen.

Indexes the sources once, then starts workers in Ray Train, each time from the last checkpoint,
until all samples are seen.
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
from dfn_ray.network.packed import WEIGHTS_FILE, PackedNetwork
from dfn_ray.on_ray.ray_address import check_ray_reachable
from dfn_ray.on_ray.ray_metrics import TrainingMetrics
from dfn_ray.on_ray.session import connect
from dfn_ray.pool import Shard, list_pool, listing_notes, listing_table, require_outside_pool
from dfn_ray.resolving.embedding_fingerprint import reading_versions
from dfn_ray.resolving.fetch_networks import fetch_network
from dfn_ray.resolving.prompts import class_names, prompt_templates
from dfn_ray.run import RESULT, Acceptance, Run, RunIdentity, RunKind, parquet_bytes, start_run
from dfn_ray.training.chain import index_sources
from dfn_ray.training.data.feed import Feeding, LabelCaptions
from dfn_ray.training.data.index import INDEX_SCHEMA, source_counts, split_index
from dfn_ray.training.data.next_samples import NextSamples
from dfn_ray.training.data.read_counts import (
    check_sources,
    check_training,
    limits_of,
    training_values,
)
from dfn_ray.training.fit import fit
from dfn_ray.training.position import Position, latest_position, reached_samples
from dfn_ray.training.worker_spec import WorkerSpec, trained_network_folder
from dfn_ray.uids.lookup import open_uid_list

INDEX = "index.parquet"
Shards = tuple[tuple[Shard, ...], ...]
"""The shards of each source."""


def train(recipe: TrainRecipe, *, until_samples: int | None = None) -> dict[str, Any]:
    """Trains until `samples_seen`, or `until_samples` if smaller; resumes an interrupted run.

    Returns the content of the run's `result.json`: samples_seen, steps, the URI of the trained
    network, the samples read from each source (`SourceCounts`), and failures in training. `dfn-ray
    filter` and open_clip load the network as `local-dir:` (on an object store, only dfn_ray does).
    Raises InputError for invalid input, FingerprintError if the folder contains another run,
    ErrorLimitExceededError if more samples or shards are bad than the recipe allows, StorageError
    if a store still fails after all retries, TrainingFailedError if workers die without progress.
    """
    check_ray_reachable()
    target = min(recipe.samples_seen, until_samples or recipe.samples_seen)
    run, shards, network, notes = _open_run(recipe)
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
            next_samples = _next_samples(run, recipe, shards, network, table)
            check_sources(sources, limits_of(recipe))
            read = sum((Counter(source.counts) for source in sources), Counter[str]())
            spec = WorkerSpec(
                run=run, recipe=recipe, network=ray.put(network), until_samples=target, read=read
            )
            _fit_until(spec, next_samples, progress, metrics)
    finally:
        progress.close()
        metrics.close()
    return _result(run, recipe, shards)


def _result(run: Run, recipe: TrainRecipe, shards: Shards) -> dict[str, Any]:
    """The result of the run, which is also written to it."""
    position, table = latest_position(run), _stored_index(run)
    sources = () if table is None else source_counts(table, recipe.sources, shards)
    value = {
        "samples_seen": position.samples_seen,
        "steps": position.steps,
        "network": run.store.uri_of(trained_network_folder()),
        **training_values(position.counts),
        "sources": [source.values() for source in sources],
    }
    stored, before = run.read_json_bytes(RESULT)
    if stored != value:
        run.replace_json(RESULT, value, before)
    return value


def _open_run(recipe: TrainRecipe) -> tuple[Run, Shards, PackedNetwork, list[str]]:
    """The run, the shards of each source, the network to start from, and notes on the listings."""
    listings = [list_pool(source.pool) for source in recipe.sources]
    for source, listing in zip(recipe.sources, listings, strict=True):
        require_outside_pool(source.pool, recipe.run_uri, setting="run_uri", shards=listing.shards)
    shards = tuple(listing.shards for listing in listings)
    network = fetch_network(recipe.model)
    run = start_run(
        recipe.run_uri,
        RunIdentity(
            kind=RunKind.TRAIN,
            fingerprint=_fingerprint(recipe, network),
            listing=listing_table([shard for some in shards for shard in some]),
        ),
        recipe=recipe_values(recipe),
        accept=Acceptance(versions=recipe.accept_versions, section=""),
    )
    return run, shards, network, listing_notes(*listings)


def _fingerprint(recipe: TrainRecipe, network: PackedNetwork) -> dict[str, Any]:
    """Everything that affects the trained weights: all settings but those of place and speed."""
    values = recipe_values(recipe)
    for free in (
        "run_uri", "model", "workers", "checkpoints", "logs", "scale", "max_failed_fraction",
        "max_bad_shard_fraction", "accept_versions",
    ):  # fmt: skip
        del values[free]
    for free in ("prefetch_batches", "planned_groups", "no_progress_timeout_s"):
        del values["feed"][free]
    for free in ("placement", "tasks", "cpus", "labels", "resources"):
        del values["decode"][free]
    for source, stored in zip(recipe.sources, values["sources"], strict=True):
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
        f"{trained_network_folder()}/{WEIGHTS_FILE}"
    )
    return left < recipe.batch_size and finished


def _next_samples(
    run: Run, recipe: TrainRecipe, shards: Shards, network: PackedNetwork, table: pa.Table
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
    next_samples = NextSamples(
        run=run,
        recipe=recipe,
        indexes=indexes,
        feeding=ray.put(feeding),
        row_bytes=height * width * 3 + network.tokenizer.context_length * 4,
    )
    next(next_samples.groups())  # checks sample_count before workers start
    return next_samples


def _stored_index(run: Run) -> pa.Table | None:
    """The stored index of the run; None if there is none, or one with other columns or types."""
    if not run.exists(INDEX):
        return None
    table = run.read_table(INDEX)
    return table if table.schema.equals(INDEX_SCHEMA) else None


def _index(run: Run, recipe: TrainRecipe, shards: Shards, say: Callable[[str], None]) -> pa.Table:
    """The stored index of the run or, without one, a new one from the sources."""
    if (stored := _stored_index(run)) is not None:
        return stored
    for source in recipe.sources:
        if source.uid_list is not None:
            open_uid_list(source.uid_list)  # rejects an unsorted list
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
    spec: WorkerSpec,
    next_samples: NextSamples,
    progress: TrainingProgress,
    metrics: TrainingMetrics,
) -> None:
    """Runs workers until the target is reached.

    Raises TrainingFailedError, or the StorageError of a reader or worker, after too many starts
    without progress.
    """
    run, recipe, target = spec.run, spec.recipe, spec.until_samples
    failed_starts = 0
    while not _is_done(run, recipe, target):
        before = latest_position(run)
        _check_error_limits(spec, before, before.counts)
        _say_resumed(run, progress, before.samples_seen)
        outcome = fit(spec, next_samples, progress, metrics)
        after, error = latest_position(run), outcome.error
        has_progressed = after.samples_seen > before.samples_seen
        if error is None and (has_progressed or _is_done(run, recipe, target)):
            failed_starts = 0
            continue
        run.check_attempt()
        failed_starts = 1 if has_progressed else failed_starts + 1
        if error is None:
            _check_error_limits(
                spec, after, Counter(after.counts) + Counter(outcome.unplaced), final=True
            )
        why = "the data yielded no batch" if error is None else last_line(error)
        if failed_starts > recipe.workers.max_failures or error is None:
            if isinstance(error, StorageError):
                raise error
            raise TrainingFailedError(
                f"{run.store.uri}: training stopped at {after.samples_seen:,} samples, after "
                f"{failed_starts} starts of the workers without progress: {why}"
            ) from error
        progress.say(f"workers died ({why}); restarting them from the last checkpoint")


def _check_error_limits(
    spec: WorkerSpec, position: Position, counts: Mapping[str, int], *, final: bool | None = None
) -> None:
    """Raises ErrorLimitExceededError if more samples failed than the recipe allows."""
    left = spec.recipe.samples_seen - position.samples_seen
    check_training(
        spec.read,
        counts,
        position.samples_seen,
        limits_of(spec.recipe),
        where=f"{spec.run.store.uri}: ",
        final=left < spec.recipe.batch_size if final is None else final,
    )


def _say_resumed(run: Run, progress: TrainingProgress, samples_seen: int) -> None:
    """Reports the samples at which a run resumes, and how many are trained on again."""
    if before := reached_samples(run):
        again = max(0, before - samples_seen)
        progress.say(
            f"resuming at {samples_seen:,} samples; {again:,} samples after the last checkpoint "
            "are repeated"
        )
