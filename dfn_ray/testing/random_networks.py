"""Networks with random weights in open_clip's own folder format, for tests and benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

TINY: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
"""A CLIP of one layer each, with open_clip's smallest vocabulary: scores in milliseconds."""


def save_tiny_network(folder: Path, *, seed: int = 0) -> Path:
    """Saves a CLIP of the configuration TINY; returns the folder."""
    return save_random_network(folder, TINY, seed=seed)


def save_random_network(folder: Path, model_cfg: dict[str, Any], *, seed: int) -> Path:
    """Saves a CLIP of an open_clip configuration in a `local-dir:` folder; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    save_file(open_clip.CLIP(**model_cfg).state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": model_cfg, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder
