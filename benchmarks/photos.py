"""The pool of the benchmarks: the demo's images, enlarged to photo size as JPEG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from dfn_ray.config import Pool
from dfn_ray.demo.filter_demo import DATA
from dfn_ray.pool import iter_chunks, list_shards
from dfn_ray.testing.sample_pools import TarBuilder

PIXELS = 512
"""Side of the images, as img2dataset stores DataComp's."""
SHARDS = 8


def write_pool(folder: Path, samples: int) -> Path:
    """The demo pool's images, enlarged to photo size as JPEG, with their own captions."""
    folder.mkdir(parents=True)
    pairs = list(demo_pairs())
    shard_samples = max(1, samples // SHARDS)
    for shard in range(-(-samples // shard_samples)):
        tar = TarBuilder()
        for number in range(shard * shard_samples, min(samples, (shard + 1) * shard_samples)):
            image, caption = pairs[number % len(pairs)]
            buffer = io.BytesIO()
            Image.open(io.BytesIO(image)).convert("RGB").resize((PIXELS, PIXELS)).save(
                buffer, "JPEG", quality=90
            )
            tar.sample(f"{number:09d}", image=buffer.getvalue(), caption=caption)
        (folder / f"{shard:05d}.tar").write_bytes(tar.getvalue())
    return folder


def demo_pairs() -> Iterator[tuple[bytes, str]]:
    """The readable pairs of the demo pool."""
    pool = Pool(uri=(str(DATA / "pool"),))
    for shard in list_shards(pool):
        for _, table in iter_chunks(shard, pool):
            for row in table.to_pylist():
                if row["status"] is None and not row["image"].startswith(b"<"):
                    try:
                        Image.open(io.BytesIO(row["image"])).load()
                    except OSError:
                        continue  # one of the demo's damaged images
                    yield row["image"], row["text"]
