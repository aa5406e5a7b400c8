"""The Ray Data chains of evaluation; the only module of the package that names Ray operators."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import ray
from ray.data import ActorPoolStrategy, Dataset

from dfn_ray.config import EvaluateRecipe, Scorers
from dfn_ray.evaluation.embedder import EmbedderActor, start_embedder
from dfn_ray.evaluation.sets import LocatedSet
from dfn_ray.on_ray.actor_pools import ActorSupervisor
from dfn_ray.on_ray.cells import Cell, Stage, map_cells
from dfn_ray.on_ray.datasets import (
    TASK_RETRIES,
    cells_of,
    from_cells,
    ignore_retry_deprecation,
    read_pool,
)
from dfn_ray.on_ray.session import configure
from dfn_ray.on_ray.work import Work


def embed_set(
    located: LocatedSet, *, prepare: Stage, network: ray.ObjectRef, recipe: EvaluateRecipe
) -> Iterator[Cell]:
    """Reads, prepares and embeds a set; yields each chunk once it is embedded, in any order."""
    _configure(recipe)
    decode = recipe.decode
    with ignore_retry_deprecation():
        prepared = read_pool(
            [Work(shard) for shard in located.shards], located.pool, decode
        ).map_batches(
            partial(map_cells, stage=prepare),
            batch_size=None,
            batch_format="pyarrow",
            num_cpus=decode.cpus,
            num_gpus=0,
            resources=dict(decode.resources) or None,
            label_selector=dict(decode.labels) or None,
            max_retries=TASK_RETRIES,
        )
    return _embedded(prepared, network, recipe.scorers)


def embed_cells(
    cells: Sequence[Cell], *, network: ray.ObjectRef, recipe: EvaluateRecipe
) -> Iterator[Cell]:
    """Embeds cells that have inputs; yields each once it is embedded, in any order."""
    _configure(recipe)
    return _embedded(from_cells(cells), network, recipe.scorers)


def _embedded(prepared: Dataset, network: ray.ObjectRef, scorers: Scorers) -> Iterator[Cell]:
    supervisor = ActorSupervisor()
    with ignore_retry_deprecation():
        embedded = prepared.map_batches(
            EmbedderActor,
            fn_constructor_kwargs={
                "start": partial(start_embedder, network, scorers),
                "supervisor": supervisor,
            },
            batch_size=1,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(min_size=scorers.min_size, max_size=scorers.max_size),
            num_cpus=scorers.cpus,
            num_gpus=scorers.gpus,
            resources=dict(scorers.resources) or None,
            label_selector=dict(scorers.labels) or None,
            max_task_retries=TASK_RETRIES,
            ray_remote_args_fn=lambda: supervisor.next_actor_options(scorers),
        )
    return supervisor.kill_actors_after(cells_of(embedded))


def _configure(recipe: EvaluateRecipe) -> None:
    # A set that lacks some of its images is a different set, so no failed task is skipped.
    configure(errored_blocks=0, no_progress_timeout_s=recipe.no_progress_timeout_s)
