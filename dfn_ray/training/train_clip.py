"""`dfn-ray train`: CLIP, or a filtering network, on one or several sources, until samples_seen.

Index the sources once, then let Ray Train run workers again and again, each time from the last checkpoint, until the
last sample is seen.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import ray
from ray.data import Dataset
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.train.v2.api.exceptions import TrainingFailedError

from dfn_ray.clip.network import FrozenNetwork
from dfn_ray.config import Source, TrainRecipe, recipe_values
from dfn_ray.errors import DfnRayError, InputError, TrainingFailed
from dfn_ray.flow.classnames import class_names, prompt_templates
from dfn_ray.flow.datasets import connect
from dfn_ray.flow.uid_lists import open_uid_list
from dfn_ray.flow.weights import load_network_of
from dfn_ray.manifest import Run, start_run
from dfn_ray.pool import Shard, list_shards, listing_table
from dfn_ray.telemetry import TrainingProgress
from dfn_ray.training.checkpoint import begin_generation, latest_position
from dfn_ray.training.feed import Captions, Feeding
from dfn_ray.training.index import ChunkIndex, drawn_counts, split_index
from dfn_ray.training.plan import Group, plan_groups
from dfn_ray.training.samples import GroupInputs
from dfn_ray.training.seen import Seen
from dfn_ray.training.stream import DATASET, Reading, in_order, index_sources, input_dataset
from dfn_ray.training.worker import Job, network_folder, train_worker

INDEX = "index.parquet"
SPARE = 1.05
"""Samples planned per sample still to be seen: some images will not decode. More are planned when this is not enough."""
_MIN_BLOCK_BYTES, _MAX_BLOCK_BYTES = 2**20, 128 * 2**20


def train(recipe: TrainRecipe, *, until_samples: int | None = None) -> dict[str, Any]:
    """Train until `samples_seen`, or go on where an earlier attempt stopped; `until_samples` stops earlier.

    Returns samples_seen, steps and the URI of the trained network, which `dfn-ray filter` and open_clip load as
    `local-dir:` (or from an object store, dfn_ray alone). Raises InputError for wrong input, FingerprintError when
    the run there is another's, TrainingFailed when workers die without getting any further.
    """
    target = min(recipe.samples_seen, until_samples or recipe.samples_seen)
    run, sources, network = _open(recipe)
    progress = TrainingProgress(recipe.samples_seen)
    try:
        if not _is_done(run, recipe, target):
            connect()
            plan = _plan(run, recipe, sources, network)
            _say_start(progress, plan)
            _fit_until(target, plan, ray.put(network), progress)
    finally:
        progress.close()
    position = latest_position(run)
    return {
        "samples_seen": position.samples_seen,
        "steps": position.steps,
        "network": run.store.uri_of(network_folder()),
    }


@dataclass(frozen=True)
class _Sources:
    """The sources of a recipe with their shards."""

    shards: tuple[tuple[Shard, ...], ...]


@dataclass(frozen=True, kw_only=True)
class NextSamples:
    """Called by Ray Train whenever workers start: decides where they go on, and plans their data from there."""

    run: Run
    recipe: TrainRecipe
    indexes: tuple[ChunkIndex, ...]
    feeding: ray.ObjectRef
    row_bytes: int

    def __call__(self) -> Dataset:
        """The samples that the workers about to start have not seen, in order."""
        generation = begin_generation(self.run)
        readings = list(self.readings(generation.position.seen, generation.position.samples_seen))
        rows = self.recipe.batch_size // self.recipe.workers.max_size
        block_bytes = min(max(rows * self.row_bytes, _MIN_BLOCK_BYTES), _MAX_BLOCK_BYTES)
        return input_dataset(readings, self.feeding, self.recipe.feed, block_bytes=block_bytes)

    def readings(self, seen: Seen, samples_seen: int) -> Iterator[Reading]:
        """The groups from there on, as many as are needed or may be planned at a time."""
        recipe = self.recipe
        wanted = (recipe.samples_seen - samples_seen) * SPARE + recipe.batch_size
        planned = groups = 0
        for group in self.groups():
            if planned >= wanted or groups >= recipe.feed.groups_per_attempt:
                return
            spans = seen.of_group(group.number)
            if spans is None:
                continue
            yield Reading(self._located(group), spans)
            planned += group.samples - sum(end - first for first, end in spans)
            groups += 1

    def groups(self) -> Iterator[Group]:
        """All groups of the run, without end."""
        recipe, sources = self.recipe, self.recipe.sources
        weights = [source.weight for source in sources]
        counts = [
            index.samples
            if source.sample_count is None
            else drawn_counts(index, source.sample_count, (recipe.seed, number))
            for number, (source, index) in enumerate(zip(sources, self.indexes, strict=True))
        ]
        return plan_groups(
            counts,
            None if None in weights else [weight for weight in weights if weight is not None],
            group_samples=recipe.feed.group_samples,
            seed=recipe.seed,
        )

    def _located(self, group: Group) -> GroupInputs:
        return GroupInputs(
            group, tuple(self.indexes[piece.source].chunk(piece.number) for piece in group.pieces)
        )


def _open(recipe: TrainRecipe) -> tuple[Run, _Sources, FrozenNetwork]:
    shards = tuple(tuple(list_shards(source.pool)) for source in recipe.sources)
    network = load_network_of(recipe.model)
    run = start_run(
        recipe.run_uri,
        kind="train",
        recipe=recipe_values(recipe),
        fingerprint=_fingerprint(recipe, network),
        listing=listing_table([shard for some in shards for shard in some]),
    )
    return run, _Sources(shards), network


def _fingerprint(recipe: TrainRecipe, network: FrozenNetwork) -> dict[str, Any]:
    """What changes which weights come out: everything but where and how fast it runs."""
    values = recipe_values(recipe)
    for free in ("run_uri", "model", "workers", "checkpoints", "logs", "scale"):
        del values[free]
    for free in ("prefetch_batches", "cpus", "groups_per_attempt"):
        del values["feed"][free]
    del values["decode"]["cpus"]
    return {"training": values, "start": network.fingerprint()}


def _is_done(run: Run, recipe: TrainRecipe, target: int) -> bool:
    left = target - latest_position(run).samples_seen
    finished = target < recipe.samples_seen or bool(run.store.list(network_folder()))
    return left < recipe.batch_size and finished


def _plan(run: Run, recipe: TrainRecipe, sources: _Sources, network: FrozenNetwork) -> NextSamples:
    indexes = split_index(_index(run, recipe, sources), recipe.sources, sources.shards)
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


def _index(run: Run, recipe: TrainRecipe, sources: _Sources) -> pa.Table:
    """The index as the run stored it, else by walking the sources."""
    if run.store.exists(INDEX):
        with run.store.open(INDEX) as file:
            return pq.read_table(file)
    for source in recipe.sources:
        if source.uid_list is not None:
            open_uid_list(source.uid_list)  # refuses an unsorted one
    table = index_sources(recipe.sources, sources.shards, recipe.feed)
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    run.store.write(INDEX, sink.getvalue())
    return table


def _captions(source: Source) -> Captions | None:
    if source.labels is None:
        return None
    return Captions(
        class_names(source.labels.classnames), prompt_templates(source.labels.templates)
    )


def _fit_until(
    target: int, plan: NextSamples, network: ray.ObjectRef, progress: TrainingProgress
) -> None:
    """Run workers until the target is reached. Raises TrainingFailed after too many starts without progress."""
    run, recipe = plan.run, plan.recipe
    strikes = 0
    while not _is_done(run, recipe, target):
        before = latest_position(run).samples_seen
        error = _fit(target, plan, network, progress)
        after = latest_position(run).samples_seen
        if error is None and (after > before or _is_done(run, recipe, target)):
            strikes = 0
            continue
        strikes = 1 if after > before else strikes + 1
        why = "the data gave no batch" if error is None else _first_line(error)
        if strikes > recipe.workers.max_failures or error is None:
            raise TrainingFailed(
                f"{run.store.uri}: workers stopped at {after:,} samples, {strikes} times without getting further: {why}"
            ) from error
        progress.say(f"workers died ({why}); going on from {after:,} samples")


def _fit(
    target: int, plan: NextSamples, network: ray.ObjectRef, progress: TrainingProgress
) -> TrainingFailedError | None:
    """Run workers once, until the target, the end of the planned data or a failure, which is returned."""
    recipe, workers = plan.recipe, plan.recipe.workers
    reports = _Reports.remote()  # pyright: ignore[reportAttributeAccessIssue]
    job = Job(run=plan.run, recipe=recipe, network=network, until_samples=target, reports=reports)
    generations = plan.run.read_json("generation.json") or {"number": 0}
    size = (
        workers.min_size
        if workers.min_size == workers.max_size
        else (workers.min_size, workers.max_size)
    )
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"job": job},
        torch_config=TorchConfig(backend="nccl" if workers.device == "cuda" else "gloo"),
        scaling_config=ScalingConfig(
            num_workers=size,
            use_gpu=workers.device == "cuda",
            resources_per_worker={"CPU": workers.cpus}
            | ({"GPU": 1} if workers.device == "cuda" else {}),
            elastic_resize_monitor_interval_s=workers.resize_interval_s,
        ),
        run_config=RunConfig(
            # A name of its own: Ray Train would go on from its own records of an older one.
            name=f"start-{generations['number'] + 1:04d}",
            storage_path=_ray_path(plan.run),
            storage_filesystem=_ray_filesystem(plan.run),
            failure_config=FailureConfig(
                max_failures=0
            ),  # `_fit_until` knows which failures are final
        ),
        datasets={DATASET: plan},
        dataset_config=in_order(),
    )
    with _watching(reports, progress):
        try:
            trainer.fit()
        except TrainingFailedError as error:
            if (final := _final(error)) is not None:
                raise final from error
            return error
    return None


def _final(error: TrainingFailedError) -> DfnRayError | None:
    """What another start cannot mend."""
    failures: Mapping[int, BaseException] = getattr(error, "worker_failures", {})
    for failure in failures.values():
        cause: BaseException | None = failure
        while cause is not None:
            if isinstance(cause, InputError | TrainingFailed):
                return cause
            cause = getattr(cause, "cause", None) or cause.__cause__
    return None


@ray.remote(num_cpus=0)
class _Reports:
    """Where workers leave the figures of their steps for the driver."""

    def __init__(self) -> None:
        self._lines: list[dict[str, float]] = []

    def add(self, line: dict[str, float]) -> None:
        self._lines.append(line)

    def take(self) -> list[dict[str, float]]:
        lines, self._lines = self._lines, []
        return lines


@contextmanager
def _watching(reports: Any, progress: TrainingProgress) -> Iterator[None]:
    """Show what workers report while the block runs."""
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(1.0):
            for line in ray.get(reports.take.remote()):
                progress.show(line)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        for line in ray.get(reports.take.remote()):
            progress.show(line)


def _say_start(progress: TrainingProgress, plan: NextSamples) -> None:
    for source, index in zip(plan.recipe.sources, plan.indexes, strict=True):
        count = source.sample_count or index.total
        progress.say(f"source {source.name}: {count:,} samples in {len(index):,} chunks")
    position = latest_position(plan.run)
    if position.samples_seen:
        progress.say(f"going on from {position.samples_seen:,} samples")


def _ray_path(run: Run) -> str:
    """Where Ray Train keeps its own records, beside the run's."""
    path = fsspec.core.url_to_fs(run.store.uri)[1]
    return f"{path}/ray_train"


def _ray_filesystem(run: Run) -> pafs.FileSystem:
    fs = fsspec.core.url_to_fs(run.store.uri)[0]
    return pafs.PyFileSystem(pafs.FSSpecHandler(fs))


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
