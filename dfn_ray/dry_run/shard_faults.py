"""Bad shards that the listing alone reveals, against the limit that a recipe sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from dfn_ray.config import Recipe
from dfn_ray.dry_run.finding import Finding
from dfn_ray.errors import InputError
from dfn_ray.pool import Shard


@dataclass(frozen=True)
class BadShardLimit:
    """The share of a pool's shards that may be bad before a verb stops."""

    setting: str
    """Its dotted name in the recipe."""
    fraction: float


def execution_limit(recipe: Recipe, prefix: str = "") -> BadShardLimit:
    """The limit of a filtering recipe; `prefix` locates its settings in an enclosing recipe."""
    setting = f"{prefix}execution.max_bad_shard_fraction"
    return BadShardLimit(setting, recipe.execution.max_bad_shard_fraction)


def listing_finding(
    name: str, text: str, shards: Sequence[Shard], limit: BadShardLimit | None
) -> Finding:
    """A listing in one line: `text`, then its bad shards by fault; a change above the limit.

    `limit` is None if no number of bad shards stops the verb.
    """
    bad = [shard for shard in shards if shard.fault is not None]
    if not bad:
        return Finding(name, text)
    faults = Counter(str(shard.fault) for shard in bad)
    counts = ", ".join(f"{count:,} {fault}" for fault, count in faults.most_common())
    text += f", {len(bad):,} of them bad ({counts}), the first is {bad[0].uri}"
    if limit is None or len(bad) <= limit.fraction * len(shards):
        return Finding(name, text)
    text += (
        f". That is more than {limit.setting} = {limit.fraction:g} allows. Restore these shards, "
        "exclude them from the pool's uri, or raise the limit"
    )
    return Finding(name, text, ok=False, error=InputError(f"{name}: {text}"))
