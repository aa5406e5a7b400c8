"""The samples that the next workers will read, planned at every start from the run's position."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import Dataset

from dfn_ray.config import TrainRecipe
from dfn_ray.run import Run
from dfn_ray.training.chain import Reading, input_dataset
from dfn_ray.training.data.group_samples import GroupInputs
from dfn_ray.training.data.index import ChunkIndex, drawn_counts
from dfn_ray.training.data.order import ShuffleGroup, shuffled_groups
from dfn_ray.training.data.seen import Seen
from dfn_ray.training.position import begin_generation

SPARE = 1.05
"""Samples planned per remaining sample, because some images fail to decode. If it is too small,
more are planned later."""
_MIN_BLOCK_BYTES, _MAX_BLOCK_BYTES = 2**20, 128 * 2**20


@dataclass(frozen=True, kw_only=True)
class NextSamples:
    """The data of a run's next workers; Ray Train calls it at every start of workers."""

    run: Run
    recipe: TrainRecipe
    indexes: tuple[ChunkIndex, ...]
    feeding: ray.ObjectRef
    row_bytes: int
    reports: Any = None
    """The `fit.Reports` actor of this start."""

    def __call__(self) -> Dataset:
        """Begins a generation, and returns the samples that it has not seen, in order."""
        generation = begin_generation(self.run)
        readings = list(self.readings(generation.position.seen, generation.position.samples_seen))
        rows = self.recipe.batch_size // self.recipe.workers.max_size
        block_bytes = min(max(rows * self.row_bytes, _MIN_BLOCK_BYTES), _MAX_BLOCK_BYTES)
        return input_dataset(
            readings,
            self.feeding,
            self.recipe,
            block_bytes=block_bytes,
            reports=self.reports,
            generation=generation.number,
        )

    def readings(self, seen: Seen, samples_seen: int) -> Iterator[Reading]:
        """Yields groups that are not seen yet: as many as needed, at most `planned_groups`."""
        recipe = self.recipe
        needed = (recipe.samples_seen - samples_seen) * SPARE + recipe.batch_size
        planned = groups = 0
        for group in self.groups():
            if planned >= needed or groups >= recipe.feed.planned_groups:
                return
            spans = seen.of_group(group.number)
            if spans is None:
                continue
            yield Reading(self._located(group), spans)
            planned += group.samples - sum(end - first for first, end in spans)
            groups += 1

    def groups(self) -> Iterator[ShuffleGroup]:
        """Yields the groups of the run, without end."""
        recipe, sources = self.recipe, self.recipe.sources
        weights = [source.weight for source in sources]
        counts = [
            index.samples
            if source.sample_count is None
            else drawn_counts(index, source.sample_count, (recipe.seed, number))
            for number, (source, index) in enumerate(zip(sources, self.indexes, strict=True))
        ]
        return shuffled_groups(
            counts,
            None if None in weights else [weight for weight in weights if weight is not None],
            group_samples=recipe.feed.group_samples,
            seed=recipe.seed,
        )

    def _located(self, group: ShuffleGroup) -> GroupInputs:
        return GroupInputs(
            group, tuple(self.indexes[chunk.source].chunk(chunk.number) for chunk in group.chunks)
        )
