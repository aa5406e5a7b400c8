"""Tiny open_clip networks of every kind, saved in open_clip's layout, and images."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import safetensors.torch
import torch
from PIL import Image

from dfn_ray import config

VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 32}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2}
SIGLIP_TEXT = {
    **TEXT,
    "context_length": 24,
    "no_causal_mask": True,
    "pool_type": "last",
    "proj_bias": True,
}
COCA_TEXT = {**TEXT, "context_length": 76, "embed_cls": True, "output_tokens": True}
COCA_VIT = {
    **VIT,
    "attentional_pool": True,
    "attn_pooler_heads": 2,
    "attn_pooler_queries": 8,
    "output_tokens": True,
}

KINDS = {
    "vit": {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": TEXT},
    "quick_gelu": {"embed_dim": 32, "quick_gelu": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "non_square": {
        "embed_dim": 32,
        "vision_cfg": {**VIT, "image_size": [32, 48]},
        "text_cfg": TEXT,
    },
    "resnet": {
        "embed_dim": 32,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "head_width": 16},
        "text_cfg": TEXT,
    },
    "custom_text": {"embed_dim": 32, "custom_text": True, "vision_cfg": VIT, "text_cfg": TEXT},
    "eos_pool": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": VIT,
        "text_cfg": {**TEXT, "pool_type": "eos", "eos_id": 49407},
    },
    "siglip": {
        "embed_dim": 64,
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": VIT,
        "text_cfg": SIGLIP_TEXT,
    },
    "coca": {
        "embed_dim": 32,
        "custom_text": True,
        "vision_cfg": COCA_VIT,
        "text_cfg": COCA_TEXT,
        "multimodal_cfg": {**TEXT, "context_length": 76, "attn_pooler_heads": 2},
    },
    "timm": {
        "embed_dim": 32,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_pool": "",
            "timm_proj": "linear",
            "image_size": 160,
        },
        "text_cfg": TEXT,
    },
}

CAPTIONS = [
    "a dog",
    "",
    "two cats asleep on a red sofa, seen from above — naïve 北京 🙂",
    "a dog",
    "<end_of_text> what follows an end token that the caption itself holds",
    "word " * 200,
    "x" * 5000,
    "a photo of a house",
]


def network_folder(folder: Path, model_cfg: dict, preprocess_cfg: dict | None = None) -> Path:
    """A folder as written by open_clip's push_to_hf_hub, with weights from a fixed seed."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {"model_cfg": model_cfg, "preprocess_cfg": preprocess_cfg or {}}
    (folder / "open_clip_config.json").write_text(json.dumps(values))
    torch.manual_seed(0)
    with torch.no_grad():
        model = open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_text=False
        )
        for (
            parameter
        ) in model.parameters():  # zeros and ones in biases and norms would hide mistakes
            parameter.add_(torch.randn_like(parameter) * 0.02)
    state = {k: v.contiguous() for k, v in model.state_dict().items()}
    safetensors.torch.save_file(state, folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny networks run no faster on two threads, and many times slower beside other processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """Folders by kind of network, created on first use."""
    root = tmp_path_factory.mktemp("networks")

    def folder(kind: str) -> Path:
        if not (root / kind / "open_clip_model.safetensors").exists():
            network_folder(root / kind, KINDS[kind])
        return root / kind

    return folder


def spec(folder: Path, **settings) -> config.Network:
    return config.Network(model=f"local-dir:{folder}", **settings)


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    """Smooth colours with some noise, which compress and resize like a photo."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    noisy = smooth.astype(int) + rng.integers(-12, 13, smooth.shape)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A valid CLIP in transformers' layout."""
    from tests.network import layouts

    folder = tmp_path_factory.mktemp("clip")
    layouts.clip(folder, {}, {})
    return folder


@pytest.fixture
def clip(made, tmp_path):
    """A copy of the CLIP for a test to modify."""
    return shutil.copytree(made, tmp_path / "clip")
