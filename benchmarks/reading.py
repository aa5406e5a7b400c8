"""Samples/s of reading tars and Parquet, for two versions of this package.

    python benchmarks/reading.py --against PATH

PATH is a folder with another version of the package `dfn_ray`. Each read runs in its own process,
the versions in turn; the ratio of the medians is the cost of a change. Rates are per second of CPU
time, which depends little on other load. Files have no checksums, except in `parquet, checksums`.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq

from dfn_ray.testing.sample_pools import TarBuilder

REPEATS = 5
IMAGE_BYTES = 30_000  # about a JPEG of 256x256
HERE = Path(__file__).resolve().parents[1]
WALK = """
import sys, time
from dfn_ray.config import Pool
from dfn_ray.pool import Shard, iter_chunks
path, size = sys.argv[1], int(sys.argv[2])
shard, pool = Shard(path, "0", size), Pool(uri=(path,))
for _ in iter_chunks(shard, pool):
    break  # imports at first use do not count
start = time.process_time()
rows = sum(chunk.rows for chunk, _ in iter_chunks(shard, pool))
print(rows / (time.process_time() - start))
"""


def main() -> None:
    """Prints the rates of every kind of file."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--samples", type=int, default=4096)
    options.add_argument("--against", type=Path, default=None)
    options.add_argument("--repeats", type=int, default=REPEATS)
    given = options.parse_args()
    versions = [HERE] + ([given.against.resolve()] if given.against else [])
    with tempfile.TemporaryDirectory() as folder:
        for kind, path in write_files(Path(folder), given.samples).items():
            rates: list[list[float]] = [[] for _ in versions]
            for _ in range(given.repeats):
                for version, found in zip(versions, rates, strict=True):
                    found.append(walk(version, path))
            here, *others = (median(found) for found in rates)
            against = "".join(f"; against {other:9.0f}: {here / other:.3f}" for other in others)
            print(f"{kind:28} {here:9.0f} samples/s{against}", flush=True)


def walk(version: Path, path: Path) -> float:
    """Samples/s of one walk over a file with the package in a folder."""
    command = [sys.executable, "-c", WALK, str(path), str(path.stat().st_size)]
    environment = os.environ | {"PYTHONPATH": str(version)}
    return float(subprocess.check_output(command, env=environment, text=True))


def write_files(folder: Path, samples: int) -> dict[str, Path]:
    """A tar, and Parquet files as img2dataset, Hugging Face and Spark write them."""
    draw = random.Random(0)
    images = [draw.randbytes(IMAGE_BYTES) for _ in range(samples)]
    texts = [f"caption number {n}" for n in range(samples)]
    tar = TarBuilder()
    for n in range(samples):
        tar.sample(f"{n:09}", image=images[n], caption=texts[n], metadata={"width": n})
    paths = {"tar": folder / "0.tar"}
    paths["tar"].write_bytes(tar.getvalue())
    metadata = {
        "key": [f"{n:09}" for n in range(samples)],
        "url": [f"https://example.com/images/{n}" for n in range(samples)],
        "license": ["by"] * samples,
        "width": list(range(samples)),
        "score": [n / samples for n in range(samples)],
    }
    table = pa.table({"image": images, "text": texts, **metadata})
    for kind, settings in {
        "parquet": {},
        "parquet, row groups of 100": {"row_group_size": 100},
        "parquet, no dictionaries": {"use_dictionary": False, "compression": "zstd"},
        "parquet, checksums": {"write_page_checksum": True},
    }.items():
        paths[kind] = folder / f"{len(paths)}.parquet"
        pq.write_table(table, paths[kind], **settings)
    return paths


if __name__ == "__main__":
    main()
