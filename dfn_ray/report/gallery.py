"""Example pairs of a run: the best, those around the threshold, the worst."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dfn_ray.config import stored_pool
from dfn_ray.pool import read_rows, shards_of_listing
from dfn_ray.run import Run, scan_parts
from dfn_ray.schema import Status, score_column

HISTOGRAM_BINS = 2048
"""Bins over [-1, 1]; coarser histograms are summed from these."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A scored pair with its bytes."""

    uid: str
    score: float
    image: bytes
    text: str


@dataclass(frozen=True)
class Overview:
    """The scores of a run in constant memory, and the places of its example samples."""

    counts: np.ndarray
    """Histogram over [-1, 1] in HISTOGRAM_BINS bins, int64."""
    best: list[tuple[str, int, float]] = field(default_factory=list)
    """(shard, row, score), best first, as are the lists below."""
    above: list[tuple[str, int, float]] = field(default_factory=list)
    below: list[tuple[str, int, float]] = field(default_factory=list)
    worst: list[tuple[str, int, float]] = field(default_factory=list)


def overview(run: Run, network: str, threshold: float, examples: int) -> Overview:
    """The histogram of a run's scores, and `examples` samples of each kind."""
    counts = np.zeros(HISTOGRAM_BINS, dtype=np.int64)
    heaps: dict[str, list[tuple[float, str, int, float]]] = {
        name: [] for name in ("best", "above", "below", "worst")
    }
    for table in scored_tables(run, network, ["shard", "row"]):
        score = table["score"].to_numpy()
        counts += np.histogram(score, HISTOGRAM_BINS, (-1, 1))[0]
        # Highest rank first in each kind.
        ranks = {
            "best": score,
            "above": np.where(score >= threshold, -score, -np.inf),
            "below": np.where(score < threshold, score, -np.inf),
            "worst": -score,
        }
        for name, rank in ranks.items():
            for index in np.argsort(-rank, kind="stable")[:examples].tolist():
                if np.isfinite(rank[index]):
                    shard, row = table["shard"][index].as_py(), table["row"][index].as_py()
                    heapq.heappush(
                        heaps[name], (float(rank[index]), shard, row, float(score[index]))
                    )
                    if len(heaps[name]) > examples:
                        heapq.heappop(heaps[name])
    places = {
        name: [(shard, row, score) for _, shard, row, score in sorted(heap, key=lambda e: -e[3])]
        for name, heap in heaps.items()
    }
    return Overview(counts, **places)


def scored_tables(
    run: Run, network: str, columns: list[str], parts: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """The scored rows of each named part, with `columns` and `score`; None: of all parts."""
    column = score_column(network)
    for _, part in scan_parts(run, [*columns, column, "status"], parts):
        table = part.filter(pc.equal(part["status"], Status.SCORED.value))
        yield table.rename_columns(["score" if c == column else c for c in table.column_names])


def read_pairs(run: Run, places: list[tuple[str, int, float]]) -> list[Pair]:
    """The pairs at (shard, row, score), read from the pool, in the given order."""
    pool = stored_pool(run.recipe)
    shards = {shard.uri: shard for shard in shards_of_listing(run.listing())}
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for uri in {shard for shard, _, _ in places}:
        needed = {row for shard, row, _ in places if shard == uri}
        for table in read_rows(shards[uri], pool, needed):
            rows |= {(uri, row["row"]): row for row in table.to_pylist()}
    return [
        Pair(
            uid=rows[shard, row]["uid"],
            score=score,
            image=rows[shard, row]["image"],
            text=" | ".join(text) if isinstance(text := rows[shard, row]["text"], list) else text,
        )
        for shard, row, score in places
    ]
