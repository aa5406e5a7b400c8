"""Everything that changes scores, as JSON: what must be equal for a run to be resumed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from dfn_ray.clip.network import FrozenNetwork
from dfn_ray.config import Recipe
from dfn_ray.flow.fingerprint import (
    decode_fingerprint,
    forward_fingerprint,
    pool_fingerprint,
)


def scoring_fingerprint(recipe: Recipe, networks: Sequence[FrozenNetwork]) -> dict[str, Any]:
    """What of a recipe decides every row of `scores/`."""
    return {
        "pool": pool_fingerprint(recipe.pool),
        "rules": asdict(recipe.rules),
        "decode": decode_fingerprint(recipe.decode),
        "networks": {network.name: network.fingerprint() for network in networks},
        "scorers": {
            **forward_fingerprint(recipe.scorers),
            "keep_embeddings": recipe.scorers.keep_embeddings,
        },
    }
