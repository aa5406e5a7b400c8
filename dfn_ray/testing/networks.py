"""Networks with random weights in open_clip's own folder format, for tests and benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file


def save_random_network(folder: Path, model_cfg: dict[str, Any], *, seed: int) -> Path:
    """A CLIP of that open_clip configuration in a folder that `local-dir:` reads; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    save_file(open_clip.CLIP(**model_cfg).state_dict(), folder / "open_clip_model.safetensors")
    config = {"model_cfg": model_cfg, "preprocess_cfg": {}}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder
