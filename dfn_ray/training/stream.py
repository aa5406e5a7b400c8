"""The groups of a run as a Ray Dataset of inputs, and the only module of `training` that names Ray Data's operators.

One read task per group: it reads, decodes and varies, and yields blocks of rows. Ray Train splits the rows over the
workers in order, so that one seed and one number of workers give one sequence of batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import ray
from ray.data import DataContext, DataIterator, Dataset, ExecutionOptions
from ray.data.extensions import ArrowTensorArray
from ray.train import DataConfig

from dfn_ray.config import Source, TrainRecipe
from dfn_ray.flow.datasets import configure, read_items, tables_of
from dfn_ray.pool import Shard
from dfn_ray.training.index import INDEX_SCHEMA, index_shard
from dfn_ray.training.samples import GroupInputs
from dfn_ray.training.seen import Spans

if TYPE_CHECKING:
    import torch

DATASET = "samples"
"""Its name at Ray Train."""
Batch = dict[str, "torch.Tensor"]


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
) -> Dataset:
    """The inputs of the groups, in order: `image`, `text`, `place`, `failed` (see `feed.Inputs`).

    Blocks of about `block_bytes`, a worker's batch or so: the split over workers hands out whole blocks.
    """
    _configure(recipe).target_max_block_size = block_bytes
    return read_items(readings, partial(_feed, feeding=feeding), recipe.decode)


def in_order() -> DataConfig:
    """How Ray Train splits the dataset over workers: by nothing that depends on timing."""
    options = ExecutionOptions(preserve_order=True)
    return DataConfig(execution_options=options, enable_shard_locality=False)


def batches(samples: DataIterator, *, batch_size: int, prefetch: int) -> Iterator[Batch]:
    """This worker's batches, on the CPU; the incomplete last one is left out."""
    yield from samples.iter_torch_batches(
        batch_size=batch_size, prefetch_batches=prefetch, drop_last=True, device="cpu"
    )


def index_sources(recipe: TrainRecipe, shards: Sequence[Sequence[Shard]]) -> pa.Table:
    """The chunks of all sources, in any order: columns of `INDEX_SCHEMA`."""
    _configure(recipe)
    items = [
        (source, number, shard, place)
        for number, source in enumerate(recipe.sources)
        for place, shard in enumerate(shards[number])
    ]
    tables = list(tables_of(read_items(items, _index, recipe.decode)))
    return pa.concat_tables(tables) if tables else INDEX_SCHEMA.empty_table()


def _index(item: tuple[Source, int, Shard, int]) -> Iterable[pa.Table]:
    yield index_shard(*item)


def _feed(reading: Reading, *, feeding: ray.ObjectRef) -> Iterable[pa.Table]:
    from dfn_ray.training.feed import feed_group  # noqa: PLC0415  open_clip, which planning has no use for

    known = ray.get(feeding)
    for inputs in feed_group(reading.inputs, reading.spans, feeding=known):
        yield pa.table({name: ArrowTensorArray.from_numpy(array) for name, array in inputs.items()})


def _configure(recipe: TrainRecipe) -> DataContext:
    return configure(errored_blocks=0, no_progress_timeout_s=recipe.feed.no_progress_timeout_s)
