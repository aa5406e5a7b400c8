"""The groups of a run as a Ray Dataset of inputs, and the only module of `training` that names Ray Data's operators.

One read task per group: it reads, decodes and varies, and yields blocks of rows. Ray Train splits the rows over the
workers in order, so that one seed and one number of workers give one sequence of batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import ray
from ray.data import DataContext, DataIterator, Dataset, ExecutionOptions
from ray.data.extensions import ArrowTensorArray
from ray.exceptions import RayError
from ray.train import DataConfig

from dfn_ray.config import Source, TrainRecipe
from dfn_ray.errors import RunTakenOverError, StorageAccessError, StorageError, last_line
from dfn_ray.on_ray.datasets import Work, read_items, tables_of
from dfn_ray.on_ray.lethal_shards import Killer, killers
from dfn_ray.on_ray.session import configure
from dfn_ray.pool import Shard
from dfn_ray.training.data.group_samples import GroupInputs
from dfn_ray.training.data.index import INDEX_SCHEMA, index_shard, indexed_shards
from dfn_ray.training.data.seen import Spans

if TYPE_CHECKING:
    import torch

DATASET = "samples"
"""Its name at Ray Train."""
_GENERATION = "generation"
INDEX_ATTEMPTS = 3
"""As `execution.attempts` of filtering."""
ERRORED_BLOCKS = 64
"""Index tasks that may fail in an attempt before Ray stops it."""
Batch = dict[str, "torch.Tensor"]
Item = tuple[Source, int, Shard, int, Killer | None]
"""A shard to index: arguments of `index_shard`."""


@dataclass(frozen=True)
class Reading:
    """A group with the part of it that was seen already."""

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
    """The inputs of the groups, in order: `image`, `text`, `place`, `counts` (see `feed.Inputs`) and `generation`.

    The actor `reports` takes, under the generation, the counts that no row has. Blocks of about `block_bytes`, a worker's
    batch or so: the split over workers hands out whole blocks.
    """
    _configure(recipe).target_max_block_size = block_bytes
    read = partial(_feed, feeding=feeding, reports=reports, generation=generation)
    return read_items(readings, read, recipe.decode)


def in_order() -> DataConfig:
    """How Ray Train splits the dataset over workers: by nothing that depends on timing."""
    options = ExecutionOptions(preserve_order=True)
    return DataConfig(execution_options=options, enable_shard_locality=False)


def batches(
    samples: DataIterator, *, batch_size: int, prefetch: int, generation: int
) -> Iterator[Batch]:
    """This worker's batches, on the CPU; the incomplete last one is left out.

    Raises RunTakenOverError for samples that were planned for another generation of workers: this one started so late that it
    took the name of its successors.
    """
    for batch in samples.iter_torch_batches(
        batch_size=batch_size, prefetch_batches=prefetch, drop_last=True, device="cpu"
    ):
        planned = batch.pop(_GENERATION)
        if bool((planned != generation).any()):
            raise RunTakenOverError(
                f"samples planned for start {int(planned[0])} of workers came to one of start {generation}; it stops"
            )
        yield batch


def index_sources(
    recipe: TrainRecipe, shards: Sequence[Sequence[Shard]], say: Callable[[str], None]
) -> pa.Table:
    """The chunks of all sources, in any order: columns of `INDEX_SCHEMA`.

    Shards whose tasks failed, by storage or a node that is gone, are walked again, `INDEX_ATTEMPTS` times in all. Those
    that kill their reader each time have this as their fault, as in filtering.
    """
    todo: dict[tuple[int, int], Item] = {
        (number, place): (source, number, shard, place, None)
        for number, source in enumerate(recipe.sources)
        for place, shard in enumerate(shards[number])
    }
    tables = [INDEX_SCHEMA.empty_table()]
    for attempt in range(1, INDEX_ATTEMPTS + 1):
        last = attempt == INDEX_ATTEMPTS
        if last:
            todo |= _killers(todo, recipe, say)
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
            say(f"an attempt to index stopped: {last_line(error)}")
        if not todo:
            break
        say(f"{len(todo):,} shards are left to index; attempt {attempt + 1} of {INDEX_ATTEMPTS}")
    return pa.concat_tables(tables)


def _killers(
    todo: Mapping[tuple[int, int], Item], recipe: TrainRecipe, say: Callable[[str], None]
) -> dict[tuple[int, int], Item]:
    """Those of the shards whose reading kills a process, as items that say so."""
    suspects = {key: (Work(item[2]), item[0].pool) for key, item in todo.items()}
    found: dict[tuple[int, int], Item] = {}
    for key, killer in killers(suspects, recipe.decode):
        source, number, shard, place, _ = todo[key]
        found[key] = (source, number, shard, place, killer)
        say(f"{shard.uri}: given up, {killer.detail}")
    return found


def _index(item: Item) -> Iterable[pa.Table]:
    yield index_shard(*item)


def _feed(
    reading: Reading, *, feeding: ray.ObjectRef, reports: Any, generation: int
) -> Iterable[pa.Table]:
    from dfn_ray.training.data.feed import feed_group  # noqa: PLC0415  open_clip, which planning has no use for

    def unplaced(group: int, place: int, counts: np.ndarray) -> None:
        reports.add_unplaced.remote(generation, group, place, counts)

    known = ray.get(feeding)
    for inputs in feed_group(reading.inputs, reading.spans, feeding=known, unplaced=unplaced):
        table = pa.table({k: ArrowTensorArray.from_numpy(array) for k, array in inputs.items()})
        planned = np.full(len(table), generation, np.int32)
        yield table.append_column(_GENERATION, pa.array(planned))


def _configure(recipe: TrainRecipe, *, errored_blocks: int = 0) -> DataContext:
    return configure(
        errored_blocks=errored_blocks, no_progress_timeout_s=recipe.feed.no_progress_timeout_s
    )
