"""Learning rate and parameter groups, against open_clip's trainer."""

from __future__ import annotations

import open_clip
import pytest
import torch
from open_clip_train.scheduler import cosine_lr

from dfn_ray.config import Optimizer
from dfn_ray.testing.random_networks import TINY
from dfn_ray.training.step.optimizer import learning_rate, make_optimizer


@pytest.mark.parametrize("warmup", [0, 7, 30])
def test_the_rate_of_each_step_is_open_clips(warmup):
    recipe, batch, steps = Optimizer(learning_rate=3e-4, warmup_steps=warmup), 64, 40
    theirs = cosine_lr(torch.optim.SGD([torch.zeros(1)]), 3e-4, warmup, steps)
    for step in range(steps):
        ours = learning_rate(
            recipe, samples_seen=step * batch, total_samples=steps * batch, batch_size=batch
        )
        assert ours == pytest.approx(theirs(step), rel=1e-12)


def test_parameters_decay_where_open_clips_do():
    parameters = dict(open_clip.CLIP(**TINY).named_parameters())
    optimizer = make_optimizer(parameters, Optimizer(weight_decay=0.3))
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    for name, parameter in parameters.items():
        excluded = (
            parameter.ndim < 2
            or "bn" in name
            or "ln" in name
            or "bias" in name
            or "logit_scale" in name
        )
        assert decays[id(parameter)] == (0.0 if excluded else 0.3), name
