"""Pools of many tiny shards and runs of many parts, for benchmarks/scale.py."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from dfn_ray.config import Recipe, recipe_from
from dfn_ray.run import (
    SCORES,
    content_name,
    open_run,
    parquet_bytes,
    part_footer,
    part_names,
    read_parts,
)
from dfn_ray.schema import Chunk
from dfn_ray.storage import Store
from dfn_ray.testing.sample_pools import TarBuilder, jpeg_bytes

SCORED_EVERY = 8
"""Captions pass the rules in one of so many shards. The others are not decoded, which would fork a
process per chunk; they still pass through every task, the scorer and the commit, and cost the
driver the same."""


def written_run(recipe: Recipe, run_uri: Path, *, shard_chunks: int, part_chunks: int) -> Recipe:
    """Writes a scored run of the recipe's pool with so many chunks per shard and per part.

    A scan reads footers only, so every part has the same few rows, copied from a real one.
    """
    run = open_run(recipe.run_uri)
    like = next(read_parts(run.store, part_names(run.store)[:1]))
    rows = pq.read_table(run.store.uri_of(f"{SCORES}/{like.name}.parquet"))
    (run_uri / SCORES).mkdir(parents=True)
    for name in ("run.json", "pool.parquet", "attempts/000001.json"):
        Store(str(run_uri)).write(name, run.store.read(name))
    chunks = [
        Chunk(shard=uri, first_row=256 * n, rows=256, last=n == shard_chunks - 1, bytes_read=10**7)
        for uri in run.listing()["uri"].to_pylist()
        for n in range(shard_chunks)
    ]
    for start in range(0, len(chunks), part_chunks):
        mine = chunks[start : start + part_chunks]
        footer = part_footer(mine, replace(like.header, counts={"scored": 256 * len(mine)}))
        # Not with Store.write: nothing here has to survive a crash, and fsync is slow.
        data = parquet_bytes(rows.replace_schema_metadata(footer))
        (run_uri / SCORES / f"{content_name(1, data)}.parquet").write_bytes(data)
    return replace(recipe, run_uri=str(run_uri))


def make_recipe(run: Path, pool: Path, network: Path, *, chunk_rows: int = 256) -> Recipe:
    """A recipe with default settings except for the tiny network."""
    return recipe_from(
        {
            "run_uri": str(run),
            "pool": {"uri": [str(pool)], "chunk_rows": chunk_rows},
            "networks": [{"name": "dfn", "model": f"local-dir:{network}"}],
            "rules": {"min_caption_words": 3},
            "select": {"keep_fraction": 0.15, "of": "scored"},
            "scorers": {"threads": 1},
        }
    )


def write_pool(folder: Path, shards: int, rows: int) -> Path:
    """Writes tars of `rows` tiny grey JPEGs with captions, in folders of a thousand."""
    shades = [jpeg_bytes(shade=shade) for shade in range(256)]
    for shard in range(shards):
        tar = TarBuilder()
        for index in range(rows):
            number = shard * rows + index
            caption = f"picture {number}" + " of grey" * (shard % SCORED_EVERY == 0)
            tar.sample(f"{number:09d}", image=shades[number % 256], caption=caption)
        path = folder / f"{shard // 1000:05d}" / f"{shard:08d}.tar"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(tar.getvalue())
    return folder
