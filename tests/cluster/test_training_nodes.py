"""Training on several nodes while one is removed and another joins."""

from __future__ import annotations

import pytest

from dfn_ray.config import TrainRecipe, recipe_from
from dfn_ray.run import open_run
from dfn_ray.testing.clusters import ROLE, NodeType, local_cluster
from dfn_ray.testing.waiting import meanwhile, until
from dfn_ray.training.position import log_lines
from dfn_ray.training.train_clip import train
from tests.cluster.conftest import connected, say
from tests.training.test_train_clip import latest, places_seen, steps_of

pytestmark = pytest.mark.cluster
TRAIN_NODE = NodeType(cpus=1, labels={ROLE: "train"}, resources={"trainer": 1})
DECODE_NODE = NodeType(cpus=1, labels={ROLE: "decode"})


@pytest.fixture
def training(tmp_path, network, pool):
    return recipe_from(
        {
            "run_uri": str(tmp_path / "train"),
            "sources": [{"pool": {"uri": str(pool), "chunk_rows": 16}}],
            "model": {"model": f"local-dir:{network}", "random_weights_seed": 0},
            "samples_seen": 768 * 25,
            "batch_size": 32,
            "checkpoints": {"every_samples": 320},
            "logs": {"every_steps": 1, "tensorboard": False},
            "feed": {"group_samples": 64},
            "decode": {"cpus": 0.5, "labels": {ROLE: "decode"}},
            "workers": {
                "min_size": 1,
                "max_size": 2,
                "threads": 1,
                "labels": {ROLE: "train"},
                "resources": {"trainer": 1},
                "resize_interval_s": 5.0,
            },
        },
        kind=TrainRecipe,
    )


def test_training_continues_with_one_worker_when_a_node_leaves_and_grows_when_one_joins(
    training, tmp_path, capsys
):
    with local_cluster() as cluster, connected(cluster.address, tmp_path / "notes"):
        cluster.add_nodes({"decode": DECODE_NODE, "train-1": TRAIN_NODE, "train-2": TRAIN_NODE})

        def disturb() -> None:
            until(lambda: latest(training) >= 320 and workers_now(training) == 2)
            cluster.kill_node("train-2")
            say(f"killed train-2 at {latest(training)} samples")
            until(lambda: workers_now(training) == 1)
            say(f"one worker at {latest(training)} samples")
            cluster.add_nodes({"train-3": TRAIN_NODE})
            until(lambda: workers_now(training) == 2)
            say(f"two workers at {latest(training)} samples")

        with meanwhile(disturb):
            result = train(training)
    told = capsys.readouterr()
    with capsys.disabled():
        say(f"\n{told.out}{told.err}")
    assert "are repeated" in told.err
    assert result["samples_seen"] == places_seen(training) == training.samples_seen
    lines = steps_of(training)
    assert [line["samples_seen"] for line in lines] == list(
        range(32, training.samples_seen + 1, 32)
    )
    sizes = [line["workers"] for line in lines]
    changes = [size for at, size in enumerate(sizes) if at == 0 or size != sizes[at - 1]]
    assert changes[-3:] == [2, 1, 2]
    commits = [line for line in log_lines(open_run(training.run_uri)) if "generation" in line]
    assert len({line["generation"] for line in commits}) >= 3
    assert open_run(training.run_uri).store.exists("network/open_clip_model.safetensors")


def workers_now(recipe) -> int | None:
    """The number of workers of the last committed step."""
    if latest(recipe) == 0:
        return None
    lines = steps_of(recipe)
    return int(lines[-1]["workers"]) if lines else None
