"""Trains the demo's filtering network on other artists' emoji and measures it on the pool.

    python -m tools.demo_data.train_network --packages DIR --data DIR --out DIR

`--packages` holds the packages named in ATTRIBUTION.md, `--data` the pool and its truth, and
`--out` receives open_clip_config.json, open_clip_model.safetensors and figures.json. Needs `pip
install resvg-py` for the artists who publish SVG. The weights are reproducible bit for bit with one
thread on one type of CPU.
"""

import argparse
import json
import logging
import math
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.loss import ClipLoss
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from tools.demo_data.artists import ARTISTS, Renderings, read_renderings
from tools.demo_data.augment import augment, blend
from tools.demo_data.captions import describe, mislead
from tools.demo_data.emoji import SIDE, Emoji, read_emoji
from tools.demo_data.judge import load_network, pool_figures, score_pool

logger = logging.getLogger(__name__)

CONFIG: dict[str, Any] = {
    "model_cfg": {
        "embed_dim": 128,
        # CLIP's own ResNet at the smallest size that learns: a ViT 64/8 needs far more images.
        "vision_cfg": {
            "image_size": SIDE,
            "layers": [1, 1, 1, 1],
            "width": 20,
            "head_width": 80,
        },
        # The vocabulary is 49,408 rows whatever the text: at width 48 it is half of the file.
        "text_cfg": {
            "context_length": 24,
            "vocab_size": 49408,
            "width": 48,
            "heads": 3,
            "layers": 2,
        },
    },
    "preprocess_cfg": {
        "size": SIDE,
        "mode": "RGB",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "shortest",
        "fill_color": 255,
    },
}
"""The content of open_clip_config.json."""

UNMIRRORED = (
    *("left", "right", "clock", "thirty", "arrow", "button", "keycap", "Japanese", "mark"),
    *("input", "play", "fast", "back", "moon", "sign", "letter", "symbol", "number"),
)
"""Parts of names whose mirrored picture means something else, or contains mirrored text."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Training settings of the demo network."""

    seed: int = 1
    steps: int = 700
    """Optimiser steps."""
    batch: int = 256
    """Emoji per step, all different: one image and one caption each."""
    misleading: int = 64
    """Further texts per step that no image may match."""
    learning_rate: float = 1.5e-3
    """Peak, after 50 steps of warm-up; a cosine takes it to zero."""
    weight_decay: float = 0.1
    scale_limit: float = 20.0
    """Largest logit scale. CLIP's 100 makes scores of a set this small pile up at two values."""


def trainable(emoji: list[Emoji]) -> list[int]:
    """Rows of the emoji to train on: no flags and skin tones, as in the pool.

    The package of the Fluent emoji fills its missing country flags with the pool artist's.
    """
    return [row for row, one in enumerate(emoji) if one.category not in ("Flags", "Component")]


def mirrorable(emoji: Emoji) -> bool:
    """True if the name still fits the mirrored picture."""
    return emoji.category != "Symbols" and not any(part in emoji.name for part in UNMIRRORED)


def draw_batches(rows: list[int], size: int, rng: random.Random) -> Iterator[list[int]]:
    """Yields batches of distinct emoji forever; each emoji appears once before any repeats."""
    while True:
        order = rng.sample(rows, len(rows))
        for start in range(0, len(order) - size + 1, size):
            yield order[start : start + size]


def group_weights(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups: decay for matrices and kernels, none for gains, biases and embeddings."""
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (decayed if parameter.ndim > 1 and "embedding" not in name else free).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]


def train(
    model: open_clip.CLIP, emoji: list[Emoji], renderings: Renderings, settings: Settings
) -> None:
    """Trains the model in place."""
    rng = random.Random(settings.seed)
    generator = torch.Generator().manual_seed(settings.seed)
    tokenizer = open_clip.SimpleTokenizer(context_length=model.context_length)
    model.visual.to(memory_format=torch.channels_last)
    image_NCHW = torch.from_numpy(renderings.image_NHWC).permute(0, 3, 1, 2)
    drawn_by_row = {
        row: np.flatnonzero(renderings.emoji_N == row).tolist() for row in trainable(emoji)
    }
    rows = [row for row, drawn in drawn_by_row.items() if drawn]
    batches = draw_batches(rows, settings.batch, rng)
    optimizer = torch.optim.AdamW(
        group_weights(model, settings.weight_decay), lr=settings.learning_rate, betas=(0.9, 0.98)
    )
    pair_loss = ClipLoss()
    seen_V = torch.zeros(model.vocab_size, dtype=torch.bool)
    started_s = time.monotonic()
    model.train()
    for step in range(settings.steps):
        share = 0.5 + 0.5 * math.cos(math.pi * step / settings.steps)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * share * min(1.0, (step + 1) / 50)
        batch = next(batches)
        image_BCHW, other_BCHW = (
            image_NCHW[[rng.choice(drawn_by_row[row]) for row in batch]].float() / 255
            for _ in range(2)
        )
        flippable_B = torch.tensor([mirrorable(emoji[row]) for row in batch])
        blended_BCHW = blend(image_BCHW, other_BCHW, generator)
        varied_BCHW = (augment(blended_BCHW, flippable_B, generator) - 0.5) / 0.5
        text_TL = tokenizer(
            [describe(emoji[row], rng) for row in batch]
            + [mislead(emoji[row], rng) for row in batch[: settings.misleading]]
        )
        seen_V[text_TL.flatten()] = True
        # bfloat16 and channels last: 0.43 s, not 1.07 s, an image tower step (one core, width 24).
        with torch.autocast("cpu", torch.bfloat16):
            image_embedding_BD = model.encode_image(
                varied_BCHW.contiguous(memory_format=torch.channels_last)
            )
        image_embedding_BD = functional.normalize(image_embedding_BD.float(), dim=-1)
        text_embedding_TD = model.encode_text(text_TL, normalize=True)
        scale = model.logit_scale.exp()
        loss = (
            pair_loss(image_embedding_BD, text_embedding_TD[: settings.batch], scale)
            + misled_loss(image_embedding_BD, text_embedding_TD, scale)
        ) / 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(settings.scale_limit))
        if (step + 1) % 50 == 0:
            seconds = time.monotonic() - started_s
            logger.info("step %d, loss %.3f, %.0f s", step + 1, loss.detach(), seconds)
    with torch.no_grad():
        # Words without training get zeros instead of random values; zeros also compress.
        model.get_parameter("token_embedding.weight")[~seen_V] = 0.0


def misled_loss(image_embedding_BD: Tensor, text_embedding_TD: Tensor, scale: Tensor) -> Tensor:
    """Cross entropy of each image's own text among all texts, the misleading ones included."""
    logits_BT = scale * image_embedding_BD @ text_embedding_TD.T
    return functional.cross_entropy(logits_BT, torch.arange(len(logits_BT)))


def save_network(model: nn.Module, out: Path) -> None:
    """Writes the weights in float16 and the config, as open_clip's `local-dir:` reads them."""
    weights = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    file = out / "open_clip_model.safetensors"
    save_file(weights, file)
    file.chmod(0o644)  # safetensors leaves it readable to its owner only
    (out / "open_clip_config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")


def main() -> None:
    """Trains, saves and measures the network named on the command line."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description="Trains the demo's filtering network.")
    parser.add_argument("--packages", type=Path, required=True, help="folder of the packages")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of pool/ and truth.parquet"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    arguments = parser.parse_args()
    settings = Settings()
    torch.set_num_threads(arguments.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(settings.seed)
    emoji = read_emoji(arguments.packages)
    renderings = read_renderings(arguments.packages, emoji)
    model = open_clip.CLIP(**CONFIG["model_cfg"])
    started_s = time.monotonic()
    train(model, emoji, renderings, settings)
    train_s = time.monotonic() - started_s
    arguments.out.mkdir(parents=True, exist_ok=True)
    save_network(model, arguments.out)
    figures = describe_run(settings, emoji, renderings, arguments.threads, train_s)
    stored = load_network(arguments.out)
    pool = arguments.data / "pool"
    score_by_uid = score_pool(stored, pool)
    exact_by_uid = score_pool(replace(stored, model=model), pool)
    figures["largest_change_of_a_score_by_float16_storage"] = max(
        abs(score_by_uid[uid] - exact) for uid, exact in exact_by_uid.items()
    )
    figures["on_the_pool"] = pool_figures(score_by_uid, arguments.data / "truth.parquet")
    (arguments.out / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    logger.info("%s", json.dumps(figures, indent=2))


def describe_run(
    settings: Settings,
    emoji: list[Emoji],
    renderings: Renderings,
    threads: int,
    train_s: float,
) -> dict[str, Any]:
    """The inputs that determine the figures, for figures.json."""
    trained_on_N = np.isin(renderings.emoji_N, trainable(emoji))
    return {
        "command": "python -m tools.demo_data.train_network --packages DIR --data DIR --out DIR"
        f" --threads {threads}",
        "date": datetime.now(UTC).date().isoformat(),
        "train_s": round(train_s),
        "versions": {name: version(name) for name in ("torch", "open_clip_torch", "pillow")},
        "settings": asdict(settings),
        "renderings_trained_on_by_artist": dict(
            zip(ARTISTS, np.bincount(renderings.artist_N[trained_on_N]).tolist(), strict=True)
        ),
        "scores": "cosine similarity by open_clip in float32, weights stored in float16",
    }


if __name__ == "__main__":
    main()
