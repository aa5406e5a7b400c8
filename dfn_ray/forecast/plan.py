"""`dfn-ray plan`: time and cost of a recipe, from a pilot over a few shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from dfn_ray.config import Recipe
from dfn_ray.console.tables import duration, grid, size, table
from dfn_ray.forecast.costs import (
    PIPELINE_FRACTION,
    Option,
    cluster_forecast,
    options,
    storage_money,
)
from dfn_ray.forecast.estimate import CONFIDENCE, Estimate, Interval, estimate
from dfn_ray.forecast.pilot import Pilot, run_pilot
from dfn_ray.forecast.stage_rates import timed
from dfn_ray.on_ray.nodes import cluster_resources
from dfn_ray.on_ray.session import connect
from dfn_ray.pool import list_pool, listing_notes
from dfn_ray.resolving.embedding_fingerprint import recipe_with_fixed_threads
from dfn_ray.resolving.fetch_networks import fetch_networks


def plan(
    recipe: Recipe,
    *,
    shards: int,
    samples: int,
    gpus: float | None = None,
    say: Callable[[str], None],
) -> Estimate:
    """Runs a pilot, reports the estimate for the whole pool, and returns it; writes nothing.

    Intervals narrow with 1 / sqrt(shards). `gpus` is the upper end of the printed table; None
    stands for scorers.max_size scorers. Raises InputError when pool or networks cannot be read,
    NotReadyError when the cluster has no capacity for the recipe.
    """
    listing = list_pool(recipe.pool)
    listed = listing.shards
    recipe = recipe_with_fixed_threads(recipe)
    networks = fetch_networks(recipe)
    connect()
    pilot, seconds = timed(
        lambda: run_pilot(recipe, networks, listed, count=shards, samples=samples)
    )
    found = estimate(recipe, pilot, listed)
    for note in listing_notes(listing):
        say(note)
    say(table(list(_rows(recipe, pilot, found, cluster_resources(), seconds))))
    say("")
    say(_grid(recipe, list(options(recipe, found, most_scorers(recipe, gpus)))))
    say("")
    say("\n".join(_assumptions(recipe, pilot)))
    return found


def most_scorers(recipe: Recipe, gpus: float | None) -> int:
    """The largest number of scorers in a plan: as many as fit `gpus`, else scorers.max_size."""
    if gpus is None or not recipe.scorers.gpus:
        return recipe.scorers.max_size
    return max(1, int(gpus / recipe.scorers.gpus))


def _rows(
    recipe: Recipe,
    pilot: Pilot,
    found: Estimate,
    resources: Mapping[str, float],
    seconds: float,
) -> Iterator[tuple[str, str]]:
    rows = sum(shard.rows for shard in pilot.shards)
    yield (
        "pilot",
        f"{len(pilot.shards):,} of {found.shards:,} shards, {rows:,} samples, {duration(seconds)}; "
        f"{pilot.decoders} decode tasks at once, then 1 scorer on {pilot.device}",
    )
    yield "pool", f"{count_text(found.samples)} samples, {size(found.pool_bytes)}"
    yield "", ", ".join(f"{share:.1%} {name}" for name, share in found.statuses.items())
    yield (
        "decode",
        f"{count_text(found.decode_per_s)} samples/s per decode task, {found.read_fraction:.0%} of "
        "the time spent reading",
    )
    yield "forward", f"{count_text(found.forward_per_s)} samples/s per scorer"
    feeds = found.forward_per_s.value / found.decode_per_s.value
    yield (
        "balance",
        f"{feeds:.2g} decode tasks ({feeds * recipe.decode.cpus:.2g} CPUs) feed one scorer",
    )
    now = cluster_forecast(recipe, found, resources)
    offered = f"{resources.get('CPU', 0):g} CPUs, {resources.get('GPU', 0):g} GPUs"
    if now.scorers:
        yield (
            "this cluster",
            f"{offered}: decode {_round(now.decode_per_s)}/s, forward "
            f"{_round(now.forward_per_s)}/s, limited by {now.bottleneck}: {hours_text(now.hours)}",
        )
    else:
        yield "this cluster", f"{offered}: no scorer fits"
    yield "subset", f"{count_text(found.kept)} samples, {size_text(found.subset_bytes)}"
    yield "scores", size_text(found.scores_bytes)
    if found.gets or found.puts:
        yield (
            "requests",
            f"about {_round(found.gets)} GET and HEAD, {_round(found.puts)} PUT and LIST; "
            f"{size(found.remote_bytes)} read",
        )
    if recipe.prices is not None:
        once, monthly = storage_money(recipe.prices, found)
        currency = recipe.prices.currency
        yield (
            "storage",
            f"{once:,.2f} {currency} for requests and reads, {monthly:,.2f} {currency} per month "
            "for the output",
        )


def _grid(recipe: Recipe, found: list[Option]) -> str:
    """A row for each number of scorers; columns of GPUs and money if there are any."""
    columns = {
        "scorers": [f"{option.scorers:,}" for option in found],
        "GPUs": [f"{option.gpus:g}" for option in found] if recipe.scorers.gpus else None,
        "CPUs": [f"{option.cpus:g}" for option in found],
        "time": [hours_text(option.hours) for option in found],
    }
    if recipe.prices:
        columns[recipe.prices.currency] = [money_text(o.money) for o in found if o.money]
    shown = {name: cells for name, cells in columns.items() if cells is not None}
    return grid(list(shown), list(zip(*shown.values(), strict=True)), numbers=0)


def _assumptions(recipe: Recipe, pilot: Pilot) -> Iterator[str]:
    if len(pilot.shards) > 1:
        yield (
            f"In parentheses: {CONFIDENCE:.0%} bootstrap intervals over the {len(pilot.shards)} "
            "shards. They cover differences between shards, not between machines."
        )
    yield (
        f"Assumed: a run reaches {PIPELINE_FRACTION} of the lower of the two limits (decode, "
        "forward); all nodes are like the pilot's and available from the start;"
    )
    yield (
        "the number of samples is proportional to bytes; each byte of the pool is read once; CPUs "
        "include those of decode tasks and scorers, but not the head node."
    )
    if recipe.scorers.device == "cpu":
        yield (
            "On CPUs, a scorer and its decoders share a node's cores, so rates that were measured "
            "separately are the best case."
        )
    if recipe.prices is None:
        yield "Add [prices] to the recipe to see costs."


def count_text(value: Interval) -> str:
    """A number with its interval."""
    return _with_interval(value, _round)


def size_text(value: Interval) -> str:
    """Bytes with their interval."""
    return _with_interval(value, size)


def hours_text(value: Interval) -> str:
    """Hours in readable units, with their interval."""
    return _with_interval(value, lambda hours: duration(hours * 3600))


def money_text(value: Interval) -> str:
    """Money with its interval."""
    return _with_interval(value, lambda money: f"{money:,.2f}")


def _with_interval(value: Interval, shown: Callable[[float], str]) -> str:
    if value.low == value.high:
        return shown(value.value)
    return f"{shown(value.value)} ({shown(value.low)} to {shown(value.high)})"


def _round(value: float) -> str:
    """Three significant digits, four from 1,000 on."""
    return f"{float(f'{value:.{3 if value < 999.5 else 4}g}'):,.10g}"
