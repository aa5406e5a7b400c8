"""Conversion of weights between transformers' and open_clip's layout, by `tensor_groups`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from dfn_ray.errors import InputError
from dfn_ray.network import weights
from dfn_ray.network.transformers_layout.tensor_groups import (
    TensorGroup,
    first_names,
    require_all,
)


def to_open_clip(
    theirs: Mapping[str, Tensor], groups: Sequence[TensorGroup], module: nn.Module, place: str
) -> dict[str, Tensor]:
    """Returns tensors of transformers under open_clip's names and shapes, in float32.

    Raises InputError that names tensors that are missing, left over, or of another shape.
    """
    require_all(theirs, groups, place)
    shapes = {name: tensor.shape for name, tensor in module.state_dict().items()}
    problems: list[str] = []
    found: dict[str, Tensor] = {}
    for group in groups:
        need = group.shapes(shapes)
        wrong = [f"{name} {text}" for name in group.theirs if (text := _wrong(theirs[name], need))]
        problems += wrong
        if wrong:
            continue
        parts = [theirs[name].float() for name in group.theirs]
        joined = parts[0].T if group.transposed else parts[0]
        joined = torch.cat(parts) if len(parts) > 1 else joined
        lengths = [shapes[name][0] for name in group.ours] if len(group.ours) > 1 else None
        split = joined.split(lengths) if lengths else (joined,)
        for name, tensor in zip(group.ours, split, strict=True):
            found[name] = tensor.reshape(shapes[name]).contiguous()
    if problems:
        raise InputError(
            f"{place}: not the weights that config.json describes: {first_names(problems)}"
        )
    return found


def _wrong(tensor: Tensor, need: tuple[int, ...]) -> str | None:
    if tuple(tensor.shape) != need:
        return f"has the shape {tuple(tensor.shape)}, need {need}"
    if kind := weights.quantised_type(tensor):
        return f"is of {kind}, need floating-point numbers of 16 bits or more"
    return None


def to_transformers(ours: Mapping[str, Tensor], groups: Sequence[TensorGroup]) -> dict[str, Tensor]:
    """Returns open_clip's tensors under transformers' names and shapes."""
    shapes = {name: tensor.shape for name, tensor in ours.items()}
    found: dict[str, Tensor] = {}
    for group in groups:
        parts = [ours[name] for name in group.ours]
        joined = torch.cat(parts) if len(parts) > 1 else parts[0]
        joined = joined.T if group.transposed else joined
        need = group.shapes(shapes)
        split = joined.chunk(len(group.theirs)) if len(group.theirs) > 1 else (joined,)
        for name, tensor in zip(group.theirs, split, strict=True):
            found[name] = tensor.reshape(need).contiguous()
    return found


@dataclass(frozen=True, kw_only=True)
class LayoutWeights:
    """Weights in transformers' layout, in one file or in several."""

    label: str
    paths: tuple[Path, ...]
    groups: tuple[TensorGroup, ...]

    def load_into(self, module: nn.Module) -> None:
        """Loads them. Raises InputError that names missing, extra or differently shaped tensors."""
        found: dict[str, Tensor] = {}
        for path in self.paths:
            for name, tensor in weights.read_checkpoint(path).items():
                if name in found:
                    raise InputError(f"{self.label}: {name} is in {path.name} and in another file")
                found[name] = tensor
        module.load_state_dict(to_open_clip(found, self.groups, module, self.label), strict=True)
