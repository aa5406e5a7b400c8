"""The pilot: a few shards read, decoded and scored, each limit alone; writes nothing."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch
from ray.exceptions import RayError

from dfn_ray.config import Pool, Recipe
from dfn_ray.doctor.placement import addable_node_types, placement_finding
from dfn_ray.errors import InputError, NotReadyError, last_line
from dfn_ray.filtering.part_files import image_parquet, scores_parquet, subset_rows, with_shard
from dfn_ray.filtering.scoring.bounds import EVERYTHING
from dfn_ray.filtering.scoring.scorer import Scorer, plan_inputs
from dfn_ray.filtering.selecting.denominator import in_denominator
from dfn_ray.forecast.stage_rates import (
    prepare_cells,
    read_cells,
    rows_of_cells,
    score_cells,
    timed,
)
from dfn_ray.network.packed import PackedNetwork
from dfn_ray.on_ray.bundles import decode_bundle, scorer_bundle
from dfn_ray.on_ray.cells import pack, unpack
from dfn_ray.on_ray.failures import unwrapped_ray_errors
from dfn_ray.on_ray.nodes import alive_nodes, cluster_resources
from dfn_ray.on_ray.session import put_networks
from dfn_ray.pool import Shard
from dfn_ray.preparing.prepare import NetworkInputs, Preparation
from dfn_ray.preparing.statuses import status_counts
from dfn_ray.run import PartHeader
from dfn_ray.schema import BYTE_COLUMNS, Status, score_column


@dataclass(frozen=True, kw_only=True)
class PilotShard:
    """Measurements of one shard."""

    rows: int
    """Samples read, bad ones included."""
    bytes_read: int
    chunks: int
    read_s: float
    """Of one decode task, including waits for storage."""
    prepare_s: float
    """Of one decode task: decoding, resizing, tokens."""
    score_s: float
    """Of one scorer."""
    counts: Mapping[str, int]
    """Samples by status and reason."""
    score_N: np.ndarray
    """float32 for every sample that counts towards the N of keep_fraction; -inf without a score."""
    kept_bytes_N: np.ndarray
    """Bytes that each of these samples would take in the subset."""
    scores: pa.Table
    """Rows of the scores part, one per sample."""


@dataclass(frozen=True, kw_only=True)
class Pilot:
    """The measured shards, and the hardware of the measurement."""

    shards: tuple[PilotShard, ...]
    decoders: int
    """Decode tasks that ran concurrently."""
    device: str
    scores_bytes_per_row: float
    """Bytes per row of a scores part with all samples of the pilot."""


def run_pilot(
    recipe: Recipe,
    networks: Sequence[PackedNetwork],
    shards: Sequence[Shard],
    *,
    count: int,
    samples: int,
) -> Pilot:
    """Measures `samples` samples, spread over `count` random shards, on the connected cluster.

    All decode tasks run first, as many at once as the cluster has CPUs for, then one scorer, so
    that they do not disturb each other. Raises NotReadyError when the cluster has no capacity for
    them, InputError when the shards hold no samples.
    """
    decoder, scorer = decode_bundle(recipe.decode), scorer_bundle(recipe.scorers)
    for name, bundle in (("decode tasks", decoder), ("scorers", scorer)):
        if not (finding := placement_finding(name, bundle, alive_nodes(), addable_node_types())).ok:
            raise NotReadyError(f"{name}: {finding.text}")
    readable = [shard for shard in shards if shard.fault is None]
    chosen = random.Random(0).sample(readable, min(count, len(readable)))
    preparation, inputs = plan_inputs(networks, recipe)
    rows = -(-samples // max(1, len(chosen)))
    task: Any = ray.remote(num_returns=2, **decoder.ray_options())(_decode)
    prepared = [task.remote(shard, recipe.pool, preparation, rows) for shard in chosen]
    with _not_ready_on_failure(), unwrapped_ray_errors():
        timings: list[dict[str, Any]] = ray.get([timing for timing, _ in prepared])
        actor = ray.remote(**scorer.ray_options())(_Forward)
        forward: Any = actor.remote([put_networks(networks)], inputs, recipe)
        device: str = ray.get(forward.device.remote())
        scored: list[dict[str, Any]] = ray.get(
            [forward.score.remote(cells) for _, cells in prepared]
        )
    measured = [PilotShard(**a, **b) for a, b in zip(timings, scored, strict=True)]
    if not sum(shard.rows for shard in measured):
        raise InputError(
            "pool.uri: the pilot's shards hold no samples. Look at them with `dfn-ray inspect`"
        )
    cpus = cluster_resources().get("CPU", 0.0)
    return Pilot(
        shards=tuple(measured),
        decoders=min(len(chosen), int(cpus / recipe.decode.cpus)),
        device=device,
        scores_bytes_per_row=_scores_bytes_per_row(measured),
    )


@contextmanager
def _not_ready_on_failure() -> Iterator[None]:
    """Raises NotReadyError for a failure of a task or of the scorer."""
    try:
        yield
    except RayError as error:
        raise NotReadyError(
            f"the pilot failed: {last_line(error)}. Find the cause with `dfn-ray doctor`"
        ) from error


def _decode(
    shard: Shard, pool: Pool, preparation: Preparation, rows: int
) -> tuple[dict[str, Any], pa.Table]:
    """Reads and prepares the first rows of a shard; returns the timings and the cells."""
    cells, read_s = timed(lambda: read_cells(shard, pool, rows=rows))
    prepare_cells(cells[:1], preparation)  # warm-up: imports and tokenizers, paid once in a run
    block, prepare_s = timed(lambda: pack(prepare_cells(cells, preparation)))
    timing = {
        "rows": rows_of_cells(cells),
        "bytes_read": sum(cell.chunk.bytes_read for cell in cells),
        "chunks": len(cells),
        "read_s": read_s,
        "prepare_s": prepare_s,
    }
    return timing, block


class _Forward:
    """One scorer, as in a run, on the recipe's device."""

    def __init__(
        self, shared: list[ray.ObjectRef], inputs: Sequence[NetworkInputs], recipe: Recipe
    ) -> None:
        self._recipe = recipe
        self._scorer = Scorer(
            ray.get(shared[0]),
            inputs,
            recipe.scorers,
            recipe.deciding_network,
            EVERYTHING,
            captions=recipe.captions,
        )
        self._warm = False

    def device(self) -> str:
        """Name of the device that it runs on."""
        if self._recipe.scorers.device == "cuda":
            return torch.cuda.get_device_name()
        return f"cpu, {torch.get_num_threads()} threads"

    def score(self, block: pa.Table) -> dict[str, Any]:
        """The fields of a PilotShard that come from scoring."""
        if not self._warm:
            score_cells(list(unpack(block.slice(0, 1))), self._scorer)
            self._warm = True
        cells, score_s = timed(lambda: score_cells(list(unpack(block)), self._scorer))
        samples = pa.concat_tables([with_shard(cell) for cell in cells], promote_options="default")
        return {
            "score_s": score_s,
            "counts": Counter(status_counts(samples)),
            "scores": samples.drop_columns(list(BYTE_COLUMNS)),
            **_subset_figures(samples, self._recipe),
        }


def _subset_figures(samples: pa.Table, recipe: Recipe) -> dict[str, np.ndarray]:
    """Scores and subset bytes of the samples that count towards N."""
    scored = pc.equal(samples["status"], Status.SCORED.value)
    score = samples[score_column(recipe.deciding_network)].to_numpy(zero_copy_only=False)
    is_scored = scored.to_numpy(zero_copy_only=False)
    rows = subset_rows(samples.filter(scored))
    sizes = np.zeros(len(samples))
    for name in BYTE_COLUMNS:
        sizes += pc.fill_null(pc.binary_length(samples[name]), 0).to_numpy(zero_copy_only=False)
    sizes *= is_scored
    if len(rows):  # scale to their Parquet size: other columns, compressed texts, pages
        sizes *= len(image_parquet(rows)) / max(1.0, sizes.sum())
    counts = in_denominator(samples["status"], recipe.select).to_numpy(zero_copy_only=False)
    return {
        "score_N": np.where(is_scored, score, -np.inf)[counts].astype(np.float32),
        "kept_bytes_N": sizes[counts],
    }


def _scores_bytes_per_row(measured: Sequence[PilotShard]) -> float:
    tables = [shard.scores for shard in measured if len(shard.scores)]
    if not tables:
        return 0.0
    rows = pa.concat_tables(tables, promote_options="default").unify_dictionaries()
    header = PartHeader(
        fingerprint="", bounds=(0.0, 0.0), subset_rows=0, borderline_rows=0, counts={}
    )
    return len(scores_parquet(rows, [], header)) / len(rows)
