"""The stages without Ray, each alone.

    python benchmarks/below_ray.py [--device cuda]

    read            samples/s of reading tars, one process
    drift           the largest score difference that fast decoding causes
    forward         samples/s of the network per precision and batch size; images and captions apart

Needs no running Ray. On a GPU this says how many CPU cores of decoding one GPU can use up: forward
/ decode (benchmarks/decoding.py).
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import torch
from photos import PIXELS, write_pool

from dfn_ray.config import Decode, Network, Pool, Rules
from dfn_ray.network.packed import PackedNetwork, build, pack_network
from dfn_ray.network.tokenizer import tokenize
from dfn_ray.on_ray.cells import Cell, column_array
from dfn_ray.pool import iter_chunks, list_shards
from dfn_ray.preparing.prepare import Preparation, pixels_column, prepare

REPEATS = 3
Mode = Literal["exact", "fast"]
MODES: tuple[Mode, ...] = ("exact", "fast")


def main() -> None:
    """Prints all rates."""
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
        f"{given.model} on {device}; {given.samples} samples of {PIXELS}x{PIXELS}; torch "
        f"{torch.__version__}"
    )
    with tempfile.TemporaryDirectory() as folder:
        pool = Pool(uri=(str(write_pool(Path(folder) / "pool", given.samples)),))
        print(f"read                 {rate(lambda: samples_in(read(pool))):9.0f} samples/s")
        cells = read(pool)
    packed = pack_network(Network(model=given.model, random_weights_seed=0))
    decoded = {mode: decoded_pixels(cells, packed, mode) for mode in MODES}
    captions = [text for cell in cells for text in cell.samples["text"].to_pylist()]
    tokens = tokenize(packed.tokenizer, captions)
    print(
        f"drift of fast        {drift(packed, decoded, tokens, given.device):9.5f} largest score "
        "difference, fp32"
    )
    for precision in given.precisions:
        network: Any = build(
            pack_network(Network(model=given.model, random_weights_seed=0, precision=precision)),
            device=given.device,
        )
        for batch_size in given.batch_sizes:

            def score(network: Any = network, batch_size: int = batch_size) -> int:
                network.score(decoded["exact"], tokens, batch_size=batch_size)
                return len(tokens)

            print(f"forward {precision} b{batch_size:<6} {rate(score):9.1f} samples/s")


def read(pool: Pool) -> list[Cell]:
    """All chunks of a pool."""
    return [
        Cell(chunk=chunk, samples=samples)
        for shard in list_shards(pool)
        for chunk, samples in iter_chunks(shard, pool)
    ]


def samples_in(cells: Sequence[Cell]) -> int:
    """Samples of all cells."""
    return sum(len(cell.samples) for cell in cells)


def decoded_pixels(cells: Sequence[Cell], packed: PackedNetwork, mode: Mode) -> np.ndarray:
    """The pixels of all samples, as passed to the network."""
    preparation = Preparation(Rules(), Decode(mode=mode), (packed.transform,), ())
    done = [prepare(cell, preparation=preparation) for cell in cells]
    shape = (*packed.transform.size, 3)
    columns = [cell.inputs[pixels_column(0)] for cell in done if cell.inputs is not None]
    return np.concatenate([column_array(column, np.uint8, shape) for column in columns])


def drift(
    packed: PackedNetwork, decoded: dict[str, np.ndarray], tokens: np.ndarray, device: str
) -> float:
    """The largest score difference that fast decoding causes."""
    network = build(packed, device=device)
    exact, fast = (
        network.score(decoded[mode], tokens, batch_size=64).score_N for mode in ("exact", "fast")
    )
    return float(np.abs(exact - fast).max())


def rate(work: Callable[[], int]) -> float:
    """Median units/s of a few runs, after a warm-up."""
    work()
    rates = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        done = work()
        rates.append(done / (time.perf_counter() - begin))
    return median(rates)


if __name__ == "__main__":
    main()
