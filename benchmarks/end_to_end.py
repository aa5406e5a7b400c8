"""The share of the machine's capacity that the pipeline reaches.

    python benchmarks/end_to_end.py

In one run, on the same shards and the same open_clip ViT-B-32 (random weights, bf16):

    forward limit   the network alone, on decoded chunks
    decode limit    reading, decoding and tokenising alone, one process per CPU
    dfn_ray         `filter_pool` end to end, from the first commit to the last
    plain loop      open_clip + webdataset + DataLoader, as a user would write it

The limit of a run is min(forward, decode); the figures that matter are dfn_ray / limit and dfn_ray
/ plain.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import open_clip
import pyarrow.parquet as pq
import torch
from photos import PIXELS, write_pool
from webdataset.compat import WebDataset

from dfn_ray.config import Pool, Recipe, recipe_from
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.filtering.scoring.scorer import Bounds, Scorer, plan_inputs
from dfn_ray.forecast.stage_rates import (
    prepare_cells,
    read_cells,
    rows_of_cells,
    score_cells,
    timed,
)
from dfn_ray.pool import Shard, list_shards
from dfn_ray.preparing.prepare import Preparation
from dfn_ray.resolving.fetch_networks import fetch_networks
from dfn_ray.run import read_part
from dfn_ray.storage import Store


def main() -> None:
    """Prints the four rates and the two ratios."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--samples", type=int, default=2048)
    options.add_argument("--model", default="ViT-B-32")
    options.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    options.add_argument("--decode", default="exact", choices=["exact", "fast"])
    options.add_argument("--batch-size", type=int, default=64)
    given = options.parse_args()
    logging.disable(logging.WARNING)
    cpus = os.cpu_count() or 1
    with tempfile.TemporaryDirectory() as folder:
        pool = write_pool(Path(folder) / "pool", given.samples)
        recipe = recipe_from(
            {
                "run_uri": f"{folder}/run",
                "pool": {"uri": [str(pool)]},
                "decode": {"mode": given.decode},
                "networks": [{"model": given.model, "random_weights_seed": 0, "precision": "bf16"}],
                "scorers": {
                    "batch_size": given.batch_size,
                    "device": given.device,
                    "gpus": 1.0 if given.device == "cuda" else 0.0,
                    # One thread each: a forward pass of several threads waits for the slowest,
                    # which shares its core with a decoder.
                    **(
                        {"min_size": cpus, "max_size": cpus, "threads": 1}
                        if given.device == "cpu"
                        else {}
                    ),
                },
                "execution": {"chunks_per_part": 1},
            }
        )
        print(
            f"{given.samples} samples of {PIXELS}x{PIXELS}, {given.model} bf16, {cpus} CPUs, "
            f"device {given.device}, decode {given.decode}, torch {torch.__version__}"
        )
        rates = {
            "decode limit": decode_limit(recipe, cpus),
            "forward limit": forward_limit(recipe, cpus),
            "plain loop": plain_loop(recipe, cpus),
            "dfn_ray": end_to_end(recipe),
        }
    for name, rate in rates.items():
        print(f"{name:14} {rate:8.1f} samples/s")
    limit = min(rates["decode limit"], rates["forward limit"])
    print(f"dfn_ray / min(limits)  {rates['dfn_ray'] / limit:.2f}   (bar: >= 0.80)")
    print(f"dfn_ray / plain loop   {rates['dfn_ray'] / rates['plain loop']:.2f}   (bar: >= 1.80)")


def decode_limit(recipe: Recipe, cpus: int) -> float:
    """Samples/s of reading, decoding and tokenising with one process per CPU and nothing else."""
    preparation, _ = plan_inputs(fetch_networks(recipe), recipe)
    shards = list_shards(recipe.pool)
    work = partial(prepare_shard, pool=recipe.pool, preparation=preparation)
    with ProcessPoolExecutor(cpus) as processes:
        list(processes.map(work, shards[:cpus]))  # imports and tokenizer
        samples, seconds = timed(lambda: sum(processes.map(work, shards)))
        return samples / seconds


def prepare_shard(shard: Shard, pool: Pool, preparation: Preparation) -> int:
    """Prepares every chunk of a shard; returns its samples."""
    torch.set_num_threads(1)
    return rows_of_cells(prepare_cells(read_cells(shard, pool), preparation))


def forward_limit(recipe: Recipe, cpus: int) -> float:
    """Samples/s of the scorer on prepared chunks, all CPUs, nothing else running."""
    networks = fetch_networks(recipe)
    preparation, inputs = plan_inputs(networks, recipe)
    scorers = replace(recipe.scorers, threads=cpus)
    scorer = Scorer(networks, inputs, scorers, "dfn", Bounds(2.0, 2.0))
    cells = [
        cell
        for shard in list_shards(recipe.pool)[:2]
        for cell in prepare_cells(read_cells(shard, recipe.pool), preparation)
    ]
    score_cells(cells[:1], scorer)
    seconds = median(timed(lambda: score_cells(cells, scorer))[1] for _ in range(3))
    return rows_of_cells(cells) / seconds


def end_to_end(recipe: Recipe) -> float:
    """Samples/s of `filter_pool` between its first and its last commit."""
    filter_pool(recipe)
    store = Store(recipe.run_uri)
    scores = Path(recipe.run_uri) / "scores"
    parts = sorted(scores.glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    rows = [sum(chunk.rows for chunk in read_part(store, path.stem).chunks) for path in parts]
    assert sum(rows) == sum(pq.read_metadata(path).num_rows for path in parts)
    first, last = (parts[index].stat().st_mtime_ns for index in (0, -1))
    return sum(rows[1:]) / ((last - first) / 1e9)


def plain_loop(recipe: Recipe, cpus: int) -> float:
    """Samples/s of open_clip with webdataset and a DataLoader, after its first batch."""
    torch.set_num_threads(cpus)
    device, spec = recipe.scorers.device, recipe.networks[0]
    model: Any
    preprocess: Any
    model, _, preprocess = open_clip.create_model_and_transforms(spec.model, device=device)
    tokenizer = open_clip.get_tokenizer(spec.model)
    model.eval()
    shards = [shard.uri for shard in list_shards(recipe.pool)]
    dataset: Any = (
        WebDataset(shards, shardshuffle=False)
        .decode("pilrgb")
        .rename(image="jpg", text="txt")
        .map_dict(image=preprocess, text=lambda text: tokenizer([text])[0])
        .to_tuple("image", "text")
    )
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=recipe.scorers.batch_size, num_workers=min(cpus, len(shards))
    )
    samples, begin = 0, 0.0
    for index, (image, text) in enumerate(loader):
        with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16):
            image_embedding = model.encode_image(image.to(device), normalize=True)
            text_embedding = model.encode_text(text.to(device), normalize=True)
            (image_embedding * text_embedding).sum(-1).float().cpu()
        if index == 0:
            begin = time.perf_counter()
        else:
            samples += len(image)
    return samples / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
