"""Bounds for the future threshold, from the scores of a random sample.

Scores above the bounds are surely kept and scores below surely dropped, so only samples between
them are undecided while scoring. If the true threshold falls outside, the result is the same, but
more bytes are moved.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from math import ceil, inf
from statistics import NormalDist

import numpy as np
import pyarrow.compute as pc

from dfn_ray.config import Calibration, Recipe, Select
from dfn_ray.filtering.scoring.bounds import EVERYTHING, NOTHING, Bounds
from dfn_ray.filtering.selecting.denominator import in_denominator
from dfn_ray.on_ray.work import Work
from dfn_ray.pool import Shard
from dfn_ray.run import Ledger, Run, read_parts, scan_parts
from dfn_ray.schema import Status, score_column

RESAMPLES = 400
"""Bootstrap resamples: enough for a standard deviation to about 4 %."""
MIN_SHARDS = 16
"""With fewer shards the interval is not reliable: everything stays borderline."""

COUNT_SLACK = 0.1
"""Relative error allowed for the estimated number of samples when a count is to be kept."""


def calibration_work(
    shards: Sequence[Shard], calibration: Calibration, ledger: Ledger, seed: str
) -> list[Work]:
    """The first rows of random shards, without shards already scored; the same for a given seed."""
    chosen = _chosen(shards, calibration, seed)
    rows = _rows_per_shard(calibration, len(chosen))
    return [
        Work(shard, first_rows=rows)
        for shard in chosen
        if not ledger.is_complete(shard.uri) and not ledger.open_chunks(shard.uri)
    ]


def bounds_from_scores(
    run: Run, recipe: Recipe, shards: Sequence[Shard], seed: str, names: Sequence[str]
) -> Bounds:
    """The bounds from the committed scores of the calibration shards, in the parts `names`."""
    select = recipe.select
    if select.threshold is not None:
        return _float32(select.threshold, select.threshold)
    chosen = _chosen(shards, recipe.calibration, seed)
    rows = _rows_per_shard(recipe.calibration, len(chosen))
    values = _values_by_shard(run, recipe, {shard.uri for shard in chosen}, rows, names)
    if len(values) < MIN_SHARDS:
        return EVERYTHING
    few, many = _keep_shares(run, select, shards, names)
    confidence = recipe.calibration.confidence
    hi = bootstrap_bounds(values, few, confidence, seed).hi
    return Bounds(bootstrap_bounds(values, many, confidence, seed).lo, hi)


def bootstrap_bounds(
    values: Sequence[np.ndarray], share: float, confidence: float, seed: str
) -> Bounds:
    """Confidence interval for the value that a `share` of all values reaches.

    Whole shards are resampled.
    `values` contains one float array per shard, -inf for samples without a score. Samples of a
    shard are alike, so the shard and not the sample is the resampled unit.
    """
    if share <= 0:
        return NOTHING
    rng = np.random.default_rng(int(seed[:16], 16))
    quantiles = []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([values[i] for i in rng.integers(0, len(values), len(values))])
        rank = min(len(drawn) - 1, ceil(share * len(drawn)) - 1)
        quantiles.append(np.partition(drawn, len(drawn) - 1 - rank)[len(drawn) - 1 - rank])
    spread = np.array(quantiles)
    if np.isneginf(spread).any():
        return _float32(-inf, float(spread.max()))
    reach = NormalDist().inv_cdf(0.5 + confidence / 2) * float(spread.std(ddof=1))
    return _float32(float(spread.mean()) - reach, float(spread.mean()) + reach)


def _chosen(shards: Sequence[Shard], calibration: Calibration, seed: str) -> list[Shard]:
    return random.Random(seed).sample(list(shards), min(calibration.shards, len(shards)))


def _rows_per_shard(calibration: Calibration, shards: int) -> int:
    return ceil(calibration.samples / max(1, shards))


def _keep_shares(
    run: Run, select: Select, shards: Sequence[Shard], names: Sequence[str]
) -> tuple[float, float]:
    """Lower and upper estimate of the share of samples to keep."""
    if select.keep_fraction is not None:
        return select.keep_fraction, select.keep_fraction
    assert select.keep_count is not None
    # The number of samples is known only at the end: estimated from the bytes of those read so far.
    chunks = [c for part in read_parts(run.store, names) for c in part.chunks]
    sample_bytes = sum(c.bytes_read for c in chunks) / max(1, sum(c.rows for c in chunks))
    samples = max(1.0, sum(shard.size_bytes for shard in shards) / max(1.0, sample_bytes))
    share = select.keep_count / samples
    return min(1.0, share * (1 - COUNT_SLACK)), min(1.0, share * (1 + COUNT_SLACK))


def _values_by_shard(
    run: Run, recipe: Recipe, shards: set[str], rows: int, names: Sequence[str]
) -> list[np.ndarray]:
    """Scores of the first rows of each shard, the `values` of `bootstrap_bounds`."""
    column = score_column(recipe.deciding_network)
    found: dict[str, list[np.ndarray]] = {}
    for _, part in scan_parts(run, ["shard", "row", "status", column], sorted(names)):
        first = part.filter(pc.less(part["row"], rows))
        table = first.filter(in_denominator(first["status"], recipe.select))
        score = table[column].to_numpy(zero_copy_only=False)
        scored = pc.equal(table["status"], Status.SCORED.value).to_numpy(zero_copy_only=False)
        values = np.where(scored, score, -np.inf)
        encoded = table["shard"].combine_chunks()
        for number, shard in enumerate(encoded.dictionary.to_pylist()):
            if shard in shards:
                here = encoded.indices.to_numpy(zero_copy_only=False) == number
                found.setdefault(shard, []).append(values[here])
    return [np.concatenate(found[shard]) for shard in sorted(found)]


def _float32(lo: float, hi: float) -> Bounds:
    """Bounds rounded to float32, so that float32 scores compare with them exactly everywhere."""
    return Bounds(float(np.float32(lo)), float(np.float32(hi)))
