"""A pool on object storage against the same pool on disk.

    python benchmarks/object_storage.py OUT [--gib 5]

Writes a pool of photos to OUT, serves it with a real S3 server (rclone) behind the proxy that
counts requests and can inject faults, and runs the real filter job with a tiny random network, so
that reading and writing dominate:

    disk     pool and run on disk
    s3       pool and run on the S3 server
    faulty   the same with a share of faulty requests (503, 500, resets, stalls, short reads, lost
             responses)

Fails unless all three produce the same subset, byte for byte, the same uid list and threshold, and
unless every process that reads or commits stays below its memory bound. Prints rates, requests per
sample, read amplification and the peak memory of every kind of process: its private (anonymous)
memory, without mapped pages of Ray's object store, which are bounded by the store's size. Removes
its files from OUT.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import fsspec
import psutil
import pyarrow.parquet as pq
import ray
from fsspec.config import conf, set_conf_env
from large_photos import write_pool
from ray.data import DataContext

from dfn_ray.config import Recipe, recipe_from
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.scoring.calibrate import MIN_SHARDS
from dfn_ray.filtering.verifying.verify import verify_run
from dfn_ray.forecast.estimate import requests
from dfn_ray.on_ray.session import connect
from dfn_ray.pool import list_shards
from dfn_ray.storage import READ_AHEAD_BYTES, Store
from dfn_ray.testing.random_networks import save_tiny_network
from dfn_ray.testing.s3_proxy import FaultProxy, Faults, fault_proxy
from dfn_ray.testing.s3_servers import serve_s3

MIB = 2**20
CHUNK_BYTES = 16 * MIB
CHUNKS_PER_PART = 8
CALIBRATION_SAMPLES = 512
"""A small share, as in a large pool: all bytes of these samples are moved, of others those that may
be kept."""
KEPT_BYTES = 384 * MIB
"""Allowance for freed memory that the allocator keeps; glibc has an arena per thread."""
SETTLING = "MapBatches(run)"
"""Name of the tasks of `run_in_tasks`, which settle borderline parts."""
READ_TIMEOUT_S = 2
"""Ends injected stalls soon; the default is 15 s."""
SAMPLE_EVERY_S = 0.25


def reader_bar_bytes(idle_bytes: int) -> int:
    """Memory bound of a task that reads and decodes.

    An idle worker with its imports; a read-ahead block, its successor, and the body of the latter,
    doubled while it is joined; a chunk six times: as read, as a table, packed for transport,
    unpacked, with pixels, packed again; and a block of Ray Data twice: collected and joined.
    """
    block_bytes = DataContext.get_current().target_max_block_size or 0
    return idle_bytes + KEPT_BYTES + 4 * READ_AHEAD_BYTES + 6 * CHUNK_BYTES + 2 * block_bytes


def committer_bar_bytes(idle_bytes: int) -> int:
    """Memory bound of a task that commits or settles.

    Nine times the transported bytes of a part's chunks: joined into a batch, unpacked, filtered, as
    Parquet (which grows by copying), and in a multipart upload the pieces that S3's client splits,
    signs and buffers.
    """
    return idle_bytes + KEPT_BYTES + 9 * CHUNKS_PER_PART * CHUNK_BYTES


@dataclass
class Peaks:
    """Peak private memory of each kind of process among this one and its children."""

    bytes_by_kind: dict[str, int] = field(default_factory=dict)

    def look(self) -> None:
        """Samples all processes once."""
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            with suppress(psutil.Error):
                kind = "driver" if process == me else _kind(process)
                own = own_bytes(process)
                self.bytes_by_kind[kind] = max(own, self.bytes_by_kind.get(kind, 0))


def own_bytes(process: psutil.Process) -> int:
    """Anonymous memory: RssAnon of proc(5).

    `shared` is files and the shared memory of the object store.
    """
    memory = process.memory_info()
    return memory.rss - memory.shared


def _kind(process: psutil.Process) -> str:
    """The kind of a process: a Ray worker's task, else its program."""
    command = process.cmdline()
    title = command[0] if command else process.name()
    return title[:48] if title.startswith("ray::") else process.name()


@contextmanager
def watched() -> Iterator[Peaks]:
    """Measures the peak memory of every process during the block."""
    peaks, stop = Peaks(), threading.Event()

    def watch() -> None:
        while not stop.wait(SAMPLE_EVERY_S):
            peaks.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peaks
    finally:
        stop.set()
        thread.join()


@ray.remote
def _idle_bytes(pool_uri: str) -> int:
    """Private memory of a worker with a read task's imports that has listed the pool once."""
    import dfn_ray.preparing.prepare  # noqa: F401, PLC0415  open_clip and torch, which the driver's imports lack

    Store(pool_uri).list()
    return own_bytes(psutil.Process())


@dataclass(frozen=True)
class Result:
    """Results that must not depend on where pool and run are."""

    threshold: float
    kept: int
    uids: str
    subset: str


def result_of(recipe: Recipe, selection: dict) -> Result:
    """The result of a run, its subset by a digest of shard, row and bytes."""
    store = Store(recipe.run_uri)
    rows: dict[tuple[str, int], str] = {}
    for file in store.list("subset", suffix=".parquet"):
        with store.open(f"subset/{file.name}") as opened:
            for batch in pq.ParquetFile(opened).iter_batches(16, columns=["shard", "row", "image"]):
                for row in batch.to_pylist():
                    key = (row["shard"].rpartition("/")[2], row["row"])
                    rows[key] = hashlib.sha256(row["image"]).hexdigest()
    digest = hashlib.sha256(repr(sorted(rows.items())).encode()).hexdigest()
    # Derived uids come from shard names and keys, so they do not depend on the pool's location.
    uids = hashlib.sha256(store.read("subset_uids.npy")).hexdigest()
    return Result(selection["threshold"], len(rows), uids, digest)


@dataclass(frozen=True)
class Bench:
    """The setting that all three runs share."""

    samples: int
    pool_bytes: int
    idle_bytes: int
    proxy: FaultProxy
    problems: list[str] = field(default_factory=list)


def measure(name: str, recipe: Recipe, bench: Bench) -> Result:
    """Filters once, prints the cost, checks memory, and returns the result."""
    samples, pool_bytes, proxy = bench.samples, bench.pool_bytes, bench.proxy
    start = time.monotonic()
    with watched() as peaks:
        selection = filter_pool(recipe)
    wall_s = time.monotonic() - start
    print(
        f"\n{name}: {wall_s:.0f} s, {pool_bytes / wall_s / MIB:.0f} MiB/s, {samples / wall_s:.1f} "
        "samples/s"
    )
    if proxy.requests:
        print(proxy.summary())
        print(
            f"{proxy.requests / samples:.3f} requests a sample; "
            f"bytes read / bytes of the pool {proxy.bytes_out / pool_bytes:.3f}"
        )
        seen = Counter[str]()
        for (operation, _), number in proxy.counts.items():
            seen["reading" if operation in ("GET", "HEAD") else "writing"] += number
        parts = len(Store(recipe.run_uri).list("scores", suffix=".parquet"))
        reading, writing, _ = requests(recipe, list_shards(recipe.pool), parts)
        print(
            f"{parts:,} parts; requests as S3 prices them, and as dfn-ray plan expects them: "
            f"reading {seen['reading']:,}, {reading:,.0f}; writing {seen['writing']:,}, "
            f"{writing:,.0f}"
        )
    bars = {
        "Read": reader_bar_bytes(bench.idle_bytes),
        "Committer": committer_bar_bytes(bench.idle_bytes),
        SETTLING: committer_bar_bytes(bench.idle_bytes),
    }
    print(f"an idle worker {bench.idle_bytes / MIB:.0f} MiB; bars:")
    for kind, bar in bars.items():
        print(f"  {bar / MIB:6.0f} MiB  {kind}")
    print("peaks:")
    for kind, peak in sorted(peaks.bytes_by_kind.items(), key=lambda item: -item[1]):
        print(f"  {peak / MIB:6.0f} MiB  {kind}")
    for work, bar in bars.items():
        seen = {kind: peak for kind, peak in peaks.bytes_by_kind.items() if work in kind}
        if not seen:
            bench.problems.append(f"{name}: no process was seen at work as {work}")
        bench.problems.extend(
            f"{name}: {kind} held {peak / MIB:.0f} MiB, more than {bar / MIB:.0f}"
            for kind, peak in seen.items()
            if peak > bar
        )
    faults, proxy.faults = proxy.faults, Faults()
    verify_run(recipe.run_uri)
    result = result_of(recipe, selection)
    proxy.faults = faults
    return result


def main() -> None:
    """Writes the pool, runs the three jobs, and compares their results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--gib", type=float, default=5.0, help="size of the pool")
    parser.add_argument("--fault-share", type=float, default=0.2)
    options = parser.parse_args()
    folder = options.out / "object_storage"
    if folder.exists():
        sys.exit(f"{folder} already exists. Remove it or choose another OUT")
    try:
        _run(folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, options: argparse.Namespace) -> None:
    samples = write_pool(folder / "buckets" / "pools" / "pool", int(options.gib * 2**30))
    pool = folder / "buckets" / "pools" / "pool"
    pool_bytes = sum(path.stat().st_size for path in pool.iterdir())
    network = save_tiny_network(folder / "network")
    print(f"{samples:,} samples, {pool_bytes / 2**30:.2f} GiB, {len(list(pool.iterdir()))} shards")
    with (
        serve_s3(folder / "buckets", ["pools", "runs"]) as server,
        fault_proxy(server.endpoint) as proxy,
    ):
        os.environ.update(server.environment)
        # rclone digests every file for its first listing, for longer than the timeout below.
        fsspec.filesystem("s3", config_kwargs={"read_timeout": 600}).ls("pools/pool")
        os.environ.update(replace(server, endpoint=proxy.endpoint).environment)
        os.environ["FSSPEC_S3_CONFIG_KWARGS"] = f'{{"read_timeout": {READ_TIMEOUT_S}}}'
        set_conf_env(conf)  # read once, when fsspec was imported
        os.environ.setdefault("RAY_ADDRESS", "local")
        connect()
        idle = max(ray.get([_idle_bytes.remote("s3://pools/pool") for _ in range(4)]))
        bench = Bench(samples, pool_bytes, idle, proxy)
        on_disk = _recipe(str(pool), str(folder / "run"), network)
        results = {"disk": measure("disk", on_disk, bench)}
        shutil.rmtree(folder / "run")
        for name, share in (("s3", 0.0), ("faulty", options.fault_share)):
            proxy.reset()
            proxy.faults = Faults(share=share, seed=1)
            recipe = _recipe("s3://pools/pool/*.tar", f"s3://runs/{name}", network)
            results[name] = measure(name, recipe, bench)
            shutil.rmtree(folder / "buckets" / "runs" / name)
        ray.shutdown()
    bench.problems.extend(
        f"{name} differs from disk: {result} and {results['disk']}"
        for name, result in results.items()
        if result != results["disk"]
    )
    if bench.problems:
        sys.exit("\n".join(bench.problems))
    print(
        f"\nidentical: {results['disk'].kept:,} kept, uid list and bytes, in {', '.join(results)}"
    )


def _recipe(pool: str, run: str, network: Path) -> Recipe:
    return recipe_from(
        {
            "run_uri": run,
            "pool": {"uri": [pool], "chunk_bytes": CHUNK_BYTES},
            "networks": [{"name": "dfn", "model": f"local-dir:{network}"}],
            "decode": {"mode": "fast"},
            "select": {"keep_fraction": 0.15},
            "scorers": {"threads": 1},
            "calibration": {"shards": MIN_SHARDS, "samples": CALIBRATION_SAMPLES},
            "execution": {"chunks_per_part": CHUNKS_PER_PART},
        }
    )


if __name__ == "__main__":
    main()
