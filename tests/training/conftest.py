"""Recipes over the small pools and the tiny network of the filtering tests."""

from __future__ import annotations

import pytest

from dfn_ray.config import TrainRecipe, recipe_from


@pytest.fixture
def train_recipe(tmp_path, network, pool):
    """Makes recipes on 300 samples: `train_recipe("samples_seen=640", run="a")`."""

    def make(*overrides: str, run: str = "train", **values):
        return recipe_from(
            {
                "run_uri": str(tmp_path / run),
                "sources": [{"pool": {"uri": str(pool), "chunk_rows": 16}}],
                "model": {"model": f"local-dir:{network}", "random_weights_seed": 0},
                "samples_seen": 640,
                "batch_size": 32,
                "optimizer": {"warmup_steps": 4, "learning_rate": 1e-3},
                "checkpoints": {"every_samples": 160},
                "logs": {"every_steps": 1},
                "feed": {"group_samples": 64},
                "workers": {"threads": 1},
                **values,
            },
            overrides,
            TrainRecipe,
        )

    return make
