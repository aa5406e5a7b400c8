"""The optimizer, and its learning rate by samples seen: linear warm-up, then cosine decay to 0."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch

from dfn_ray.config import Optimizer


def learning_rate(
    optimizer: Optimizer, *, samples_seen: int, total_samples: int, batch_size: int
) -> float:
    """Returns the learning rate of the step that begins after `samples_seen`.

    With full batches it equals open_clip's `cosine_lr` (open_clip_train/scheduler.py) at step
    samples_seen / batch_size of total_samples / batch_size. It depends on samples, not steps, so
    that the number of workers does not affect it.
    """
    step, steps = samples_seen / batch_size, total_samples / batch_size
    if step < optimizer.warmup_steps:
        return optimizer.learning_rate * (step + 1) / optimizer.warmup_steps
    done = (step - optimizer.warmup_steps) / max(steps - optimizer.warmup_steps, 1e-9)
    return optimizer.learning_rate * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


def make_optimizer(
    parameters: Mapping[str, torch.nn.Parameter], optimizer: Optimizer
) -> torch.optim.AdamW:
    """Returns AdamW with the two parameter groups of open_clip (open_clip_train/main.py).

    Gains, biases and logit_scale have no weight decay.
    """
    free = [
        name
        for name, parameter in parameters.items()
        if parameter.ndim < 2 or any(part in name for part in ("bn", "ln", "bias", "logit_scale"))
    ]
    return torch.optim.AdamW(
        [
            {"params": [parameters[name] for name in free], "weight_decay": 0.0},
            {
                "params": [p for name, p in parameters.items() if name not in set(free)],
                "weight_decay": optimizer.weight_decay,
            },
        ],
        lr=optimizer.learning_rate,
        betas=(optimizer.beta1, optimizer.beta2),
        eps=optimizer.eps,
    )
