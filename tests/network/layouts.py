"""Tiny networks with processors, saved by transformers, and transformers' own results."""

from __future__ import annotations

import functools
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from dfn_ray.network.packed import PackedNetwork, build, pack_network
from dfn_ray.network.tokenizer import tokenize
from tests.network.conftest import photo, spec
from tests.network.layout_tokenizers import BPE_TOKENS, CAPTIONS, CONTEXT, clip_tokenizer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@functools.cache
def images() -> tuple[Image.Image, ...]:
    """Pictures of several sizes, odd ones included, and real ones from the demo's pool."""
    made = [photo(*size) for size in ((451, 333), (333, 451), (64, 64), (300, 40), (31, 57))]
    folder = Path(__file__).parents[2] / "dfn_ray/demo/data"
    real: list[Image.Image] = []
    for path in sorted(folder.rglob("*.tar"))[:1]:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith((".jpg", ".webp", ".png")) and len(real) < 4:
                    file = tar.extractfile(member)
                    assert file is not None
                    real.append(Image.open(io.BytesIO(file.read())).convert("RGB"))
    assert real
    return (*made, *real)


def clip(folder: Path, text: dict, vision: dict, *, dim: int = 24, seed: int = 0) -> Any:
    """A CLIP with random weights, saved with its processor and tokenizer."""
    config = transformers.CLIPConfig(
        text_config={
            "vocab_size": BPE_TOKENS,
            "hidden_size": 32,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": CONTEXT,
            "bos_token_id": BPE_TOKENS - 2,
            "eos_token_id": BPE_TOKENS - 1,
            "pad_token_id": BPE_TOKENS - 1,
            **text,
        },
        vision_config={
            "hidden_size": 48,
            "intermediate_size": 112,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 64,
            "patch_size": 16,
            **vision,
        },
        projection_dim=dim,
    )
    side = config.vision_config.image_size
    processor = transformers.CLIPProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=side),
        tokenizer=clip_tokenizer(),
    )
    return saved(transformers.CLIPModel, config, processor, folder, seed)


def siglip(folder: Path, text: dict, vision: dict, tokenizer: Any, *, seed: int = 0) -> Any:
    """A SigLIP with random weights, saved with its processor and tokenizer."""
    config = transformers.SiglipConfig(
        text_config={
            "vocab_size": 600,
            "hidden_size": 48,
            "intermediate_size": 96,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": CONTEXT,
            "bos_token_id": 0,
            "eos_token_id": 1,
            **text,
        },
        vision_config={
            "hidden_size": 48,
            "intermediate_size": 112,
            "num_hidden_layers": 2,
            "num_attention_heads": 3,
            "image_size": 64,
            "patch_size": 16,
            **vision,
        },
    )
    side = config.vision_config.image_size
    processor = transformers.SiglipProcessor(
        image_processor=SiglipImageProcessorPil(size={"height": side, "width": side}),
        tokenizer=tokenizer,
    )
    return saved(transformers.SiglipModel, config, processor, folder, seed)


def saved(kind: Any, config: Any, processor: Any, folder: Path, seed: int) -> Any:
    torch.manual_seed(seed)
    model = kind(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # zeros and ones would hide mistakes
            parameter.add_(torch.randn_like(parameter) * 0.08)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model


def write(folder, name, values):
    (folder / name).write_text(json.dumps(values))


def changed(folder, name, edit):
    values = json.loads((folder / name).read_text())
    edit(values)
    write(folder, name, values)


def two_files(folder, edit=lambda vocabulary: None):
    """Replaces tokenizer.json by merges.txt and a vocab.json modified by `edit`."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    edit(model["vocab"])
    write(folder, "vocab.json", model["vocab"])
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"]), ""]
    (folder / "merges.txt").write_text("\n".join(lines))
    (folder / "tokenizer.json").unlink()


@dataclass(frozen=True)
class Scores:
    images: torch.Tensor
    texts: torch.Tensor

    @property
    def all(self) -> torch.Tensor:
        return self.images @ self.texts.T


def by_transformers(folder: Path, captions: list[str] | None = None) -> Scores:
    """Embeddings of all pictures and captions by transformers' model, processor and tokenizer."""
    kind = json.loads((folder / "config.json").read_text())["model_type"]
    clip_like = kind == "clip"
    model = (transformers.CLIPModel if clip_like else transformers.SiglipModel).from_pretrained(
        folder
    )
    make = CLIPImageProcessorPil if clip_like else SiglipImageProcessorPil
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    words = tokenizer(
        captions or CAPTIONS,
        padding="max_length",
        truncation=True,
        max_length=model.config.text_config.max_position_embeddings,
        return_tensors="pt",
    )
    pixels = make.from_pretrained(folder)(images=list(images()), return_tensors="pt")
    with torch.inference_mode():
        found = model.eval()(pixel_values=pixels["pixel_values"], **words)
    return Scores(found.image_embeds, found.text_embeds)


def by_dfn_ray(
    folder: Path | PackedNetwork, captions: list[str] | None = None, **settings: Any
) -> Scores:
    """The same embeddings by dfn_ray from the same folder."""
    packed = folder if isinstance(folder, PackedNetwork) else pack_network(spec(folder, **settings))
    network = build(packed)
    pixels = np.stack([packed.transform.pixels_HWC(image, image.size) for image in images()])
    tokens = tokenize(packed.tokenizer, captions or CAPTIONS)
    return Scores(
        network.embed_all_images(pixels, batch_size=8).clone(),
        network.embed_all_texts(tokens, batch_size=8).clone(),
    )


def difference(one: Scores, other: Scores) -> float:
    """The largest difference in embeddings and in scores of all pictures with all captions."""
    pairs = (
        (one.images, other.images),
        (one.texts, other.texts),
        (one.all, other.all),
    )
    return max((a - b).abs().max().item() for a, b in pairs)
