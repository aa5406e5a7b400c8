"""Decoding and resizing, exact and fast in turns.

    python benchmarks/decoding.py

Images per CPU second of `preparing.prepare`, its child process included, on Arrow tables as readers
return them; medians, and their ratio. The process resembles a decode worker, with neither torch nor
a network in memory: a fork copies its parent's page tables, which with a network takes as long as
decoding several images.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

from photos import PIXELS, write_pool

from dfn_ray.config import Decode, Pool, Rules
from dfn_ray.images.transform import ImageTransform
from dfn_ray.on_ray.cells import Cell
from dfn_ray.pool import iter_chunks, list_shards
from dfn_ray.preparing.prepare import Preparation, prepare

ROUNDS = 5
MODES: tuple[Literal["exact", "fast"], ...] = ("exact", "fast")
CLIP = ImageTransform(
    size=(224, 224),
    resize_mode="shortest",
    interpolation="bicubic",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)


def main() -> None:
    """Prints both rates and their ratio."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--samples", type=int, default=2048)
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(uri=(str(write_pool(Path(folder) / "pool", given.samples)),))
        cells = [
            Cell(chunk=chunk, samples=samples)
            for shard in list_shards(pool)
            for chunk, samples in iter_chunks(shard, pool)
        ]
    rates = decode_rates(cells)
    chunk = sum(len(cell.samples) for cell in cells) / len(cells)
    sys.stdout.write(f"{given.samples} JPEGs of {PIXELS}x{PIXELS}, {chunk:.0f} to a chunk\n")
    for mode in MODES:
        sys.stdout.write(f"decode {mode:6} {rates[mode]:9.0f} images/s of one core\n")
    sys.stdout.write(f"fast / exact  {rates['fast'] / rates['exact']:9.2f}\n")


def decode_rates(cells: Sequence[Cell]) -> dict[str, float]:
    """Median images per CPU second by mode; modes take turns, and the first round is a warm-up."""
    took_s: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(ROUNDS + 1):
        for mode in MODES:
            preparation = Preparation(Rules(), Decode(mode=mode), (CLIP,), ())
            begin = cpu_s()
            for cell in cells:
                prepare(cell, preparation=preparation)
            took_s[mode].append(cpu_s() - begin)
    samples = sum(len(cell.samples) for cell in cells)
    return {mode: samples / median(times[1:]) for mode, times in took_s.items()}


def cpu_s() -> float:
    """CPU seconds of this process and its reaped children, which depend less on other load."""
    return sum(os.times()[:4])


if __name__ == "__main__":
    main()
