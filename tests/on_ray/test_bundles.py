"""Resources and labels that tasks and actors require of their nodes."""

from __future__ import annotations

from math import inf

from dfn_ray.config import Decode, Scorers, Workers
from dfn_ray.on_ray.bundles import Bundle, decode_bundle, scorer_bundle, worker_bundle

DECODES, SCORES = {"role": "decode"}, {"role": "score"}
GPU_NODE = {"CPU": 4.0, "GPU": 2.0}


def test_bundles_fit_side_by_side_where_resources_and_labels_allow():
    quarter = Bundle({"GPU": 0.25, "CPU": 0.0})
    assert quarter.room_on(GPU_NODE, SCORES) == 8
    assert quarter.room_on({"CPU": 8.0}, DECODES) == 0
    assert Bundle({"CPU": 1.0}, DECODES).room_on(GPU_NODE, SCORES) == 0
    assert Bundle({"CPU": 0.0}).room_on({}, {}) == inf
    tenth = Bundle({"CPU": 0.1})
    assert tenth.room_on({"CPU": 0.1 + 0.1 + 0.1}, {}) == 3


def test_bundles_reserve_what_the_recipe_says_and_leave_out_what_it_does_not():
    scorers = Scorers(gpus=0.5, resources={"fast_link": 1}, labels=SCORES)
    assert scorer_bundle(scorers).ray_options() == {
        "num_cpus": 0,
        "num_gpus": 0.5,
        "resources": {"fast_link": 1},
        "label_selector": SCORES,
    }
    assert decode_bundle(Decode(cpus=2)).ray_options() == {"num_cpus": 2, "num_gpus": 0}


def test_training_workers_take_a_whole_gpu_or_none():
    assert worker_bundle(Workers(device="cuda", cpus=4)).resources == {"GPU": 1, "CPU": 4}
    assert worker_bundle(Workers(device="cpu", cpus=4)).resources == {"CPU": 4}
