"""A network in training: both towers, the loss over all workers, and micro-batch gradients."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from open_clip.loss import ClipLoss, SigLipLoss
from torch import Tensor, nn

from dfn_ray.network import text_tower


class Embeddings(NamedTuple):
    """The towers' embeddings of a batch, and the scale and bias that turn cosines into logits."""

    image_BD: Tensor
    """Float32, L2-normalised."""
    text_BD: Tensor
    """Float32, L2-normalised."""
    scale: Tensor
    """exp of logit_scale."""
    bias: Tensor | None
    """logit_bias; None for networks without one (only SigLIP has it)."""


class Towers(nn.Module):
    """Both towers of an open_clip module as one forward, so that DDP and FSDP wrap a single module.

    Captions are cropped to the longest in the batch if the tower allows it: the padding after the
    end token has no effect, so gradients equal those at full length (`text_tower`). The cosine is
    computed in float32.
    """

    def __init__(self, module: nn.Module, *, precision: Literal["fp32", "bf16"]) -> None:
        super().__init__()
        self.module = module
        self._autocast = precision == "bf16"

    def forward(self, image_BCHW: Tensor, text_BL: Tensor) -> Embeddings:
        """Returns the embeddings of a batch of normalised float pixels and cropped tokens."""
        module: Any = self.module
        with torch.autocast(image_BCHW.device.type, torch.bfloat16, enabled=self._autocast):
            image_BD = module.encode_image(image_BCHW, normalize=False)
            text_BD = text_tower.encode_text(module, text_BL)
        return Embeddings(
            F.normalize(image_BD.float(), dim=-1),
            F.normalize(text_BD.float(), dim=-1),
            module.logit_scale.exp(),
            getattr(module, "logit_bias", None),
        )


Loss = Callable[[Embeddings], Tensor]
"""Embeddings of this worker's samples -> the mean loss of its rows against the samples of all
workers."""


def contrastive_loss(kind: Literal["clip", "siglip"], *, rank: int, world_size: int) -> Loss:
    """Returns open_clip's loss of local rows; features are gathered over workers with gradient.

    The mean over workers of the loss, and of the gradients (as DDP computes it), equals that of one
    process with the whole batch.
    """
    if kind == "siglip":
        siglip = SigLipLoss(rank=rank, world_size=world_size, dist_impl="gather")
        return lambda e: siglip(e.image_BD, e.text_BD, e.scale, e.bias)
    clip = ClipLoss(
        local_loss=True,
        gather_with_grad=True,
        cache_labels=True,
        rank=rank,
        world_size=world_size,
    )
    return lambda e: clip(e.image_BD, e.text_BD, e.scale, e.bias)


def backward(
    towers: nn.Module, loss: Loss, image_BCHW: Tensor, text_BL: Tensor, *, micro_batches: int = 1
) -> Tensor:
    """Adds the gradients of the loss over the whole batch; returns the loss, detached.

    With several micro-batches, the towers run twice over each and hold the activations of one:
    first embeddings without a graph, then the loss on all of them, then each micro-batch again with
    the gradients of its embeddings (GradCache, Gao et al. 2021, section 3). open_clip's accum_freq
    does the same, but counts the gradient of logit_scale once per micro-batch; here gradients equal
    those of the undivided batch.
    """
    if micro_batches == 1:
        value = loss(towers(image_BCHW, text_BL))
        value.backward()
        return value.detach()
    pieces = list(zip(image_BCHW.chunk(micro_batches), text_BL.chunk(micro_batches), strict=True))
    with torch.no_grad():
        parts = [towers(image, captions) for image, captions in pieces]
    whole = Embeddings(
        torch.cat([part.image_BD for part in parts]).requires_grad_(),
        torch.cat([part.text_BD for part in parts]).requires_grad_(),
        parts[0].scale.detach().requires_grad_(),
        None if parts[0].bias is None else parts[0].bias.detach().requires_grad_(),
    )
    value = loss(whole)
    value.backward()
    for number, (image, captions) in enumerate(pieces):
        last = number == len(pieces) - 1
        with contextlib.nullcontext() if last else _without_sync(towers):
            again = towers(image, captions)
            rows = slice(number * len(pieces[0][1]), number * len(pieces[0][1]) + len(captions))
            outputs = [
                (again.image_BD, _gradient(whole.image_BD)[rows]),
                (again.text_BD, _gradient(whole.text_BD)[rows]),
            ]
            if last:  # gradients of parameters that all micro-batches share count once
                outputs.append((again.scale, _gradient(whole.scale)))
                if again.bias is not None and whole.bias is not None:
                    outputs.append((again.bias, _gradient(whole.bias)))
            tensors, gradients = zip(*outputs, strict=True)
            torch.autograd.backward(tensors, gradients)
    return value.detach()


def _gradient(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor) if tensor.grad is None else tensor.grad


def _without_sync(towers: nn.Module) -> contextlib.AbstractContextManager[Any]:
    """A context in which modules that exchange gradients keep them on this worker."""
    no_sync = getattr(towers, "no_sync", None)
    return no_sync() if no_sync is not None else contextlib.nullcontext()
