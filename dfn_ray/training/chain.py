"""The groups of a run as a Ray Dataset of inputs, with all Ray Data operators of `training`.

One read task per group reads, decodes and augments its samples and yields blocks of rows. Ray Train
splits the rows over the workers in order, so that the seed and the number of workers determine the
sequence of batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import DataContext, DataIterator, Dataset, ExecutionOptions
from ray.data.extensions import ArrowTensorArray
from ray.exceptions import RayError
from ray.train import DataConfig

from dfn_ray.config import Execution, Source, TrainRecipe
from dfn_ray.errors import RunTakenOverError, StorageAccessError, StorageError, last_line
from dfn_ray.on_ray.crashing_shards import CrashSite, find_crashing_shards
from dfn_ray.on_ray.datasets import read_items, tables_of
from dfn_ray.on_ray.session import configure
from dfn_ray.on_ray.work import Work
from dfn_ray.pool import Shard
from dfn_ray.training.data.group_samples import GroupInputs
from dfn_ray.training.data.index import INDEX_SCHEMA, index_shard, indexed_shards
from dfn_ray.training.data.seen import Spans

if TYPE_CHECKING:
    import torch

DATASET = "samples"
"""Name of the dataset in Ray Train."""
_GENERATION = "generation"
INDEX_ROUNDS = Execution().rounds
ERRORED_BLOCKS = 64
"""Index tasks that may fail before Ray stops a round."""
Batch = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class ShardToIndex:
    """A shard of a source, with their numbers in the recipe and in the source's listing."""

    source: Source
    source_number: int
    shard: Shard
    shard_number: int
    crash: CrashSite | None = None
    """Set if reading the shard kills the process."""


@dataclass(frozen=True)
class Reading:
    """A group, and the spans of it that were seen before."""

    inputs: GroupInputs
    spans: Spans


def input_dataset(
    readings: Sequence[Reading],
    feeding: ray.ObjectRef,
    recipe: TrainRecipe,
    *,
    block_bytes: int,
    reports: Any,
    generation: int,
) -> Dataset:
    """Returns the inputs of the groups, in order: columns of `feed.Inputs`, and `generation`.

    The actor `reports` receives, by generation, the counts that belong to no row. Blocks have about
    `block_bytes`, roughly a worker's batch, because the split over workers distributes whole
    blocks.
    """
    _configure(recipe).target_max_block_size = block_bytes
    read = partial(_feed, feeding=feeding, reports=reports, generation=generation)
    return read_items(readings, read, recipe.decode)


def in_order() -> DataConfig:
    """Returns the split of the dataset over workers, which does not depend on timing."""
    options = ExecutionOptions(preserve_order=True)
    return DataConfig(execution_options=options, enable_shard_locality=False)


def batches(
    samples: DataIterator, *, batch_size: int, prefetch: int, generation: int
) -> Iterator[Batch]:
    """Yields this worker's batches on the CPU, without an incomplete last one.

    Raises RunTakenOverError for samples that were planned for another generation of workers: this
    worker started so late that it took the name of its successors.
    """
    for batch in samples.iter_torch_batches(
        batch_size=batch_size, prefetch_batches=prefetch, drop_last=True, device="cpu"
    ):
        planned = batch.pop(_GENERATION)
        if bool((planned != generation).any()):
            raise RunTakenOverError(
                f"a worker of generation {generation} received samples planned for generation "
                f"{int(planned[0])}; it stops"
            )
        yield batch


def index_sources(
    recipe: TrainRecipe, shards: Sequence[Sequence[Shard]], say: Callable[[str], None]
) -> pa.Table:
    """Returns the chunks of all sources, in any order, with columns of `INDEX_SCHEMA`.

    Shards whose tasks failed, because of storage or a lost node, are retried, `INDEX_ROUNDS`
    times in all. Shards that kill their reader every time get this as their fault, as in filtering.
    """
    todo = {
        (number, shard_number): ShardToIndex(source, number, shard, shard_number)
        for number, source in enumerate(recipe.sources)
        for shard_number, shard in enumerate(shards[number])
    }
    tables = [INDEX_SCHEMA.empty_table()]
    for number in range(1, INDEX_ROUNDS + 1):
        last = number == INDEX_ROUNDS
        if last:
            todo |= _crashing(todo, recipe, say)
        _configure(recipe, errored_blocks=0 if last else ERRORED_BLOCKS)
        try:
            for table in tables_of(read_items(list(todo.values()), _index, recipe.decode)):
                # Blocks of several shards may come as one table.
                for shard in indexed_shards(table):
                    del todo[shard]
                tables.append(table)
        except (RayError, StorageError) as error:
            if last or isinstance(error, StorageAccessError):
                raise
            say(
                f"this round of indexing failed: {last_line(error)}; the remaining shards are "
                "retried"
            )
        if not todo:
            break
        say(f"{len(todo):,} shards remain to be indexed; round {number + 1} of {INDEX_ROUNDS}")
    return pa.concat_tables(tables)


def _crashing(
    todo: Mapping[tuple[int, int], ShardToIndex], recipe: TrainRecipe, say: Callable[[str], None]
) -> dict[tuple[int, int], ShardToIndex]:
    """The items of shards that kill their reader, with the crash set."""
    suspects = {key: (Work(item.shard), item.source.pool) for key, item in todo.items()}
    found: dict[tuple[int, int], ShardToIndex] = {}
    for key, crash in find_crashing_shards(suspects, recipe.decode):
        found[key] = replace(todo[key], crash=crash)
        say(f"{todo[key].shard.uri}: given up, {crash.detail}")
    return found


def _index(item: ShardToIndex) -> Iterable[pa.Table]:
    yield index_shard(item.source, item.source_number, item.shard, item.shard_number, item.crash)


def _feed(
    reading: Reading, *, feeding: ray.ObjectRef, reports: Any, generation: int
) -> Iterable[pa.Table]:
    from dfn_ray.training.data.feed import feed_group  # noqa: PLC0415  imports open_clip, which planning does not need

    def unplaced(group: int, place: int, counts: np.ndarray) -> None:
        reports.add_unplaced.remote(generation, group, place, counts)

    settings = ray.get(feeding)
    for inputs in feed_group(reading.inputs, reading.spans, feeding=settings, unplaced=unplaced):
        table = pa.table({k: ArrowTensorArray.from_numpy(array) for k, array in inputs.items()})
        planned = np.full(len(table), generation, np.int32)
        yield table.append_column(_GENERATION, pa.array(planned))


def _configure(recipe: TrainRecipe, *, errored_blocks: int = 0) -> DataContext:
    return configure(
        errored_blocks=errored_blocks, no_progress_timeout_s=recipe.feed.no_progress_timeout_s
    )
