"""The fingerprint of a training run: everything that affects its weights, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from dfn_ray.config import Network, TrainRecipe, recipe_from
from dfn_ray.network.packed import pack_network
from dfn_ray.training.train_clip import _fingerprint
from dfn_ray.uids.records import UID_DTYPE


@pytest.fixture
def fingerprint(network, tmp_path):
    packed = pack_network(Network(model=f"local-dir:{network}"))
    values = {
        "run_uri": str(tmp_path / "run"),
        "model": {"model": f"local-dir:{network}"},
        "samples_seen": 64,
        "batch_size": 8,
        "sources": [{"pool": {"uri": "pool"}, "uid_list": str(tmp_path / "list.npy")}],
    }

    def make(*overrides: str) -> dict:
        return _fingerprint(recipe_from(values, overrides, TrainRecipe), packed)

    return make


def listed(tmp_path, *uids: int) -> None:
    np.save(tmp_path / "list.npy", np.array([(0, uid) for uid in uids], UID_DTYPE))


def test_another_content_of_a_uid_list_is_another_training_run(fingerprint, tmp_path):
    listed(tmp_path, 1, 2)
    before = fingerprint()
    assert fingerprint() == before
    listed(tmp_path, 1, 3)
    assert fingerprint() != before


def test_what_changes_no_weight_is_in_no_fingerprint(fingerprint, tmp_path):
    listed(tmp_path, 1)
    before = fingerprint()
    assert fingerprint("accept_versions=true", "max_failed_fraction=0.5") == before
    assert fingerprint("seed=7") != before
