"""The input of a run's workers, without importing torch: Ray Train's processes load it too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import ray

from dfn_ray.config import TrainRecipe
from dfn_ray.run import Run


@dataclass(frozen=True, kw_only=True)
class WorkerSpec:
    """The input that all workers of a run receive."""

    run: Run
    recipe: TrainRecipe
    network: ray.ObjectRef
    """The PackedNetwork to start from."""
    until_samples: int
    """Workers stop, after a checkpoint, once no whole batch fits below this."""
    read: Mapping[str, int]
    """Samples read and failed in indexing, over all sources: `SourceCounts.counts`."""
    reports: Any = None
    """The `fit.Reports` actor."""


def trained_network_folder(samples_seen: int | None = None) -> str:
    """Returns the network's folder in a run: the result, or the export at `samples_seen`."""
    return "network" if samples_seen is None else f"networks/samples-{samples_seen:012d}"
