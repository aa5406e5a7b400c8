"""A network's parts before it is built, whatever layout they were found in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from dfn_ray.network import weights
from dfn_ray.network.tokenizer import TokenizerSpec


class Weights(Protocol):
    """Weights that wait on disk for a module."""

    def load_into(self, module: nn.Module) -> None:
        """Load them, all of them and nothing else; raises InputError that names what does not fit."""
        ...


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """Weights in one file, under open_clip's names."""

    path: Path

    def load_into(self, module: nn.Module) -> None:
        """Load them as open_clip's `load_checkpoint` does."""
        weights.load_into(module, weights.read_checkpoint(self.path), self.path)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A network's parts before it is built."""

    model_cfg: dict[str, Any]
    """open_clip's model config; `custom_text` and `quick_gelu` are always present."""
    preprocess_cfg: dict[str, Any]
    """open_clip's PreprocessCfg as a dict, and the fields that ImageTransform has beyond it."""
    weights: Weights | None
    """None: random."""
    tokenizer: TokenizerSpec | None = None
    """None: the one that model_cfg names."""
    tokenizer_source: str | None = None
    """What transformers loads the tokenizer of model_cfg from (a name or a folder); None: CLIP's own BPE."""
