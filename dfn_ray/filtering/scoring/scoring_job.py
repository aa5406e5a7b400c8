"""A scoring job: a run opened for scoring, with its networks, commits, progress and budget."""

from __future__ import annotations

from dataclasses import dataclass, field

from dfn_ray.config import Recipe, recipe_values
from dfn_ray.console.progress import Progress
from dfn_ray.filtering.preflight import accepted_by, refuse_other_rule, refuse_other_scoring
from dfn_ray.filtering.scoring.fingerprint import scoring_fingerprint
from dfn_ray.filtering.scoring.spending import CostMeter
from dfn_ray.network.packed import PackedNetwork
from dfn_ray.on_ray.cells import UnreadShard
from dfn_ray.on_ray.footers import read_many_parts
from dfn_ray.on_ray.ray_metrics import PoolMetrics
from dfn_ray.pool import Shard, list_pool, listing_notes, listing_table
from dfn_ray.resolving.embedding_fingerprint import recipe_with_fixed_threads
from dfn_ray.resolving.fetch_networks import fetch_networks
from dfn_ray.run import Ledger, Run, RunIdentity, RunKind, existing_run, scan_ledger, start_run


@dataclass(frozen=True)
class ScoringJob:
    """A run being scored: recipe, pool, networks, and the state of its commits."""

    recipe: Recipe
    run: Run
    shards: tuple[Shard, ...]
    networks: tuple[PackedNetwork, ...]
    ledger: Ledger
    progress: Progress = field(repr=False)
    metrics: PoolMetrics = field(repr=False)
    meter: CostMeter = field(repr=False)
    total_bytes: int
    """Size of all shards."""
    unread: dict[str, UnreadShard] = field(default_factory=dict)
    """Shards whose last read failed, because of their store or because they have changed."""


def open_job(recipe: Recipe, *, keep_bytes: bool) -> ScoringJob:
    """The job of a recipe, its run created or resumed. Raises as `score_pool` before it starts.

    `keep_bytes`: the run will also be settled, so that one of another rule is refused.
    """
    existing = existing_run(recipe.run_uri)
    if existing is not None and keep_bytes:
        refuse_other_rule(existing, recipe)
    recipe = recipe_with_fixed_threads(recipe)
    listing = list_pool(recipe.pool)
    shards = listing.shards
    refuse_other_scoring(recipe, shards, existing)
    networks = fetch_networks(recipe)
    run = start_run(
        recipe.run_uri,
        RunIdentity(
            kind=RunKind.FILTER,
            fingerprint=scoring_fingerprint(
                recipe, {network.name: network.fingerprint() for network in networks}, shards
            ),
            listing=listing_table(shards),
        ),
        recipe=recipe_values(recipe),
        accept=accepted_by(recipe),
    )
    ledger = scan_ledger(run.store, run.fingerprint, read=read_many_parts)
    total_bytes = sum(shard.size_bytes for shard in shards)
    progress = Progress(total_bytes)
    progress.resume(ledger.samples, ledger.bytes_read, ledger.counts, ledger.notes)
    for note in (*listing_notes(listing), *run.notes()):
        progress.say(note)
    metrics = PoolMetrics(
        recipe.run_uri,
        shards=len(shards),
        total_bytes=total_bytes,
        network=recipe.deciding_network,
    )
    metrics.resume(ledger)
    progress.say(
        f"{len(shards):,} shards, {ledger.complete_shards:,} of them scored before; run "
        f"{recipe.run_uri}"
    )
    meter = CostMeter(recipe, run)
    return ScoringJob(
        recipe, run, shards, networks, ledger, progress, metrics, meter, total_bytes=total_bytes
    )
