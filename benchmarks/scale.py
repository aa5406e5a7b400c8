"""The driver's cost per shard.

    python benchmarks/scale.py [--shards 10000]

A pool of real tars of a few tiny samples, a tiny open_clip network with random weights, and all of
`filter_pool`: listing, calibration, commits, ledger, selection, settling. The samples cost
next to nothing, so that the driver's cost per shard remains:

    planning       list_shards + listing_table + start_run, a new run
    driver memory  USS of the driver against shards committed, slope by least squares
    resume scan    list_shards + start_run + scan_ledger on the scored run; also with one part per
                   shard
    finish         select_run, then settling the subset
    wide shards    fewer shards of 40 chunks each, as DataComp's: what the chunks cost

Every measurement has a fresh process of its own. docs/scale.md has the figures.
"""

from __future__ import annotations

import argparse
import gc
import logging
import os
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from math import isnan, nan
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import pyarrow.parquet as pq
import ray
from many_shards import make_recipe, write_pool, written_run

from dfn_ray.config import Recipe, recipe_values
from dfn_ray.filtering.filter_pool import materialize
from dfn_ray.filtering.scoring.fingerprint import scoring_fingerprint
from dfn_ray.filtering.scoring.score_pool import score_pool
from dfn_ray.filtering.selecting.select_run import select_run
from dfn_ray.on_ray.session import connect
from dfn_ray.pool import list_shards, listing_table
from dfn_ray.resolving.fetch_networks import fetch_networks
from dfn_ray.run import (
    SCORES,
    Run,
    RunIdentity,
    RunKind,
    open_run,
    part_names,
    read_parts,
    scan_ledger,
    start_run,
)
from dfn_ray.testing.random_networks import save_random_network

MEMORY_BAR_BYTES = 4 * 2**10
"""Limit on driver memory per shard."""
TIME_BAR_MS = 2.0
"""Limit on the time of planning, and of the resume scan, per shard."""
WARM_SHARDS = 1000
"""Shards committed before memory is measured: imports, Ray's pools and the plan precede."""
SAMPLE_EVERY_S = 2.0
MIN_SAMPLES = 8
"""Least number of samples at distinct counts for a slope."""
MARKS = (1000, 2500, 4000, 5000, 7500, 10_000)
"""Shards (or chunks) committed at which the driver's memory is printed."""
MIB = 2**20
WIDE_CHUNKS = 40
"""Chunks of a DataComp shard: 10,000 samples at 256 per chunk, rounded up."""
TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 16, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 8, "heads": 1, "layers": 1},
}

R = TypeVar("R")


@dataclass(frozen=True)
class Planned:
    """The cost of opening a run."""

    list_s: float
    start_s: float
    scan_s: float
    parts: int
    listing_bytes: int
    """Memory of the list of shards, by Python's count."""
    ledger_bytes: int
    """Memory of the ledger alone, by Python's count."""
    footer_bytes: int
    """Size of the last part's footer."""


@dataclass(frozen=True)
class Scored:
    """A scoring run: its wall time and the driver's memory while it ran."""

    wall_s: float
    start_uss_bytes: int
    """Before the run: Python, torch, open_clip and Ray imported, nothing listed."""
    committed: list[int]
    """Shards committed (chunks, in a pool of wide shards) when memory was sampled."""
    uss_bytes: list[int]
    rss_bytes: list[int]

    def slope_bytes(self) -> float:
        """Least-squares growth of USS per shard after `WARM_SHARDS`; NaN with too few samples."""
        known = [i for i, done in enumerate(self.committed) if done >= WARM_SHARDS]
        if len({self.committed[i] for i in known}) < MIN_SAMPLES:
            return nan
        done, uss = (np.array(values)[known] for values in (self.committed, self.uss_bytes))
        return float(np.polyfit(done, uss, 1)[0])

    def at(self, done: int) -> int:
        """USS of the first sample with at least so many committed."""
        return next(
            uss
            for now, uss in zip(self.committed, self.uss_bytes, strict=True)
            if now >= min(done, self.committed[-1])
        )


def main() -> None:
    """Measures, and prints one table with the bars."""
    options = argparse.ArgumentParser(description="What a shard costs the driver.")
    options.add_argument("--shards", type=int, default=10_000)
    options.add_argument("--rows", type=int, default=3, help="samples in a shard")
    options.add_argument("--folder", type=Path, help="write pools and runs here and keep them")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        network = save_random_network(folder / "network", TINY, seed=0)
        pool = write_pool(folder / "pool", given.shards, given.rows)
        narrow = make_recipe(folder / "narrow", pool, network)
        wide_pool = write_pool(folder / "wide-pool", given.shards // 50, WIDE_CHUNKS)
        wide = make_recipe(folder / "wide", wide_pool, network, chunk_rows=1)
        print(f"{given.shards:,} shards, {os.cpu_count()} CPUs, ray {ray.__version__}")
        listed_bytes = report_planning(narrow, given.shards)
        report_scoring("scoring", narrow, given.shards, listed_bytes)
        report_resuming(narrow, folder, given.shards)
        report_finishing(narrow, given.shards)
        report_scoring("wide shards", wide, given.shards // 50 * WIDE_CHUNKS, unit="chunk")


def report_planning(recipe: Recipe, shards: int) -> float:
    """Prints the cost of starting a run; returns the bytes of memory per listed shard."""
    planned = alone(plan, recipe)
    row("planning, listing", planned.list_s / shards * 1e3, "ms/shard")
    row("planning, run.json and pool.parquet", planned.start_s / shards * 1e3, "ms/shard")
    row("planning", (planned.list_s + planned.start_s) / shards * 1e3, "ms/shard", TIME_BAR_MS)
    row("planning, list of shards in memory", planned.listing_bytes / shards, "bytes/shard")
    return planned.listing_bytes / shards


def report_scoring(
    name: str, recipe: Recipe, units: int, listed_bytes: float = 0.0, *, unit: str = "shard"
) -> None:
    """Prints a scoring run's cost to the driver per shard, or per chunk if shards have many.

    The list of shards precedes the first commit, so its `listed_bytes` are added to the slope.
    """
    run = alone(score, recipe)
    marks = [mark for mark in MARKS if mark <= units]
    seen = ", ".join(f"{mark:,} {run.at(mark) / MIB:.0f}" for mark in marks)
    print(
        f"{name}: driver's USS in MiB before {run.start_uss_bytes / MIB:.0f}; with {unit}s "
        f"committed: {seen}; peak {max(run.uss_bytes) / MIB:.0f} (RSS "
        f"{max(run.rss_bytes) / MIB:.0f})"
    )
    bar = MEMORY_BAR_BYTES if unit == "shard" else None
    row(f"{name}, driver memory", run.slope_bytes() + listed_bytes, f"bytes/{unit}", bar)
    row(f"{name}, wall time", run.wall_s / units * 1e3, f"ms/{unit}")


def report_resuming(recipe: Recipe, folder: Path, shards: int) -> None:
    """Prints the cost of resuming a run: as it was scored, and with other numbers of chunks."""
    for name, shard_chunks, part_chunks in (
        ("as scored", 0, 0),
        ("1 chunk a shard, 1 a part", 1, 1),
        ("40 chunks a shard, 64 a part", WIDE_CHUNKS, 64),
    ):
        scored = recipe
        if shard_chunks:
            scored = written_run(
                recipe,
                folder / f"written-{part_chunks}",
                shard_chunks=shard_chunks,
                part_chunks=part_chunks,
            )
        resumed = alone(plan, scored)
        total_s = resumed.list_s + resumed.start_s + resumed.scan_s
        row(f"resume, {name}", total_s / shards * 1e3, "ms/shard", TIME_BAR_MS)
        row("  scan_ledger", resumed.scan_s / resumed.parts * 1e3, "ms/part")
        print(
            f"    {resumed.parts:,} parts, ledger {resumed.ledger_bytes / shards:.0f} bytes/shard, "
            f"footer about {resumed.footer_bytes:,} bytes"
        )


def report_finishing(recipe: Recipe, shards: int) -> None:
    """Prints the cost of selecting and settling."""
    select_s, materialize_s = alone(finish, recipe)
    row("select_run", select_s / shards * 1e3, "ms/shard")
    row("materialize (selects, then settles)", materialize_s / shards * 1e3, "ms/shard")


def row(name: str, value: float, unit: str, bar: float | None = None) -> None:
    """Prints a figure, and PASS or MISS against its limit."""
    verdict = ""
    if bar is not None:
        verdict = f"bar {bar:g}: " + ("PASS" if value <= bar else "MISS")
    if isnan(value):
        verdict = "too few shards"
    print(f"  {name:34} {value:10,.2f} {unit:12} {verdict}".rstrip(), flush=True)


def alone(work: Callable[[Recipe], R], recipe: Recipe) -> R:
    """Runs `work` in a fresh process, so that measurements share no memory or caches."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(work, recipe).result()


def plan(recipe: Recipe) -> Planned:
    """Lists the pool, opens the run (new or old), and scans its commits."""
    fingerprint = scoring_fingerprint(
        recipe, {network.name: network.fingerprint() for network in fetch_networks(recipe)}
    )
    gc.collect()
    begin = time.perf_counter()
    shards = list_shards(recipe.pool)
    listed = time.perf_counter()
    run = start_run(
        recipe.run_uri,
        RunIdentity(kind=RunKind.FILTER, fingerprint=fingerprint, listing=listing_table(shards)),
        recipe=recipe_values(recipe),
    )
    started = time.perf_counter()
    ledger = scan_ledger(run.store, run.fingerprint)
    scanned = time.perf_counter()
    assert ledger.complete_shards in (0, len(shards))
    shards = ledger = None
    tracemalloc.start()
    shards = tuple(list_shards(recipe.pool))
    gc.collect()
    listing_bytes = tracemalloc.get_traced_memory()[0]
    ledger = scan_ledger(run.store, run.fingerprint)
    gc.collect()
    ledger_bytes = tracemalloc.get_traced_memory()[0] - listing_bytes
    tracemalloc.stop()
    assert ledger.complete_shards in (0, len(shards))
    names = part_names(run.store)
    footer_bytes = 0
    if names:
        file = f"{recipe.run_uri}/{SCORES}/{names[-1]}.parquet"
        footer_bytes = pq.read_metadata(file).serialized_size
    return Planned(
        list_s=listed - begin,
        start_s=started - listed,
        scan_s=scanned - started,
        parts=len(names),
        listing_bytes=listing_bytes,
        ledger_bytes=ledger_bytes,
        footer_bytes=footer_bytes,
    )


def score(recipe: Recipe) -> Scored:
    """Scores the pool while a thread samples this process's memory."""
    logging.disable(logging.WARNING)
    process = psutil.Process()
    gc.collect()
    start = process.memory_full_info().uss
    begin = time.perf_counter()
    with sampled_memory(process) as samples:
        run, _ = score_pool(recipe, keep_bytes=True)
    wall_s = time.perf_counter() - begin
    ray.shutdown()
    commits = np.sort([moment for moment, chunks in commit_times(run) for _ in range(chunks)])
    committed = [int(np.searchsorted(commits, moment, side="right")) for moment, _, _ in samples]
    return Scored(wall_s, start, committed, [s[1] for s in samples], [s[2] for s in samples])


@contextmanager
def sampled_memory(process: psutil.Process) -> Iterator[list[tuple[float, int, int]]]:
    """Appends (time, USS, RSS) of a process to a list until the block ends, collecting garbage."""
    samples: list[tuple[float, int, int]] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(SAMPLE_EVERY_S):
            gc.collect()
            memory = process.memory_full_info()
            samples.append((time.time(), memory.uss, memory.rss))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


def commit_times(run: Run) -> Iterator[tuple[float, int]]:
    """Yields the commit time and the number of chunks of each part of a local run."""
    for part in read_parts(run.store, part_names(run.store)):
        path = Path(run.store.uri_of(f"{SCORES}/{part.name}.parquet"))
        yield path.stat().st_mtime, len(part.chunks)


def finish(recipe: Recipe) -> tuple[float, float]:
    """Seconds to select from a scored run, and to materialize the selection."""
    logging.disable(logging.WARNING)
    connect()
    begin = time.perf_counter()
    select_run(open_run(recipe.run_uri), recipe.select, recipe.deciding_network)
    selected = time.perf_counter()
    materialize(recipe)
    settled = time.perf_counter()
    ray.shutdown()
    return selected - begin, settled - selected


if __name__ == "__main__":
    main()
