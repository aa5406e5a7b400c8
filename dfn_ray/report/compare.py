"""Filters side by side: how much of what one keeps the other keeps, how alike they rank, whom they keep.

Runs over the same pool are joined sample by sample, on the driver: 12 bytes a sample and run, with subgroups 28 of the
first one, and twice that while they are put together. Of a larger pool whole shards are drawn, the same ones for all
runs, and only the parts that hold some of these are read.
"""

# pyright: reportAttributeAccessIssue=false
# (pyarrow makes its compute functions at import, where no type checker sees them)
from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pydantic
from matplotlib.figure import Figure

from dfn_ray.config import count_of_fraction
from dfn_ray.console.tables import grid
from dfn_ray.errors import InputError
from dfn_ray.report.gallery import scored_tables
from dfn_ray.run import (
    Run,
    open_run,
    parsed_json,
    read_parts,
    require_scores,
    sample_position,
    selecting_network,
    shard_numbers,
)
from dfn_ray.storage import Store, open_uri
from dfn_ray.uids.records import UID_DTYPE, uid_records
from dfn_ray.untrusted.parquet_files import opened_parquet

SAMPLES = 10_000_000
"""Samples compared, about: 120 MB a run."""
_COMPARISON = "comparison.json"


class _Mean(pydantic.BaseModel):
    mean: float


class _Arms(pydantic.BaseModel):
    dfn: _Mean


class _Metric(pydantic.BaseModel):
    network: float | None
    arms: _Arms


class _Story(pydantic.BaseModel):
    """What is read of `comparison.json`."""

    metrics: dict[str, _Metric]


@dataclass(frozen=True, kw_only=True)
class Filter:
    """A run as one of several filters."""

    name: str
    score_N: np.ndarray
    """Float32 score of each sample that any of the filters scored; NaN where this one did not."""
    induced: Mapping[str, float]
    """What models trained on its subset achieve, where the run is a story's: `set, metric` -> mean over seeds."""
    own: Mapping[str, float]
    """What its network achieves by itself, likewise."""


@dataclass(frozen=True, kw_only=True)
class FilterComparison:
    """Several filters of one pool."""

    filters: tuple[Filter, ...]
    keep_fraction: float
    """Of the samples that all filters scored, for the overlap and the keep rates."""
    samples: int
    """That all filters scored."""
    overlap: np.ndarray
    """(F, F): share of the kept that both keep."""
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
    """Compare scored runs of one pool, or whole stories (`dfn-ray pipeline`) by the filters in them.

    `groups_uri` is a Parquet file with columns `uid` and one more, the subgroup. `keep_fraction`: None takes that of
    the first run's selection. Raises InputError when the runs are not of one pool, when one has no scores, or only one
    is given.
    """
    if len(run_uris) < 2:
        raise InputError(f"compare: need at least two runs, got {len(run_uris)}")
    runs = [_filter_run(uri) for uri in run_uris]
    digests = [run.pool_digest for run in runs]
    for uri, digest in zip(run_uris, digests, strict=True):
        if digest != digests[0]:
            raise InputError(
                f"{uri}: has another pool than {run_uris[0]}; only one pool's can be compared"
            )
    chosen = _chosen_shards(runs[0], samples)
    tables = [
        _scores(run, chosen, with_uids=groups_uri is not None and run is runs[0]) for run in runs
    ]
    place = np.unique(np.concatenate([table["place"] for table in tables]))
    filters = tuple(
        Filter(
            name=uri.rstrip("/").rsplit("/", 1)[-1],
            score_N=_spread(table["place"], table["score"], place),
            **_achievements(uri),
        )
        for uri, table in zip(run_uris, tables, strict=True)
    )
    fraction = _own_fraction(runs[0]) if keep_fraction is None else keep_fraction
    both = np.all([np.isfinite(item.score_N) for item in filters], axis=0)
    scores = [item.score_N[both] for item in filters]
    kept = [_kept(score, fraction) for score in scores]
    return FilterComparison(
        filters=filters,
        keep_fraction=fraction,
        samples=int(both.sum()),
        overlap=np.array([[_share(a, b) for b in kept] for a in kept]),
        spearman=np.corrcoef([_ranks(score) for score in scores]),
        keep_rates=_keep_rates(kept, _groups(groups_uri, tables[0], place[both])),
    )


def comparison_lines(found: FilterComparison) -> str:
    """The comparison for people."""
    names = [item.name for item in found.filters]
    header = (
        f"{found.samples:,} samples that all scored; the best {found.keep_fraction:.1%} of each"
    )
    parts = [
        header,
        grid(("overlap", *names), _rows(names, found.overlap), numbers=1),
        grid(("Spearman", *names), _rows(names, found.spearman), numbers=1),
    ]
    if found.keep_rates:
        rows = [
            (group, *(f"{rate:.1%}" for rate in rates)) for group, rates in found.keep_rates.items()
        ]
        parts.append(grid(("kept of", *names), rows, numbers=1))
    metrics = sorted({name for item in found.filters for name in item.induced})
    for metric in metrics:
        rows = [
            (item.name, _figure(item.own.get(metric)), _figure(item.induced.get(metric)))
            for item in found.filters
        ]
        parts.append(grid((metric, "the filter itself", "trained on its subset"), rows, numbers=1))
    return "\n\n".join(parts)


def draw_comparison(found: FilterComparison) -> bytes:
    """A PNG: overlap and rank correlation, and, where models were trained, the filter's own figure against theirs."""
    names = [item.name for item in found.filters]
    metric = next((name for item in found.filters for name in item.induced), None)
    panels = 2 if metric is None else 3
    figure = Figure(figsize=(5.2 * panels, 4.6), dpi=110, facecolor="white")
    for at, (title, values) in enumerate(
        ((f"overlap at {found.keep_fraction:.0%}", found.overlap), ("Spearman", found.spearman))
    ):
        axes = figure.add_subplot(1, panels, at + 1)
        axes.imshow(values, vmin=0, vmax=1, cmap="Greens")
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        axes.set_yticks(range(len(names)), names)
        for (row, column), value in np.ndenumerate(values):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="#222222")
        axes.set_title(title, loc="left")
    if metric is not None:
        axes = figure.add_subplot(1, panels, 3)
        for item in found.filters:
            if metric in item.induced:
                own = item.own.get(metric, 0.0)
                axes.scatter(own, item.induced[metric], color="#2a7f62", s=40)
                axes.annotate(f"  {item.name}", (own, item.induced[metric]))
        axes.set_xlabel(f"the filter itself: {metric}")
        axes.set_ylabel("trained on its subset")
        axes.set_title("a good filter need not be a good model", loc="left")
    figure.tight_layout()
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _filter_run(uri: str) -> Run:
    """The filtering run at a URI, or in the story at it."""
    inner = f"{uri.rstrip('/')}/filter"
    return open_run(inner if Store(inner).exists("run.json") else uri)


def _achievements(uri: str) -> dict[str, Mapping[str, float]]:
    store = Store(uri)
    if not store.exists(_COMPARISON):
        return {"induced": {}, "own": {}}
    metrics: Mapping[str, Any] = parsed_json(
        store.read(_COMPARISON),
        store.uri_of(_COMPARISON),
        must=False,
        shape=_Story,
        advice="delete it, and dfn-ray pipeline makes it again",
    )["metrics"]
    return {
        "induced": {name: metric["arms"]["dfn"]["mean"] for name, metric in metrics.items()},
        "own": {name: m["network"] for name, m in metrics.items() if m["network"] is not None},
    }


def _own_fraction(run: Run) -> float:
    selection = run.read_json("selection.json")
    if selection is None:
        raise InputError(
            f"{run.store.uri}: has no selection; say at which --keep-fraction to compare"
        )
    scored = selection["counts"].get("scored", 0)
    return selection["k"] / scored if scored else 0.0


@dataclass(frozen=True)
class _Chosen:
    """Shards of a pool."""

    index: Mapping[str, int]
    """Shard -> its number in the pool listing."""
    is_all: bool


def _chosen_shards(run: Run, samples: int) -> _Chosen:
    """As many shards as hold about that many samples, spread over the listing."""
    uris = run.listing()["uri"].to_pylist()
    step = max(1, round(_samples_of(run) / samples))
    return _Chosen({uri: n for n, uri in enumerate(uris) if n % step == 0}, step == 1)


def _samples_of(run: Run) -> int:
    """Samples of the pool, scored or not."""
    if (selection := run.read_json("selection.json")) is not None:
        return selection["samples"]
    scored = require_scores(run)
    parts = read_parts(scored.store, scored.part_names())
    return sum(sum(part.header.counts.values()) for part in parts)


def _scores(run: Run, chosen: _Chosen, *, with_uids: bool) -> dict[str, np.ndarray]:
    """`place` (see `sample_position`) and `score` of the scored samples, by place, each once; `uid` records if asked for."""
    scored, network = require_scores(run), selecting_network(run)
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
        raise InputError(f"{run.uri}: has no scores of the samples compared")
    return {name: values[first] for name, values in joined.items()}


def _parts_of(scored: Run, chosen: _Chosen) -> list[str]:
    """Names of the parts with rows of some shards, by their footers: first the one that owns a doubled chunk."""
    names = sorted(scored.part_names(), reverse=True)
    if chosen.is_all:
        return names
    return [
        part.name
        for part in read_parts(scored.store, names)
        if any(chunk.shard in chosen.index for chunk in part.chunks)
    ]


def _spread(place: np.ndarray, score: np.ndarray, everywhere: np.ndarray) -> np.ndarray:
    spread = np.full(len(everywhere), np.nan, dtype=np.float32)
    spread[np.searchsorted(everywhere, place)] = score
    return spread


def _kept(score: np.ndarray, fraction: float) -> np.ndarray:
    """The best share of the samples; ties by place."""
    kept = np.zeros(len(score), dtype=bool)
    kept[np.argsort(-score, kind="stable")[: count_of_fraction(fraction, len(score))]] = True
    return kept


def _share(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max(1, a.sum()))


def _ranks(score: np.ndarray) -> np.ndarray:
    """Ranks, equal scores sharing their mean rank."""
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return ((ends - counts + ends - 1) / 2)[inverse.reshape(-1)]


@dataclass(frozen=True)
class _Groups:
    """The subgroup of each sample, as its number among the names."""

    names: tuple[str, ...]
    number_N: np.ndarray


def _groups(uri: str | None, table: Mapping[str, np.ndarray], place: np.ndarray) -> _Groups | None:
    """The subgroup of each sample at `place`, which `table` has all, or None without a file."""
    if uri is None:
        return None
    groups = _read_groups(uri)
    others = [name for name in groups.column_names if name != "uid"]
    uids = table["uid"][np.searchsorted(table["place"], place)]
    at = pc.index_in(_octets(uids), _octets(uid_records(groups["uid"].cast(pa.string()))))
    named = groups[others[-1]].cast(pa.string()).combine_chunks().take(at)
    encoded = pc.fill_null(named, "unknown").dictionary_encode()
    return _Groups(tuple(encoded.dictionary.to_pylist()), encoded.indices.to_numpy())


def _read_groups(uri: str) -> pa.Table:
    try:
        with open_uri(uri, in_order=False) as file:
            groups = opened_parquet(file).read()
    except pa.ArrowException as error:
        raise InputError(f"{uri}: is no Parquet file that can be read: {error}") from None
    if len(groups.column_names) < 2 or "uid" not in groups.column_names:
        raise InputError(
            f"{uri}: need columns uid and the subgroup, got {', '.join(groups.column_names)}"
        )
    return groups


def _octets(uids: np.ndarray) -> pa.Array:
    """Uid records as values that Arrow can look up."""
    data = pa.py_buffer(np.ascontiguousarray(uids).view(np.uint8))
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(UID_DTYPE.itemsize), len(uids), [None, data]
    )


def _keep_rates(kept: Sequence[np.ndarray], groups: _Groups | None) -> dict[str, tuple[float, ...]]:
    """By subgroup, in the order of their names, the share that each filter keeps."""
    if groups is None:
        return {}
    count = len(groups.names)
    members = np.bincount(groups.number_N, minlength=count)
    rates = [np.bincount(groups.number_N[mask], minlength=count) / members for mask in kept]
    return {
        groups.names[n]: tuple(float(rate[n]) for rate in rates)
        for n in sorted(range(count), key=groups.names.__getitem__)
    }


def _rows(names: Sequence[str], values: np.ndarray) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{value:.3f}" for value in row)) for name, row in zip(names, values, strict=True)
    ]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
