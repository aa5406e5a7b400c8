"""Applies DDP or FSDP2, compilation and activation checkpointing to a one-device model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from dfn_ray.config import Workers
from dfn_ray.network.contrastive import Towers

_BLOCKS = ("ResidualAttentionBlock", "CustomResidualAttentionBlock", "Block", "Bottleneck")
"""Repeated modules of open_clip and timm, which FSDP gathers one at a time."""
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


def parallelize(towers: Towers, workers: Workers, device: torch.device) -> nn.Module:
    """Returns the towers as the workers run them, with parameters on `device`."""
    module: Any = towers.module
    if workers.grad_checkpointing:
        module.set_grad_checkpointing(True)
    towers.to(device)
    if workers.compile:
        towers.compile(dynamic=True)
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return towers
    if workers.parallel == "fsdp2":
        unsharded = _unsharded(towers)
        for block in module.modules():
            if type(block).__name__ in _BLOCKS:
                fully_shard(block)
        fully_shard(towers, ignored_params=set(unsharded))
        return towers
    return DistributedDataParallel(
        towers, device_ids=[device.index] if device.type == "cuda" else None
    )


def reduce_unsharded(model: nn.Module) -> None:
    """Averages the gradients of parameters that FSDP does not shard; DDP averages all itself."""
    if isinstance(model, FSDPModule):
        for parameter in _unsharded(model):
            if parameter.grad is not None:
                dist.all_reduce(parameter.grad)
                parameter.grad /= dist.get_world_size()


def clip_gradients(model: nn.Module, limit: float) -> Tensor:
    """Scales all gradients to a norm over all workers of at most `limit`; returns the old norm."""
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    # torch computes the norm of sharded or of unsharded tensors, not of a mixture.
    parts = [
        torch.nn.utils.get_total_norm(some)
        for sharded in (False, True)
        if (some := [g for g in gradients if isinstance(g, DTensor) == sharded])
    ]
    whole = [part.full_tensor() if isinstance(part, DTensor) else part for part in parts]
    norm = torch.linalg.vector_norm(torch.stack(whole))
    scale = torch.clamp(limit / (norm + 1e-6), max=1.0)  # as torch.nn.utils.clip_grad_norm_
    for gradient in gradients:
        gradient.mul_(scale)
    return norm


def _unsharded(model: nn.Module) -> list[nn.Parameter]:
    """Scalars (logit_scale, logit_bias), which FSDP cannot shard."""
    return [parameter for parameter in model.parameters() if parameter.ndim == 0]


def parameters_by_name(model: nn.Module) -> dict[str, nn.Parameter]:
    """Returns the trainable parameters of a parallelised model under open_clip's names."""
    return {
        plain_name(name): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def whole_model(model: nn.Module) -> dict[str, Tensor]:
    """Returns all weights and buffers under open_clip's names, on the CPU.

    Every worker must call it; only rank 0 receives them.
    """
    state: dict[str, Any] = get_model_state_dict(model, options=_WHOLE)
    return {plain_name(name): tensor for name, tensor in state.items()}


def load_whole_model(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads the result of `whole_model`, on every worker."""
    names = {plain_name(name): name for name in get_model_state_dict(model)}
    full: dict[str, Any] = {names[name]: tensor for name, tensor in state.items()}
    set_model_state_dict(model, full, options=StateDictOptions(full_state_dict=True))


def whole_optimizer(model: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """Returns the optimizer's state as `parameter/moment`, on the CPU.

    Every worker must call it; only rank 0 receives it.
    """
    state: dict[str, Any] = get_optimizer_state_dict(model, optimizer, options=_WHOLE)
    return {
        f"{plain_name(name)}/{moment}": tensor
        for name, moments in state.get("state", {}).items()
        for moment, tensor in moments.items()
    }


def load_whole_optimizer(
    model: nn.Module, optimizer: Optimizer, state: Mapping[str, Tensor]
) -> None:
    """Loads the result of `whole_optimizer`, on every worker."""
    wrapped = {plain_name(name): name for name in get_model_state_dict(model)}
    names = {id(p): wrapped[name] for name, p in parameters_by_name(model).items()}
    moments: dict[str, dict[str, Tensor]] = {}
    for key, tensor in state.items():
        name, _, moment = key.rpartition("/")
        moments.setdefault(wrapped[name], {})[moment] = tensor.clone()  # AdamW counts in place
    groups = [
        {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
        for group in optimizer.param_groups
    ]
    full: dict[str, Any] = {"state": moments, "param_groups": groups}
    options = StateDictOptions(full_state_dict=True)
    set_optimizer_state_dict(model, optimizer, full, options=options)


def plain_name(name: str) -> str:
    """Returns the name of a parameter in open_clip's module."""
    for wrapper in ("module.module.", "module."):
        if name.startswith(wrapper):
            return name.removeprefix(wrapper)
    return name
