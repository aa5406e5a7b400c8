"""Comparison of filters: overlap of their subsets, rank correlation, and keep rates by subgroup.

Runs over the same pool are joined sample by sample, on the driver: 12 bytes per sample and run,
with subgroups 28 for the first one, and twice that during the join. Of a larger pool whole shards
are drawn, the same ones for all runs, and only the parts that contain some of them are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pydantic

from dfn_ray.config import count_of_fraction
from dfn_ray.errors import InputError
from dfn_ray.on_ray.footers import read_many_parts
from dfn_ray.report.gallery import scored_tables
from dfn_ray.report.mean_ranks import mean_ranks
from dfn_ray.report.subgroups import find_subgroups, keep_rates
from dfn_ray.run import (
    RUN,
    SELECTION,
    Run,
    deciding_network,
    open_run,
    parsed_json,
    require_scores,
    sample_position,
    shard_numbers,
)
from dfn_ray.storage import Store
from dfn_ray.uids.records import UID_DTYPE, uid_records

SAMPLES = 10_000_000
"""Approximate number of samples compared: 120 MB per run."""
_COMPARISON = "comparison.json"
COMPARISON_FORMAT: Final = 1
"""Version of the format of `comparison.json`."""


class _Mean(pydantic.BaseModel):
    mean: float


class _Arms(pydantic.BaseModel):
    dfn: _Mean


class _Metric(pydantic.BaseModel):
    network: float | None
    arms: _Arms


class _PipelineComparison(pydantic.BaseModel):
    """The fields that are read from `comparison.json`."""

    format: Literal[1]
    """COMPARISON_FORMAT."""
    metrics: dict[str, _Metric]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A run as one of several filters."""

    name: str
    score_N: np.ndarray
    """Float32 score of each sample that any of the filters scored; NaN if this one did not."""
    induced: Mapping[str, float]
    """Metrics of models trained on its subset, for pipelines: `set, metric` -> mean over seeds."""
    own: Mapping[str, float]
    """Metrics of its network itself, in the same form."""


@dataclass(frozen=True, kw_only=True)
class FilterComparison:
    """Comparison of several filters of one pool."""

    filters: tuple[Filter, ...]
    keep_fraction: float
    """Share of the samples scored by all filters that each keeps, for overlap and keep rates."""
    samples: int
    """Number of samples that all filters scored."""
    overlap: np.ndarray
    """(F, F): share of the kept samples that both keep."""
    spearman: np.ndarray
    """(F, F): Spearman's rank correlation of the scores."""
    keep_rates: Mapping[str, tuple[float, ...]]
    """Subgroup -> share that each filter keeps."""


def compare_runs(
    run_uris: Sequence[str],
    *,
    keep_fraction: float | None = None,
    groups_uri: str | None = None,
    samples: int = SAMPLES,
) -> FilterComparison:
    """Compares scored runs of one pool, or pipelines (`dfn-ray pipeline`) by their filtering runs.

    `groups_uri` is a Parquet file with a column `uid` and another one, the subgroup.
    `keep_fraction` None uses that of the first run's selection. Raises InputError when the runs are
    not of one pool, one has no scores, or only one is given.
    """
    if len(run_uris) < 2:
        raise InputError(f"compare: need at least two runs, got {len(run_uris)}")
    runs = [_filter_run(uri) for uri in run_uris]
    digests = [run.pool_digest for run in runs]
    for uri, digest in zip(run_uris, digests, strict=True):
        if digest != digests[0]:
            raise InputError(
                f"{uri}: has another pool than {run_uris[0]}; only runs of one pool can be compared"
            )
    chosen = _chosen_shards(runs[0], samples)
    tables = [
        _scores_by_place(run, chosen, with_uids=groups_uri is not None and run is runs[0])
        for run in runs
    ]
    place = np.unique(np.concatenate([table["place"] for table in tables]))
    filters = tuple(
        Filter(
            name=uri.rstrip("/").rsplit("/", 1)[-1],
            score_N=_at_places(table["place"], table["score"], place),
            **_achievements(uri),
        )
        for uri, table in zip(run_uris, tables, strict=True)
    )
    fraction = _own_fraction(runs[0]) if keep_fraction is None else keep_fraction
    both = np.all([np.isfinite(item.score_N) for item in filters], axis=0)
    scores = [item.score_N[both] for item in filters]
    kept = [_best(score, fraction) for score in scores]
    return FilterComparison(
        filters=filters,
        keep_fraction=fraction,
        samples=int(both.sum()),
        overlap=np.array([[_share(a, b) for b in kept] for a in kept]),
        spearman=np.corrcoef([mean_ranks(score) for score in scores]),
        keep_rates=keep_rates(kept, find_subgroups(groups_uri, tables[0], place[both])),
    )


def _filter_run(uri: str) -> Run:
    """The filtering run at a URI, or the one in the pipeline at that URI."""
    inner = f"{uri.rstrip('/')}/filter"
    return open_run(inner if Store(inner).exists(RUN) else uri)


def _achievements(uri: str) -> dict[str, Mapping[str, float]]:
    store = Store(uri)
    if not store.exists(_COMPARISON):
        return {"induced": {}, "own": {}}
    metrics: Mapping[str, Any] = parsed_json(
        store.read(_COMPARISON),
        store.uri_of(_COMPARISON),
        require_digest=False,
        shape=_PipelineComparison,
        advice="delete it, and run `dfn-ray pipeline` again to recreate it",
    )["metrics"]
    return {
        "induced": {name: metric["arms"]["dfn"]["mean"] for name, metric in metrics.items()},
        "own": {name: m["network"] for name, m in metrics.items() if m["network"] is not None},
    }


def _own_fraction(run: Run) -> float:
    selection = run.read_json(SELECTION)
    if selection is None:
        raise InputError(f"{run.store.uri}: has no selection; set --keep-fraction")
    scored = selection["counts"].get("scored", 0)
    return selection["k"] / scored if scored else 0.0


@dataclass(frozen=True)
class _Chosen:
    """The shards of a pool to compare."""

    index: Mapping[str, int]
    """Shard -> its number in the pool listing."""
    is_all: bool


def _chosen_shards(run: Run, samples: int) -> _Chosen:
    """Shards with about that many samples in total, spread evenly over the listing."""
    uris = run.listing()["uri"].to_pylist()
    step = max(1, round(_samples_of(run) / samples))
    return _Chosen({uri: n for n, uri in enumerate(uris) if n % step == 0}, step == 1)


def _samples_of(run: Run) -> int:
    """Number of samples in the pool, scored or not."""
    if (selection := run.read_json(SELECTION)) is not None:
        return selection["samples"]
    scored = require_scores(run)
    parts = read_many_parts(scored.store, scored.part_names())
    return sum(sum(part.header.counts.values()) for part in parts)


def _scores_by_place(run: Run, chosen: _Chosen, *, with_uids: bool) -> dict[str, np.ndarray]:
    """`place` (see `sample_position`) and `score` of the scored samples, each once, by place.

    With `with_uids` also `uid` records.
    """
    scored, network = require_scores(run), deciding_network(run)
    found: dict[str, list[np.ndarray]] = {
        "place": [np.empty(0, np.uint64)],
        "score": [np.empty(0, np.float32)],
    }
    if with_uids:
        found["uid"] = [np.empty(0, UID_DTYPE)]
    columns = ["shard", "row", *(["uid"] if with_uids else [])]
    for table in scored_tables(scored, network, columns, _parts_of(scored, chosen)):
        number = shard_numbers(table["shard"], chosen.index, other=-1)
        taken = number >= 0
        found["place"].append(sample_position(number, table["row"].to_numpy())[taken])
        found["score"].append(table["score"].to_numpy()[taken])
        if with_uids:
            found["uid"].append(uid_records(table["uid"].filter(pa.array(taken))))
    joined = {name: np.concatenate(found.pop(name)) for name in list(found)}
    _, first = np.unique(joined["place"], return_index=True)
    if not len(first):
        raise InputError(f"{run.uri}: has no scores of the compared samples")
    return {name: values[first] for name, values in joined.items()}


def _parts_of(scored: Run, chosen: _Chosen) -> list[str]:
    """Names of the parts with rows of the chosen shards, owners of duplicate chunks first."""
    names = sorted(scored.part_names(), reverse=True)
    if chosen.is_all:
        return names
    return [
        part.name
        for part in read_many_parts(scored.store, names)
        if any(chunk.shard in chosen.index for chunk in part.chunks)
    ]


def _at_places(place: np.ndarray, score: np.ndarray, everywhere: np.ndarray) -> np.ndarray:
    spread = np.full(len(everywhere), np.nan, dtype=np.float32)
    spread[np.searchsorted(everywhere, place)] = score
    return spread


def _best(score: np.ndarray, fraction: float) -> np.ndarray:
    """Mask of the best `fraction` of the samples; ties by place."""
    kept = np.zeros(len(score), dtype=bool)
    kept[np.argsort(-score, kind="stable")[: count_of_fraction(fraction, len(score))]] = True
    return kept


def _share(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, a.sum()))
