"""What of a recipe's sections changes embeddings, as JSON: the parts of a fingerprint."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from dfn_ray.config import Decode, Pool, Scorers

_NOT_SCORE_CHANGING_POOL = ("uri",)  # which shards there are is in the listing digest
_NOT_SCORE_CHANGING_DECODE = ("timeout_s", "cpus")


def pool_fingerprint(pool: Pool) -> dict[str, Any]:
    """What of `[pool]` decides which samples and chunks there are."""
    return {k: v for k, v in asdict(pool).items() if k not in _NOT_SCORE_CHANGING_POOL}


def decode_fingerprint(decode: Decode) -> dict[str, Any]:
    """What of `[decode]` decides the pixels."""
    return {k: v for k, v in asdict(decode).items() if k not in _NOT_SCORE_CHANGING_DECODE}


def forward_fingerprint(scorers: Scorers) -> dict[str, Any]:
    """What of `[scorers]` decides the forward, to the last bit: batches and compiled kernels round differently."""
    return {
        "device": scorers.device,
        "batch_size": scorers.batch_size,
        "compile": scorers.compile,
    }
