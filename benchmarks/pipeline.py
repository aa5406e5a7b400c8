"""The share of the machine that scoring uses, with a network that costs nothing.

    python benchmarks/pipeline.py [--decode fast] [--placement apart] [--repeats 5]

In turn, on the same shards:

    serial limit    processes that only read, decode and tokenize, one per CPU, all CPUs busy
    dfn_ray         `score_pool`, bytes of kept samples included, from first byte to last commit

The network's forward pass is replaced by the read of one pixel per image. The figure is the
median of dfn_ray / serial limit.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import ray
from end_to_end import decode_limit
from photos import PIXELS, write_pool

from dfn_ray.config import Recipe, recipe_from
from dfn_ray.filtering.scoring.score_pool import score_pool
from dfn_ray.storage import shared_environment

SHARD_SAMPLES = 1000


def main() -> None:
    """Prints both rates of each repeat, and the medians."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--shards", type=int, default=36)
    options.add_argument("--decode", default="exact", choices=["exact", "fast"])
    options.add_argument("--placement", default="beside", choices=["beside", "apart"])
    options.add_argument("--repeats", type=int, default=5)
    options.add_argument("--folder", type=Path, help="keeps the pool there")
    given = options.parse_args()
    logging.disable(logging.WARNING)
    cpus = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as temporary:
        pool = photo_pool(given.folder or Path(temporary) / "pool", given.shards)
        print(f"{given.shards * SHARD_SAMPLES} samples of {PIXELS}x{PIXELS}, {cpus} CPUs, {given}")
        ratios = []
        for repeat in range(given.repeats):
            recipe = stand_in_recipe(pool, Path(temporary) / f"run-{repeat}", given)
            limit = decode_limit(recipe, cpus)
            rate, seconds, first_part_s = scored(recipe, Path(temporary) / f"first-{repeat}")
            ratios.append(rate / limit)
            print(
                f"serial limit {limit:7.1f}/s   dfn_ray {rate:7.1f}/s in {seconds:.0f} s, first "
                f"part after {first_part_s:.1f} s   {rate / limit:.2f}",
                flush=True,
            )
    print(f"dfn_ray / serial limit, median of {len(ratios)}: {median(ratios):.2f}")


def photo_pool(folder: Path, shards: int) -> Path:
    """8 shards of photos, and links to them."""
    if not folder.exists():
        write_pool(folder, 8 * SHARD_SAMPLES)
    for number in range(8, shards):
        link = folder / f"{number:05d}.tar"
        if not link.exists():
            os.link(folder / f"{number % 8:05d}.tar", link)
    for link in sorted(folder.glob("*.tar"))[shards:]:
        link.unlink()
    return folder


def stand_in_recipe(pool: Path, run: Path, given: argparse.Namespace) -> Recipe:
    """A recipe for the pool; the network only sets the size of the pixels."""
    return recipe_from(
        {
            "run_uri": str(run),
            "pool": {"uri": [str(pool)]},
            "decode": {"mode": given.decode, "placement": given.placement},
            "networks": [{"model": "ViT-B-32", "random_weights_seed": 0}],
            "select": {"keep_fraction": 0.15},
            "scorers": {"threads": 1},
        }
    )


def scored(recipe: Recipe, first_byte: Path) -> tuple[float, float, float]:
    """Samples/s from first byte to last commit, these seconds, and those until the first part."""
    begin = time.time()
    ray.init(
        log_to_driver=False,
        logging_level=logging.ERROR,
        include_dashboard=False,
        runtime_env={
            "env_vars": shared_environment(),
            "worker_process_setup_hook": lambda: stand_in(str(first_byte)),
        },
    )
    try:
        _, ledger = score_pool(recipe, keep_bytes=True)
    finally:
        ray.shutdown()
    parts = [file.stat().st_mtime for file in Path(recipe.run_uri).glob("scores/*.parquet")]
    seconds = max(parts) - first_byte.stat().st_mtime
    return ledger.samples / seconds, seconds, min(parts) - begin


def stand_in(first_byte: str) -> None:
    """Replaces the forward pass in this worker, and notes when the first shard is read."""
    from dfn_ray.network import filtering_network  # noqa: PLC0415
    from dfn_ray.on_ray import uninterruptible_imports  # noqa: PLC0415
    from dfn_ray.preparing import decode_tasks  # noqa: PLC0415
    from dfn_ray.preparing.processes.worker_pool import WorkerPool  # noqa: PLC0415

    uninterruptible_imports.guard_workers()

    def score(self: Any, pixels_NHWC: Any, *arguments: Any, **options: Any) -> Any:
        return filtering_network.ChunkScores(
            score_N=pixels_NHWC[:, 0, 0, 0].astype("float32") / 255,
            image_embedding_ND=None,
            text_embedding_ND=None,
        )

    network: Any = filtering_network.FilteringNetwork
    network.score = score

    def noted(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            if not Path(first_byte).exists():
                Path(first_byte).touch()
            return function(*arguments, **options)

        return call

    for source in (WorkerPool, decode_tasks.DecodeTasks):
        source.cells = noted(source.cells)


if __name__ == "__main__":
    main()
