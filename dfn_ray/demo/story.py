"""`dfn-ray run demo`: the whole story on data that ship with the package, in minutes on two cores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"
SIDE = 32
"""Pixels. At 64 training takes 1.5 times as long and teaches no more in these few samples (docs/experiments.md)."""

MODEL_CFG: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": SIDE, "layers": [1, 1, 1, 1], "width": 16, "head_width": 64},
    "text_cfg": {
        "context_length": 24,
        "vocab_size": 49408,
        "width": 48,
        "heads": 3,
        "layers": 2,
    },
}
"""CLIP's own ResNet at the smallest size that learns, for the filtering network and the induced models alike."""


def story_values(out: str = "runs/story") -> dict[str, Any]:
    """The recipe of the story as plain values.

    The filtering network sees clean pairs of four artists, the pool is a fifth one's with half of its captions
    damaged, and what is measured is recognising a sixth one's drawings.
    """
    model = {"model": f"local-dir:{DATA / 'story'}", "random_weights_seed": 0}
    how = {
        "model": model,
        "batch_size": 128,
        "augmentation": {"min_scale": 0.6, "jitter": 0.4},
        "feed": {"group_samples": 1024},
        "logs": {"every_steps": 10},
    }
    optimizer = {"learning_rate": 1.5e-3, "weight_decay": 0.1}
    return {
        "run_uri": out,
        "pool": {"uri": [str(DATA / "pool")], "chunk_rows": 64},
        "arms": ["dfn", "pool"],
        "seeds": [1, 2, 3],
        "dfn": {
            **how,
            "sources": [
                {"name": "clean", "pool": {"uri": [str(DATA / "clean")], "chunk_rows": 64}}
            ],
            "samples_seen": 80_000,
            "optimizer": {**optimizer, "warmup_steps": 50},
        },
        "filter": {"select": {"keep_fraction": 0.5, "of": "scored"}},
        "train": {
            **how,
            "samples_seen": 30_000,
            "optimizer": {**optimizer, "warmup_steps": 30},
        },
        "evaluate": {"sets": [{"name": "emoji", "pool": {"uri": [str(DATA / "held_out")]}}]},
    }
