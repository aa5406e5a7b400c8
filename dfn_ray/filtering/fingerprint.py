"""Everything that changes scores, as JSON: what must be equal for a run to be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dfn_ray.clip.network import FrozenNetwork
from dfn_ray.config import Pool, Recipe

_NOT_SCORE_CHANGING_POOL = ("uri",)  # which shards there are is in the listing digest
_NOT_SCORE_CHANGING_DECODE = ("timeout_s", "cpus")


def pool_fingerprint(pool: Pool) -> dict[str, Any]:
    """What of `[pool]` decides which samples and chunks there are."""
    return {k: v for k, v in asdict(pool).items() if k not in _NOT_SCORE_CHANGING_POOL}


def scoring_fingerprint(recipe: Recipe, networks: Sequence[FrozenNetwork]) -> dict[str, Any]:
    """What of a recipe decides every row of `scores/`."""
    decode = asdict(recipe.decode)
    return {
        "pool": pool_fingerprint(recipe.pool),
        "rules": asdict(recipe.rules),
        "decode": {k: v for k, v in decode.items() if k not in _NOT_SCORE_CHANGING_DECODE},
        "networks": {network.name: network.fingerprint() for network in networks},
        "scorers": {
            "device": recipe.scorers.device,
            # Batches and compiled kernels round differently in the last bits.
            "batch_size": recipe.scorers.batch_size,
            "compile": recipe.scorers.compile,
            "keep_embeddings": recipe.scorers.keep_embeddings,
        },
    }
