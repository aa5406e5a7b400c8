"""The Ray Data chains of evaluation, and its only module that names Ray operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import ray
from ray.data import Dataset

from dfn_ray.config import EvaluateRecipe, Scorers
from dfn_ray.evaluation.embedder import EmbedderActor
from dfn_ray.evaluation.sets import LocatedSet
from dfn_ray.on_ray.actor_pools import ActorSupervisor, pool_arguments
from dfn_ray.on_ray.cells import Cell, Stage
from dfn_ray.on_ray.datasets import (
    Work,
    cells_of,
    from_cells,
    ignore_retry_deprecation,
    read_pool,
    stage_arguments,
)
from dfn_ray.on_ray.session import configure


def embed_set(
    located: LocatedSet, *, prepare: Stage, network: ray.ObjectRef, recipe: EvaluateRecipe
) -> Iterator[Cell]:
    """Read, prepare and embed a set; yields each chunk once it is embedded, in no order."""
    _configure(recipe)
    with ignore_retry_deprecation():
        prepared = read_pool(
            [Work(shard) for shard in located.shards], located.pool, recipe.decode
        ).map_batches(**stage_arguments(prepare, recipe.decode))
    return _embedded(prepared, network, recipe.scorers)


def embed_cells(
    cells: Sequence[Cell], *, network: ray.ObjectRef, recipe: EvaluateRecipe
) -> Iterator[Cell]:
    """Embed cells that have their inputs; yields each once it is embedded, in no order."""
    _configure(recipe)
    return _embedded(from_cells(cells), network, recipe.scorers)


def _embedded(prepared: Dataset, network: ray.ObjectRef, scorers: Scorers) -> Iterator[Cell]:
    supervisor = ActorSupervisor()
    with ignore_retry_deprecation():
        embedded = prepared.map_batches(
            EmbedderActor,
            fn_constructor_args=(network, scorers, supervisor),
            **pool_arguments(scorers, supervisor),
        )
    return supervisor.kill_actors_after(cells_of(embedded))


def _configure(recipe: EvaluateRecipe) -> None:
    # A set without some of its images is another set: nothing is left out, what keeps dying stops the run.
    configure(errored_blocks=0, no_progress_timeout_s=recipe.no_progress_timeout_s)
