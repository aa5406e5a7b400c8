"""What the workers of a run are told. Loads no torch: Ray Train's own processes pass it on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from dfn_ray.config import TrainRecipe
from dfn_ray.run import Run


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """What all workers of a run are told."""

    run: Run
    recipe: TrainRecipe
    network: ray.ObjectRef
    """The FrozenNetwork to start from."""
    until_samples: int
    """Stop once no whole batch fits below this; a checkpoint is committed then."""
    read: Mapping[str, int]
    """What indexing read and failed, over all sources: `SourceCounts.counts`."""
    reports: Any = None
    """The `fit.Reports` actor."""


def network_folder(samples_seen: int | None = None) -> str:
    """Where the trained network stands in a run: the result, or as it was after some samples."""
    return "network" if samples_seen is None else f"networks/samples-{samples_seen:012d}"
