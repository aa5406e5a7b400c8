"""The cost of passes over a large run: resume, select, uid list, sweep, verify.

    python benchmarks/passes.py --samples 100000000

The run is written by a stand-in scorer: real parts on disk with real footers, random uids and
scores, and a subset of the best 15 % with images of a few bytes. Passes over many parts run in Ray
tasks on all CPUs, as for users. Printed are seconds, per part, per row, and the driver's peak
memory; then the same for 12.8 billion samples in 1.28 million shards with 16 cores: CPU time
by cores and, separately because threads wait while others compute, requests at 30 ms each by all
reading threads (`run.scan.READ_THREADS` per core). Ray is started before the measurement.

With `--latency-ms 30` the run is on an S3 server (rclone). Use fewer than 4,096 parts (`--samples
10000000`), so that one process does everything: printed are its CPU time, which contains that of
the S3 client; its seconds and requests per part, measured and modelled, behind a proxy that delays
each request; and the extrapolation from these. The CPU time is measured on one core, as a task has
it on a machine with as many tasks as cores, and without the proxy, which closes each connection:
S3 does not.
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dfn_ray.config import Recipe, Select, recipe_from, recipe_values
from dfn_ray.filtering.filter_pool import select
from dfn_ray.filtering.scoring.bounds import Bounds
from dfn_ray.filtering.scoring.commit import Committer
from dfn_ray.filtering.selecting.select_run import select_rules, select_run
from dfn_ray.filtering.verifying.verify_parts import verify_parts
from dfn_ray.filtering.verifying.verify_subset import kept_rows, shared_columns, verify_subset
from dfn_ray.on_ray.cells import Cell
from dfn_ray.on_ray.footers import read_many_parts
from dfn_ray.on_ray.slices import MIN_SLICED_ITEMS, run_in_slices
from dfn_ray.pool import Shard, listing_table
from dfn_ray.run import Run, RunIdentity, RunKind, open_run, scan_ledger, start_run
from dfn_ray.run.scan import READ_THREADS
from dfn_ray.schema import SAMPLE_SCHEMA, Chunk
from dfn_ray.storage import Store
from dfn_ray.testing.s3_proxy import fault_proxy
from dfn_ray.testing.s3_servers import serve_s3
from dfn_ray.uids.records import UID_DTYPE, uid_strings

CHUNK_ROWS, PART_CHUNKS = 256, 64
KEPT = 0.15
LOWEST = float(np.float32(1 - KEPT))
"""Lowest score of the subset."""
FULL = 12_800_000_000
CORES, REQUEST_S = 16, 0.03


@dataclass(frozen=True)
class Pass:
    """One pass: its name, and its requests per part, including the scan of the footer."""

    name: str
    work: Callable[[Recipe], Any]
    requests: int


@dataclass(frozen=True)
class Cost:
    """The measured cost of a pass in its process."""

    seconds: float
    cpu_s: float
    """CPU time of the process, without that of Ray tasks."""
    peak_bytes: int


def main() -> None:
    """Writes the run, times each pass in its own process, and prints the table."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--samples", type=int, default=100_000_000)
    options.add_argument("--folder", type=Path, help="write the run here and keep it")
    options.add_argument("--shard-rows", type=int, default=10_000)
    options.add_argument("--latency-ms", type=float, help="on S3, with this latency per request")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        if given.latency_ms:
            on_s3(folder, given)
            return
        recipe = recipe_of(str(folder / "run"))
        parts = made(recipe, given)
        where = "Ray tasks" if parts >= MIN_SLICED_ITEMS else "this process"
        print(
            f"{given.samples:,} samples, {parts:,} parts, {os.cpu_count()} CPUs, passes in {where}"
        )
        print(
            f"{'pass':24} {'s':>8} {'ms/part':>8} {'ns/row':>8} {'MiB':>6}   at 12.8 billion, 16 "
            "cores"
        )
        for one in PASSES:
            print_pass(one, alone(one.work, recipe, parts), parts, given.samples)


def made(recipe: Recipe, given: argparse.Namespace) -> int:
    """Writes the run unless it exists; returns its number of parts."""
    if not Store(recipe.run_uri).exists("run.json"):
        timed("making the run", partial(make_run, recipe, given.samples, given.shard_rows))
    return len(open_run(recipe.run_uri).part_names())


def on_s3(folder: Path, given: argparse.Namespace) -> None:
    """Times each pass over a run on S3: its CPU time directly, the rest with latency."""
    with serve_s3(folder, ["passes"]) as server, fault_proxy(server.endpoint) as proxy:
        os.environ |= server.environment
        recipe = recipe_of("s3://passes/run")
        parts = made(recipe, given)
        print(
            f"{given.samples:,} samples, {parts:,} parts on S3, {given.latency_ms:.0f} ms a "
            f"request; threads that read: {READ_THREADS}"
        )
        print(
            f"{'pass':24} {'CPU s':>8} {'s, latency':>10} {'waiting':>8} {'requests/part':>14} "
            f"{'model':>6}   at 12.8 billion, 16 cores"
        )
        for one in PASSES:
            os.environ["AWS_ENDPOINT_URL"] = server.endpoint
            cpu_s = alone(one.work, recipe, parts, one_core=True).cpu_s
            os.environ["AWS_ENDPOINT_URL"] = proxy.endpoint
            proxy.reset()
            proxy.latency_s = given.latency_ms / 1000
            seconds = alone(one.work, recipe, parts).seconds
            requests = proxy.requests / parts
            waiting_s = parts * requests * proxy.latency_s / READ_THREADS
            scale = FULL / given.samples / CORES
            full_waiting_s = parts * requests * REQUEST_S / READ_THREADS * scale
            print(
                f"{one.name:24} {cpu_s:8.1f} {seconds:10.1f} {waiting_s:8.1f} {requests:14.1f} "
                f"{one.requests:6}   CPU {cpu_s * scale / 60:5.1f} min, requests "
                f"{full_waiting_s / 60:5.1f} min",
                flush=True,
            )


def print_pass(one: Pass, cost: Cost, parts: int, samples: int) -> None:
    """Prints a measured pass and its extrapolation to the largest pool."""
    seconds, scale = cost.seconds, FULL / samples
    used = (os.cpu_count() or 1) if parts >= MIN_SLICED_ITEMS else 1
    cpu_s = seconds * used * scale / CORES
    waiting_s = parts * scale * one.requests * REQUEST_S / (READ_THREADS * CORES)
    print(
        f"{one.name:24} {seconds:8.1f} {seconds / parts * 1e3:8.3f} {seconds / samples * 1e9:8.1f} "
        f"{cost.peak_bytes >> 20:6}   CPU {cpu_s / 60:5.1f} min, requests {waiting_s / 60:5.1f} "
        "min",
        flush=True,
    )


def resume(recipe: Recipe) -> None:
    """Opens the run and reads all footers."""
    run = open_run(recipe.run_uri)
    scan_ledger(run.store, run.fingerprint, read=read_many_parts)


def select_once(recipe: Recipe) -> None:
    """The exact selection, without the scan of footers."""
    run, ledger = scanned(recipe)
    clock = now()
    select_run(run, recipe.select, "dfn", ledger)
    report_from(clock)


def select_and_list(recipe: Recipe) -> None:
    """The verb: selection, uid list, files."""
    select(recipe)


def sweep(recipe: Recipe) -> None:
    """Five fractions, over one scan of the footers."""
    run, ledger = scanned(recipe)
    clock = now()
    fractions = [Select(keep_fraction=fraction) for fraction in (0.1, 0.2, 0.3, 0.4, 0.5)]
    select_rules(run, fractions, "dfn", ledger)
    report_from(clock)


def verify(recipe: Recipe) -> None:
    """All of `verify` except the pool's own bytes, which the stand-in lacks."""
    run = open_run(recipe.run_uri)
    ledger = verify_parts(run)
    selected, scores = select_run(run, Select(threshold=LOWEST), "dfn", ledger)
    columns = shared_columns(run, run)
    due = partial(kept_rows, scores.without_parts(), selected.selection, columns)
    verify_subset(run, ledger.names, due, columns)


PASSES = (
    # Footers, scores, and most columns of a part take one request each. A selection reads the
    # scores twice, and once more if scores are tied; the verb, uids too; all after the footers.
    # Verify reads each part three times and of the subset the footer and two ranges.
    Pass("resume (footers)", resume, requests=1),
    Pass("select", select_once, requests=3),
    Pass("select verb, uid list", select_and_list, requests=5),
    Pass("sweep of 5 fractions", sweep, requests=4),
    Pass("verify, pool apart", verify, requests=6),
)


def scanned(recipe: Recipe) -> tuple[Run, Any]:
    """The opened run and its ledger, by a scan of all footers."""
    run = open_run(recipe.run_uri)
    return run, scan_ledger(run.store, run.fingerprint, read=read_many_parts)


_BEGAN: list[tuple[float, float]] = []


def report_from(clock: tuple[float, float]) -> None:
    """Counts only the time since `clock`."""
    _BEGAN.append(clock)


def now() -> tuple[float, float]:
    """Seconds and CPU seconds of this process."""
    return time.perf_counter(), time.process_time()


def alone(
    work: Callable[[Recipe], Any], recipe: Recipe, parts: int, *, one_core: bool = False
) -> Cost:
    """The cost of a pass in a fresh process, whose threads have one core or all."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        if one_core:
            process.submit(keep_one_core).result()
        return process.submit(measured, work, recipe, parts).result()


def keep_one_core() -> None:
    """Restricts this process to one core."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})


def measured(work: Callable[[Recipe], Any], recipe: Recipe, parts: int) -> Cost:
    """The cost of a pass, or of the part of it that it reported."""
    if parts >= MIN_SLICED_ITEMS:
        # Warm-up: Ray and its workers with all imports.
        list(run_in_slices(["warm"] * (os.cpu_count() or 1), len, slice_items=1, least_items=1))
    began = now()
    work(recipe)
    ended = now()
    began = _BEGAN[0] if _BEGAN else began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return Cost(ended[0] - began[0], ended[1] - began[1], peak)


def timed(name: str, work: Callable[[], Any]) -> None:
    """Runs `work` and prints its duration."""
    clock = time.perf_counter()
    work()
    print(f"{name}: {time.perf_counter() - clock:.0f} s", flush=True)


def recipe_of(run_uri: str) -> Recipe:
    """A recipe over a pool that is only listed."""
    return recipe_from(
        {
            "run_uri": run_uri,
            "pool": {"uri": ["/none/*.tar"]},
            "networks": [{"name": "dfn", "model": "local-dir:/none"}],
            "select": {"keep_fraction": KEPT},
        }
    )


def make_run(recipe: Recipe, samples: int, shard_rows: int) -> None:
    """Commits the samples part by part, by as many processes as there are CPUs."""
    shards = [
        Shard(f"/none/{n:08d}.tar", f"{n:08d}.tar", 10**9) for n in range(samples // shard_rows)
    ]
    run = start_run(
        recipe.run_uri,
        RunIdentity(
            kind=RunKind.FILTER,
            fingerprint={"networks": {"dfn": {}}},
            listing=listing_table(shards),
        ),
        recipe=recipe_values(recipe),
    )
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as processes:
        parts = parts_of(shards, shard_rows)
        for _ in processes.map(partial(commit_part, run), parts, chunksize=16):
            pass


def parts_of(shards: list[Shard], shard_rows: int) -> Iterator[list[Chunk]]:
    """The chunks of each part: PART_CHUNKS in the order of shards."""
    chunks = []
    for shard in shards:
        for first in range(0, shard_rows, CHUNK_ROWS):
            rows = min(CHUNK_ROWS, shard_rows - first)
            last = first + rows == shard_rows
            chunks.append(
                Chunk(shard=shard.uri, first_row=first, rows=rows, last=last, bytes_read=10**7)
            )
            if len(chunks) == PART_CHUNKS:
                yield chunks
                chunks = []
    if chunks:
        yield chunks


def commit_part(run: Run, chunks: list[Chunk]) -> None:
    """Commits a part with random uids and scores, the best of them to the subset."""
    seed = int(chunks[0].shard[6:14]) * 64 + chunks[0].first_row // CHUNK_ROWS
    rng = np.random.default_rng(seed)
    committer = Committer(run, Bounds(LOWEST, LOWEST), "dfn")
    committer.commit([scored_cell(chunk, rng) for chunk in chunks])


def scored_cell(chunk: Chunk, rng: np.random.Generator) -> Cell:
    """A chunk with random uids and scores in [0, 1)."""
    uids = np.empty(chunk.rows, UID_DTYPE)
    uids["f0"], uids["f1"] = rng.integers(0, 2**63, (2, chunk.rows), dtype=np.uint64)
    rows = np.arange(chunk.first_row, chunk.first_row + chunk.rows)
    columns = {
        "uid": uid_strings(uids),
        "row": pa.array(rows),
        "key": pa.array([f"{row:09d}" for row in rows.tolist()]),
        "image": pa.array([b"bytes"] * chunk.rows, pa.large_binary()),
        "text": pa.array(["a caption"] * chunk.rows, pa.large_string()),
        "metadata": pa.nulls(chunk.rows, pa.large_string()),
        "status": pa.array(["scored"] * chunk.rows),
        "reason": pa.nulls(chunk.rows, pa.string()),
    }
    samples = pa.table(columns, schema=SAMPLE_SCHEMA)
    for side in ("width", "height"):
        samples = samples.append_column(
            side, pa.array(rng.integers(64, 4096, chunk.rows), pa.int32())
        )
    return Cell(
        chunk=chunk,
        samples=samples.append_column("score_dfn", pa.array(rng.random(chunk.rows, np.float32))),
    )


if __name__ == "__main__":
    main()
