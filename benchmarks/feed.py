"""The rate of training from a pool against training from memory.

    python benchmarks/feed.py

In one run, the same network, batch and step:

    from memory   a worker's step loop on batches that are in memory
    dfn_ray       `dfn-ray train` from WebDataset tars: read, decoded, augmented, tokenised in tasks

The figures are dfn_ray / memory, and the share of step time that dfn_ray's workers waited for data.
One worker with one thread; decoding takes the other cores.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import torch

from dfn_ray.config import TrainRecipe, recipe_from
from dfn_ray.network.contrastive import Towers, backward, contrastive_loss
from dfn_ray.network.packed import PackedNetwork, trainable_module
from dfn_ray.network.text_tower import lengths
from dfn_ray.pool import list_shards
from dfn_ray.resolving.fetch_networks import fetch_network
from dfn_ray.run import open_run
from dfn_ray.testing.random_networks import save_random_network
from dfn_ray.training.data.feed import Feeding, feed_group
from dfn_ray.training.data.group_samples import GroupInputs
from dfn_ray.training.data.index import index_shard, split_index
from dfn_ray.training.data.order import shuffled_groups
from dfn_ray.training.position import log_lines
from dfn_ray.training.step.optimizer import make_optimizer
from dfn_ray.training.train_clip import train

WARM_UP_STEPS = 10
SMALL = {
    "embed_dim": 256,
    "vision_cfg": {"image_size": 64, "layers": 6, "width": 256, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 256, "heads": 4, "layers": 4},
}
"""A small ViT: 8 M parameters without the vocabulary."""


def main() -> None:
    """Prints both rates and their ratio."""
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--batch-size", type=int, default=128)
    given = options.parse_args()
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        network = save_random_network(Path(folder) / "network", SMALL, seed=0)
        recipe = recipe_from(
            {
                "run_uri": f"{folder}/run",
                "sources": [{"pool": {"uri": _demo_pool(), "chunk_rows": 64}}],
                "model": {
                    "model": f"local-dir:{network}",
                    "random_weights_seed": 0,
                    "precision": "bf16",
                },
                "samples_seen": given.steps * given.batch_size,
                "batch_size": given.batch_size,
                "optimizer": {"warmup_steps": 10},
                "checkpoints": {"every_samples": given.steps * given.batch_size},
                "logs": {"every_steps": 5, "tensorboard": False},
                "workers": {"threads": 1},
            },
            kind=TrainRecipe,
        )
        memory = _from_memory(recipe, given.steps // 2)
        train(recipe)
        lines = [line for line in log_lines(open_run(recipe.run_uri)) if "loss" in line]
        steady = [line for line in lines if line["steps"] > WARM_UP_STEPS]
        fed = median(line["samples_per_s"] for line in steady)
        again = _from_memory(recipe, given.steps // 2)
    limit = median([memory, again])
    print(f"from memory   {limit:8.1f} samples/s")
    print(f"dfn_ray       {fed:8.1f} samples/s")
    print(f"waiting for data {median(line['data_wait'] for line in steady):6.1%}")
    print(f"dfn_ray / memory {fed / limit:6.2f}   (bar: >= 0.90)")


def _demo_pool() -> str:
    import dfn_ray.demo  # noqa: PLC0415  the package's own data

    return str(Path(dfn_ray.demo.__file__).parent / "data" / "pool")


def _from_memory(recipe: TrainRecipe, steps: int) -> float:
    """Samples per second of a worker's step on the first batches of the run, in memory."""
    torch.set_num_threads(1)
    packed = fetch_network(recipe.model)
    module = trainable_module(packed)
    towers = Towers(module, precision="bf16")
    optimizer = make_optimizer(dict(module.named_parameters()), recipe.optimizer)
    loss = contrastive_loss("clip", rank=0, world_size=1)
    batches = _first_batches(recipe, packed)
    took: list[float] = []
    for step in range(steps):
        image_BHWC, text_BL = batches[step % len(batches)]
        began = time.perf_counter()
        image_BCHW = image_BHWC.permute(0, 3, 1, 2).float().div_(255).sub_(0.5).div_(0.5)
        captions = text_BL[:, : int(lengths(module, text_BL.numpy()).max())]
        optimizer.zero_grad(set_to_none=True)
        backward(towers, loss, image_BCHW, captions)
        optimizer.step()
        took.append(time.perf_counter() - began)
    return recipe.batch_size / median(took)


def _first_batches(
    recipe: TrainRecipe, packed: PackedNetwork
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The images and tokens of the first group of the run, in batches."""
    (source,) = recipe.sources
    shards = list_shards(source.pool)
    table = pa.concat_tables([index_shard(source, 0, s, at) for at, s in enumerate(shards)])
    (index,) = split_index(table, [source], [shards])
    feeding = Feeding(
        sources=(source,),
        captions=(None,),
        decode=recipe.decode,
        transform=packed.transform,
        augmentation=recipe.augmentation,
        tokenizer=packed.tokenizer,
        seed=recipe.seed,
    )
    group = next(shuffled_groups([index.samples], None, group_samples=1024, seed=recipe.seed))
    inputs = GroupInputs(group, tuple(index.chunk(chunk.number) for chunk in group.chunks))
    blocks = list(feed_group(inputs, (), feeding=feeding))
    image, text = (
        torch.from_numpy(np.concatenate([b[k] for b in blocks])) for k in ("image", "text")
    )
    size = recipe.batch_size
    return [(image[n : n + size], text[n : n + size]) for n in range(0, len(text) - size + 1, size)]


if __name__ == "__main__":
    main()
