"""Everything that changes scores, as JSON: what must be equal for a run to be resumed."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from dfn_ray.config import Pool, Recipe

_NOT_SCORE_CHANGING_POOL = ("uri",)  # which shards there are is in the listing digest
_NOT_SCORE_CHANGING_DECODE = ("timeout_s", "cpus")


def with_threads(recipe: Recipe) -> Recipe:
    """The recipe with the number of CPU threads settled where scores depend on it: on the CPU.

    float32 sums are split over the threads: scores of 1 and 2 threads differ by up to 1.5e-7. So the number is
    taken from the driver's machine, once, and is the same for every scorer wherever it runs.
    """
    if recipe.scorers.device != "cpu" or recipe.scorers.threads is not None:
        return recipe
    return replace(recipe, scorers=replace(recipe.scorers, threads=os.cpu_count() or 1))


def pool_fingerprint(pool: Pool) -> dict[str, Any]:
    """What of `[pool]` decides which samples and chunks there are."""
    return {k: v for k, v in asdict(pool).items() if k not in _NOT_SCORE_CHANGING_POOL}


def score_changing_decode(values: Mapping[str, Any]) -> dict[str, Any]:
    """What of `[decode]` changes pixels or which images fail."""
    return {k: v for k, v in values.items() if k not in _NOT_SCORE_CHANGING_DECODE}


def settings_fingerprint(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe changes scores, as far as it is known without loading the networks."""
    scorers = recipe.scorers
    return {
        "pool": pool_fingerprint(recipe.pool),
        "rules": asdict(recipe.rules),
        "decode": score_changing_decode(asdict(recipe.decode)),
        "networks": {network.name: {"precision": network.precision} for network in recipe.networks},
        "scorers": {
            "device": scorers.device,
            # Batches, threads and compiled kernels round differently in the last bits.
            "batch_size": scorers.batch_size,
            "threads": with_threads(recipe).scorers.threads if scorers.device == "cpu" else None,
            "compile": scorers.compile,
            "keep_embeddings": scorers.keep_embeddings,
        },
    }


def scoring_fingerprint(
    recipe: Recipe, networks: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """What of a recipe decides every row of `scores/`; `networks` are the fingerprints of the loaded ones, by name."""
    return settings_fingerprint(recipe) | {"networks": dict(networks)}


def settings_of(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """What of a run's `scoring_fingerprint` the `settings_fingerprint` of its recipe has."""
    networks = fingerprint.get("networks", {})
    names = {name: {"precision": of.get("precision")} for name, of in networks.items()}
    return {**fingerprint, "networks": names}
