"""Extrapolation from the pilot to the whole pool: samples, rates, output, requests, with intervals.

The pilot's shards are a random sample of the pool's. Samples within a shard are similar, so whole
shards are resampled (bootstrap), as calibration does for the threshold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from statistics import NormalDist

import numpy as np

from dfn_ray.config import Recipe, Select, count_of_fraction
from dfn_ray.forecast.pilot import Pilot, PilotShard
from dfn_ray.pool import Shard
from dfn_ray.storage import READ_AHEAD_BYTES, Store

CONFIDENCE = 0.9
"""Confidence level of all intervals."""
RESAMPLES = 400
"""As in calibration: enough to estimate a standard deviation to about 4 %."""
GETS_PER_PART = 14
"""Passes of selection and the uid list over the scores (6), the check that the run is held before
each write (4), files of the subset and of borderline rows (4): counted for a part with both."""
PUTS_PER_PART = 4
"""Files of scores, subset, borderline rows, and kept borderline rows."""
LISTED_PER_REQUEST = 1000
"""Names that S3 returns per request."""


@dataclass(frozen=True)
class Interval:
    """A figure and its CONFIDENCE interval; from a single shard, all three values are equal."""

    value: float
    low: float
    high: float

    def map(self, function: Callable[[float], float]) -> Interval:
        """The interval of a monotonic function of the figure."""
        ends = sorted((function(self.low), function(self.high)))
        return Interval(function(self.value), *ends)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """Figures of the whole pool: its samples, rates, output and requests."""

    shards: int
    pool_bytes: int
    samples: Interval
    statuses: Mapping[str, float]
    """Share of the samples that are `scored`, `rejected` and `failed`."""
    decode_per_s: Interval
    """Samples that one decode task reads and prepares per second, bad ones included."""
    read_fraction: float
    """Share of a decode task's time spent reading."""
    forward_per_s: Interval
    """Samples that one scorer processes per second, bad ones included."""
    kept: Interval
    subset_bytes: Interval
    scores_bytes: Interval
    gets: float
    """GET and HEAD requests for pool and run, if on an object store."""
    puts: float
    """PUT and LIST requests."""
    remote_bytes: float
    """Bytes read from an object store."""


def estimate(recipe: Recipe, pilot: Pilot, listed: Sequence[Shard]) -> Estimate:
    """The estimate for all listed shards, from a pilot."""
    readable = [shard for shard in listed if shard.fault is None]
    total = sum(shard.size_bytes for shard in readable)
    figures = _bootstrap(
        pilot.shards, lambda drawn: _figures(recipe.select, drawn, total), whole=len(readable)
    )
    samples, decode, forward, kept, subset_bytes = figures
    counts = Counter[str]()
    for shard in pilot.shards:
        for name, number in shard.counts.items():
            counts[name.partition("/")[0]] += number
    statuses = {name: number / counts.total() for name, number in counts.most_common()}
    seconds = sum(shard.read_s + shard.prepare_s for shard in pilot.shards)
    chunks = total * sum(s.chunks for s in pilot.shards) / sum(s.bytes_read for s in pilot.shards)
    gets, puts, remote = requests(recipe, readable, ceil(chunks / recipe.execution.chunks_per_part))
    return Estimate(
        shards=len(listed),
        pool_bytes=total,
        samples=samples,
        statuses=statuses,
        decode_per_s=decode,
        read_fraction=sum(shard.read_s for shard in pilot.shards) / seconds,
        forward_per_s=forward,
        kept=kept,
        subset_bytes=subset_bytes,
        scores_bytes=samples.map(lambda count: count * pilot.scores_bytes_per_row),
        gets=gets,
        puts=puts,
        remote_bytes=remote,
    )


def _figures(
    select: Select, drawn: Sequence[PilotShard], total_bytes: int
) -> tuple[float, float, float, float, float]:
    """Samples, decode and forward rate, kept samples and their bytes, extrapolated to the pool."""
    rows = sum(shard.rows for shard in drawn)
    samples = rows * total_bytes / max(1, sum(shard.bytes_read for shard in drawn))
    score_N = np.concatenate([shard.score_N for shard in drawn])
    bytes_N = np.concatenate([shard.kept_bytes_N for shard in drawn])
    kept = _kept_in_pilot(select, score_N, samples / max(1, rows))
    scale = samples / max(1, rows)
    return (
        samples,
        rows / max(1e-9, sum(shard.read_s + shard.prepare_s for shard in drawn)),
        rows / max(1e-9, sum(shard.score_s for shard in drawn)),
        float(min(kept.sum() * scale, select.keep_count or np.inf)),
        float(bytes_N[kept].sum() * scale),
    )


def _kept_in_pilot(select: Select, score_N: np.ndarray, scale: float) -> np.ndarray:
    """Mask of the pilot's samples that would be kept; each represents `scale` pool samples."""
    if select.threshold is not None:
        return score_N >= select.threshold
    if select.keep_fraction is not None:
        count = count_of_fraction(select.keep_fraction, len(score_N))
    else:
        count = round((select.keep_count or 0) / max(scale, 1e-9))
    best = np.argsort(-score_N, kind="stable")[:count]
    kept = np.zeros(len(score_N), dtype=bool)
    kept[best] = True
    return kept & np.isfinite(score_N)


def _bootstrap(
    shards: Sequence[PilotShard],
    figures: Callable[[Sequence[PilotShard]], Sequence[float]],
    *,
    whole: int,
) -> list[Interval]:
    """Each figure with its interval, by resampling whole shards."""
    values = figures(shards)
    count = len(shards)
    if count == 1:
        return [Interval(value, value, value) for value in values]
    rng = np.random.default_rng(0)
    spread = np.std(
        [figures([shards[i] for i in rng.integers(0, count, count)]) for _ in range(RESAMPLES)],
        axis=0,
        ddof=1,
    )
    # The first factor corrects the bootstrap's bias for few shards; the second accounts for shards
    # already read.
    spread *= np.sqrt(count / (count - 1)) * np.sqrt(max(0.0, 1 - count / (whole + 1)))
    reach = _student(0.5 + CONFIDENCE / 2, count - 1) * spread
    return [
        Interval(value, max(0.0, value - away), value + away)
        for value, away in zip(values, reach.tolist(), strict=True)
    ]


def _student(probability: float, freedom: int) -> float:
    """The quantile of Student's t distribution, by Abramowitz and Stegun 26.7.5.

    Accurate to 0.3 % at 3 degrees of freedom. Needed because the spread itself is estimated from
    only `freedom` + 1 shards.
    """
    z = NormalDist().inv_cdf(probability)
    terms = (
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
    )
    return z + sum(term / freedom**power for power, term in enumerate(terms, start=1))


def requests(recipe: Recipe, shards: Sequence[Shard], parts: int) -> tuple[float, float, float]:
    """Read requests, write and list requests, and bytes read, all of object stores only."""
    gets = puts = remote = 0.0
    if shards and not Store(shards[0].uri).is_local:
        # A tar is read in ranges of the read-ahead size; opening it takes one request for its size.
        gets += sum(1 + ceil(shard.size_bytes / READ_AHEAD_BYTES) for shard in shards)
        puts += ceil(len(shards) / LISTED_PER_REQUEST)
        remote += sum(shard.size_bytes for shard in shards)
    if not Store(recipe.run_uri).is_local:
        gets += GETS_PER_PART * parts
        puts += PUTS_PER_PART * parts
    return gets, puts, remote
