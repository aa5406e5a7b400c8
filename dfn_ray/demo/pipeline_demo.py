"""`dfn-ray pipeline demo`: the whole pipeline on embedded data, in minutes on two cores.

The filtering network is trained on clean pairs of four artists, the pool is by a fifth artist with
half of its captions damaged, and the metric is classification of a sixth artist's drawings. The
source of the settings is docs/experiments.md, "The whole pipeline on embedded data".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


def pipeline_demo_values(out: str = "runs/pipeline") -> dict[str, Any]:
    """The recipe of the pipeline as plain values."""
    return {
        "run_uri": out,
        "pool": {"uri": [str(DATA / "pool")], "chunk_rows": 64},
        "arms": ["dfn", "pool"],
        "seeds": [0, 1, 2],
        "dfn": _training(
            "dfn",
            samples_seen=80_000,
            warmup_steps=50,
            min_scale=0.6,
            sources=[{"name": "clean", "pool": {"uri": [str(DATA / "clean")], "chunk_rows": 64}}],
        ),
        "filter": {"select": {"keep_fraction": 0.5, "of": "scored"}},
        "train": _training("induced", samples_seen=30_720, warmup_steps=30, min_scale=0.8),
        "evaluate": {"sets": [{"name": "emoji", "pool": {"uri": [str(DATA / "held_out")]}}]},
    }


def _training(
    model: str, *, samples_seen: int, warmup_steps: int, min_scale: float, **more: Any
) -> dict[str, Any]:
    return {
        "model": {
            "model": f"local-dir:{DATA / 'models' / model}",
            "random_weights_seed": 0,
            "precision": "bf16",
        },
        "samples_seen": samples_seen,
        "batch_size": 128,
        "optimizer": {"learning_rate": 1.5e-3, "weight_decay": 0.1, "warmup_steps": warmup_steps},
        # Artists differ most in colour: jitter improves the result more than cropping does.
        "augmentation": {"min_scale": min_scale, "jitter": 0.4, "hue_jitter": 0.05},
        "feed": {"group_samples": 1024},
        **more,
    }
