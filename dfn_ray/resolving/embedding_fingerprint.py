"""The settings of a recipe that change embeddings, as JSON: the parts of a fingerprint."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from dfn_ray.config import Decode, EvaluateRecipe, Pool, Recipe, Scorers
from dfn_ray.images.decode import DECODER_VERSION
from dfn_ray.pool import Shard
from dfn_ray.pool.reading import READER_VERSION
from dfn_ray.versions import package_versions

R = TypeVar("R", Recipe, EvaluateRecipe)
_TARS = (".tar", ".tar.gz", ".tgz")

_NOT_SCORE_CHANGING_DECODE = (
    "timeout_s", "placement", "tasks", "cpus", "labels", "resources",
)  # fmt: skip


def pool_fingerprint(pool: Pool) -> dict[str, Any]:
    """The settings of `[pool]` that determine samples and chunks: all but the address.

    The shards themselves are in the listing's digest.
    """
    return {k: v for k, v in asdict(pool).items() if k != "uri"}


def reading_versions(pool: Pool, shards: Sequence[Shard] | None = None) -> dict[str, Any]:
    """Versions of the code that turns files of a pool into samples and pixels.

    These are dfn_ray's, and pyarrow's if the pool may contain Parquet; without `shards` it may.
    Those of the tokenizer and of timm are in the fingerprint of a network.
    """
    may_be_parquet = pool.format == "auto" and (
        shards is None or any(not shard.name.endswith(_TARS) for shard in shards)
    )
    reads_parquet = pool.format == "parquet" or may_be_parquet
    packages = ("dfn_ray", "pyarrow") if reads_parquet else ("dfn_ray",)
    return {
        "reader": READER_VERSION,
        "decoder": DECODER_VERSION,
        **package_versions(packages),
    }


def decode_fingerprint(decode: Decode) -> dict[str, Any]:
    """The settings of `[decode]` that determine the pixels."""
    return {k: v for k, v in asdict(decode).items() if k not in _NOT_SCORE_CHANGING_DECODE}


def with_fixed_threads(scorers: Scorers) -> Scorers:
    """The section with a fixed number of threads if embeddings depend on it, i.e. on the CPU.

    float32 sums are split over the threads: scores of 1 and 2 threads differ by up to 1.5e-7. So
    the number is taken once from the driver's machine and is the same for every actor.
    """
    if scorers.device != "cpu" or scorers.threads is not None:
        return scorers
    return replace(scorers, threads=os.cpu_count() or 1)


def recipe_with_fixed_threads(recipe: R) -> R:
    """The recipe with the number of CPU threads that a run from this machine uses."""
    return replace(recipe, scorers=with_fixed_threads(recipe.scorers))


def forward_fingerprint(scorers: Scorers) -> dict[str, Any]:
    """The settings of `[scorers]` that determine the forward pass to the last bit.

    Batch sizes, thread counts and compiled kernels round differently.
    """
    return {
        "device": scorers.device,
        "batch_size": scorers.batch_size,
        "threads": with_fixed_threads(scorers).threads if scorers.device == "cpu" else None,
        "compile": scorers.compile,
    }
