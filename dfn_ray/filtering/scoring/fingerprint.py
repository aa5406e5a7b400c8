"""The fingerprint of a run as JSON: everything that changes scores, so must be equal to resume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from dfn_ray.config import Recipe
from dfn_ray.pool import Shard
from dfn_ray.resolving.embedding_fingerprint import (
    decode_fingerprint,
    forward_fingerprint,
    pool_fingerprint,
    reading_versions,
)


def settings_fingerprint(recipe: Recipe, shards: Sequence[Shard] | None = None) -> dict[str, Any]:
    """The part of the fingerprint that is known from recipe and shards, without the networks."""
    return {
        "versions": reading_versions(recipe.pool, shards),
        "pool": pool_fingerprint(recipe.pool),
        "rules": asdict(recipe.rules),
        "decode": decode_fingerprint(recipe.decode),
        "networks": {network.name: {"precision": network.precision} for network in recipe.networks},
        "scorers": {
            **forward_fingerprint(recipe.scorers),
            "keep_embeddings": recipe.scorers.keep_embeddings,
        },
        **({"captions": asdict(recipe.captions)} if recipe.pool.several_captions else {}),
    }


def scoring_fingerprint(
    recipe: Recipe,
    networks: Mapping[str, Mapping[str, Any]],
    shards: Sequence[Shard] | None = None,
) -> dict[str, Any]:
    """The fingerprint of a run's scores; `networks`: fingerprints of loaded networks by name."""
    return settings_fingerprint(recipe, shards) | {"networks": dict(networks)}


def settings_of(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a stored fingerprint that can be recomputed from the recipe alone.

    So that it can be compared with `settings_fingerprint` before any weights are loaded.
    """
    networks = fingerprint.get("networks", {})
    names = {name: {"precision": of.get("precision")} for name, of in networks.items()}
    return {**fingerprint, "networks": names}
