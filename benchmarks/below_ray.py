"""The parts below Ray by themselves: python benchmarks/below_ray.py [--device cuda]

    read            samples/s of walking tars, one process
    decode          images/s of decoding and resizing, one process, exact and fast, with the score drift of fast
    forward         samples/s of the network per precision and batch size; images and captions apart

Needs no Ray. On a GPU this says how many CPU cores of decoding one GPU can use up: forward / decode.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from photos import PIXELS, write_pool

from dfn_ray.clip.decode import DecodedImages, decode_images
from dfn_ray.clip.network import FrozenNetwork, build, load_network
from dfn_ray.clip.text import tokenize
from dfn_ray.config import Network, Pool
from dfn_ray.pool import iter_chunks, list_shards

REPEATS = 3


def main() -> None:
    """Print all rates."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--samples", type=int, default=1024)
    options.add_argument("--model", default="ViT-B-32")
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--batch-sizes", type=int, nargs="+", default=[64, 256])
    options.add_argument("--precisions", nargs="+", default=["fp32", "bf16"])
    given = options.parse_args()
    device = (
        torch.cuda.get_device_name()
        if given.device == "cuda"
        else f"cpu, {torch.get_num_threads()} threads"
    )
    print(
        f"{given.model} on {device}; {given.samples} samples of {PIXELS}x{PIXELS}; torch {torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(uri=(str(write_pool(Path(folder) / "pool", given.samples)),))
        print(f"read                 {rate(lambda: len(read(pool)[0])):9.0f} samples/s")
        images, captions = read(pool)
    frozen = load_network(Network(model=given.model, random_weights_seed=0))
    decoded: dict[str, DecodedImages] = {}
    modes: tuple[Literal["exact", "fast"], ...] = ("exact", "fast")
    for mode in modes:

        def decode(mode: Literal["exact", "fast"] = mode) -> int:
            decoded[mode] = decode_images(
                images, [frozen.transform], mode=mode, on_truncated="score",
                max_pixels=10**8, timeout_s=60.0,
            )  # fmt: skip
            return len(images)

        print(f"decode {mode:6}        {rate(decode):9.0f} images/s in one process")
    tokens = tokenize(frozen.tokenizer, captions)
    print(
        f"drift of fast        {drift(frozen, decoded, tokens, given.device):9.5f} largest score difference, fp32"
    )
    for precision in given.precisions:
        network: Any = build(
            load_network(Network(model=given.model, random_weights_seed=0, precision=precision)),
            device=given.device,
        )
        for batch_size in given.batch_sizes:

            def score(network: Any = network, batch_size: int = batch_size) -> int:
                network.score(decoded["exact"].pixels[0], tokens, batch_size=batch_size)
                return len(tokens)

            print(f"forward {precision} b{batch_size:<6} {rate(score):9.1f} samples/s")


def read(pool: Pool) -> tuple[list[bytes], list[str]]:
    """All images and captions of a pool."""
    images: list[bytes] = []
    captions: list[str] = []
    for shard in list_shards(pool):
        for _, table in iter_chunks(shard, pool):
            images += table["image"].to_pylist()
            captions += table["text"].to_pylist()
    return images, captions


def drift(
    frozen: FrozenNetwork, decoded: dict[str, DecodedImages], tokens: np.ndarray, device: str
) -> float:
    """The largest difference that fast decoding makes to a score."""
    network = build(frozen, device=device)
    exact, fast = (
        network.score(decoded[mode].pixels[0], tokens, batch_size=64).score_N
        for mode in ("exact", "fast")
    )
    return float(np.abs(exact - fast).max())


def rate(work: Callable[[], int]) -> float:
    """Median of a few runs of units/s, after one that does not count."""
    work()
    rates = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - begin))
    return median(rates)


if __name__ == "__main__":
    main()
