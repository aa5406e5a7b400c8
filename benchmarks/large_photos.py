"""A pool of photos at a camera's size, for benchmarks/object_storage.py."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from photos import demo_pairs
from PIL import Image

from dfn_ray.testing.sample_pools import TarBuilder

PIXELS = 2048
PICTURES = 12
"""Different pictures; samples differ by a comment in their JPEG, so that no two are equal."""
SHARD_BYTES = 64 * 2**20


def write_pool(folder: Path, size_bytes: int) -> int:
    """Shards of about SHARD_BYTES until there are `size_bytes`; returns the number of samples."""
    folder.mkdir(parents=True)
    pairs = list(demo_pairs())
    pictures = [_photo(pairs[seed][0], seed) for seed in range(PICTURES)]
    written = number = shard = 0
    while written < size_bytes:
        tar = TarBuilder()
        while len(tar) < SHARD_BYTES:
            picture = pictures[number % PICTURES]
            comment = f"sample {number:09d}".encode()
            # A COM segment after the start marker (ITU T.81, B.2.4.5).
            segment = b"\xff\xfe" + (len(comment) + 2).to_bytes(2, "big") + comment
            image = picture[:2] + segment + picture[2:]
            tar.sample(f"{number:09d}", image=image, caption=pairs[number % len(pairs)][1])
            number += 1
        data = tar.getvalue()
        (folder / f"{shard:05d}.tar").write_bytes(data)
        written += len(data)
        shard += 1
    return number


def _photo(image: bytes, seed: int) -> bytes:
    """An image with the dimensions, file size and grain of a photo."""
    large = Image.open(io.BytesIO(image)).convert("RGB").resize((PIXELS, PIXELS))
    grain = np.random.default_rng(seed).normal(0, 12, (PIXELS, PIXELS, 3))
    noisy = np.clip(np.asarray(large) + grain, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noisy).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()
