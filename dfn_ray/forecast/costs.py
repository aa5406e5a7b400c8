"""Hours and money at n scorers, and whether decode or forward limits the current cluster."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import ceil

from dfn_ray.config import Prices, Recipe
from dfn_ray.forecast.estimate import Estimate, Interval
from dfn_ray.resolving.embedding_fingerprint import with_fixed_threads

PIPELINE_FRACTION = 0.8
"""Share of the lower limit that a run reaches: 0.81 was the lowest of 4 runs on an idle machine
(benchmarks/end_to_end.py)."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """Time and cost with this many scorers and the decode tasks that feed them."""

    scorers: int
    gpus: float
    cpus: float
    """CPUs of decode tasks and scorers together."""
    hours: Interval
    money: Interval | None
    """Price of the CPUs and GPUs for these hours; None without prices."""


def options(recipe: Recipe, found: Estimate, most: int) -> Iterator[Option]:
    """Yields options of 1, 2, 4, ... up to `most` scorers, with the decode tasks that feed them."""
    sizes = [2**power for power in range(most.bit_length()) if 2**power < most]
    for scorers in [*sizes, most]:
        rate = found.forward_per_s.value * scorers
        decoders = ceil(rate / found.decode_per_s.value)
        cpus = decoders * recipe.decode.cpus + scorers * _scorer_cpus(recipe)
        gpus = scorers * recipe.scorers.gpus
        hours = _hours(found, found.forward_per_s.map(lambda rate, n=scorers: n * rate))
        yield Option(
            scorers=scorers,
            gpus=gpus,
            cpus=cpus,
            hours=hours,
            money=hours.map(lambda hours, c=cpus, g=gpus: hours * hourly(recipe.prices, c, g))
            if recipe.prices
            else None,
        )


def hourly(prices: Prices | None, cpus: float, gpus: float) -> float:
    """Price per hour of this many CPUs and GPUs; 0 without prices."""
    return cpus * prices.cpu_hour + gpus * prices.gpu_hour if prices else 0.0


@dataclass(frozen=True, kw_only=True)
class ClusterForecast:
    """The rates of a recipe on a cluster of fixed size."""

    decode_per_s: float
    forward_per_s: float
    scorers: int
    bottleneck: str
    """`decode` or `forward`."""
    hours: Interval


def cluster_forecast(
    recipe: Recipe, found: Estimate, resources: Mapping[str, float]
) -> ClusterForecast:
    """The limits of these resources, and the hours at the lower one."""
    cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
    decode, forward = found.decode_per_s.value, found.forward_per_s.value
    most = recipe.scorers.max_size
    if recipe.scorers.device == "cpu":
        # Both share the CPUs: a sample costs the time of a decoder and of a scorer.
        each_s = recipe.decode.cpus / decode + _scorer_cpus(recipe) / forward
        rate = cpus / each_s
        scorers = most
        limits = (cpus / recipe.decode.cpus * decode, cpus / _scorer_cpus(recipe) * forward)
    else:
        scorers = min(most, int(gpus / recipe.scorers.gpus))
        limits = (cpus / recipe.decode.cpus * decode, scorers * forward)
        rate = min(limits)
    spread = found.decode_per_s if limits[0] < limits[1] else found.forward_per_s
    return ClusterForecast(
        decode_per_s=limits[0],
        forward_per_s=limits[1],
        scorers=scorers,
        bottleneck="decode" if limits[0] < limits[1] else "forward",
        hours=_hours(found, spread.map(lambda value: value / spread.value * rate)),
    )


def storage_money(prices: Prices, found: Estimate) -> tuple[float, float]:
    """The price of all requests and reads, and the price of storing the output for a month."""
    requests = found.gets / 1000 * prices.get_per_1000 + found.puts / 1000 * prices.put_per_1000
    output = found.subset_bytes.value + found.scores_bytes.value
    return requests + found.remote_bytes / 1e9 * prices.gb_read, output / 1e9 * prices.gb_month


def _scorer_cpus(recipe: Recipe) -> float:
    """CPUs that a scorer keeps busy: its threads on a CPU, its CPU reservation on a GPU."""
    scorers = with_fixed_threads(recipe.scorers)
    return float(scorers.threads or 1) if scorers.device == "cpu" else scorers.cpus


def _hours(found: Estimate, per_s: Interval) -> Interval:
    """Hours for all samples; the errors of rate and sample count are treated as independent."""
    value = found.samples.value / (per_s.value * PIPELINE_FRACTION) / 3600
    relative = [(figure.high - figure.low) / 2 / figure.value for figure in (found.samples, per_s)]
    away = value * sum(share**2 for share in relative) ** 0.5
    return Interval(value, max(0.0, value - away), value + away)
