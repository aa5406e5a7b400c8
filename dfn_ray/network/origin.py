"""The parts of a network before it is built, independent of the layout they come from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from dfn_ray.network import weights
from dfn_ray.network.tokenizer import TokenizerSpec


class Weights(Protocol):
    """Weights on disk that can be loaded into a module."""

    def load_into(self, module: nn.Module) -> None:
        """Loads all of them and nothing else. Raises InputError that names what does not fit."""
        ...


@dataclass(frozen=True, kw_only=True)
class CheckpointFile:
    """Weights in one file, under open_clip's names."""

    path: Path

    def load_into(self, module: nn.Module) -> None:
        """Loads them as open_clip's `load_checkpoint` does."""
        weights.load_into(module, weights.read_checkpoint(self.path), self.path)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """A network's parts before it is built."""

    model_cfg: dict[str, Any]
    """open_clip's model config; `custom_text` and `quick_gelu` are always present."""
    preprocess_cfg: dict[str, Any]
    """open_clip's PreprocessCfg as a dict, with the additional fields of ImageTransform."""
    weights: Weights | None
    """None: random weights."""
    tokenizer: TokenizerSpec | None = None
    """None: the tokenizer that model_cfg names."""
    tokenizer_source: str | None = None
    """Name or folder from which transformers loads the tokenizer of model_cfg; None: CLIP's own
    BPE."""
