"""A tiny network, small real evaluation sets of every kind, and open_clip's own results."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from dfn_ray.testing.random_networks import TINY, save_random_network
from dfn_ray.testing.sample_pools import TarBuilder, photo

NAMES = ("cat", "dog", "fire truck", "mushroom", "steam train", "umbrella")
TEMPLATES = ("a photo of a {c}.", "the {c}, drawn", "{c}")
IMAGES = 30


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> Path:
    return save_random_network(
        tmp_path_factory.mktemp("network") / "tiny", TINY, seed=8
    )  # predicts several classes


def label_of(number: int) -> int:
    return number * number % 5  # never class 5


def captions_of(number: int) -> list[str]:
    return [f"{word} {number}" for word in ("one", "picture of", "and")[: 1 + number % 3]]


def write_layout(root: Path, *, task: str) -> Path:
    """CLIP_benchmark's layout: a test split in two tars, a train split that must not be read."""
    (root / "train").mkdir(parents=True)
    (root / "train/nshards.txt").write_text("1\n")
    (root / "train/0.tar").write_bytes(b"never read")
    (root / "test").mkdir()
    (root / "test/nshards.txt").write_text("2\n")
    if task == "zeroshot_retrieval":
        (root / "dataset_type.txt").write_text("retrieval\n")
    else:
        (root / "classnames.txt").write_text("\n".join(NAMES) + "\n")
        (root / "zeroshot_classification_templates.txt").write_text("\n".join(TEMPLATES) + "\n")
    for shard in range(2):
        tar = TarBuilder()
        for number in range(shard * IMAGES // 2, (shard + 1) * IMAGES // 2):
            tar.member(f"s{number:07d}.jpg", photo(number))
            if task == "zeroshot_retrieval":
                tar.member(f"s{number:07d}.txt", "\n".join(captions_of(number)))
            else:
                tar.member(f"s{number:07d}.cls", str(label_of(number)))
        (root / f"test/{shard}.tar").write_bytes(tar.getvalue())
    return root


def write_folders(root: Path) -> Path:
    """The same images in class folders; one of the files is not an image."""
    for name in NAMES:
        (root / name).mkdir(parents=True)
    for number in range(IMAGES):
        (root / NAMES[label_of(number)] / f"{number:03d}.jpg").write_bytes(photo(number))
    (root / NAMES[0] / "999.jpg").write_bytes(b"<html>not found</html>")
    return root


def write_parquet(path: Path) -> Path:
    """The same images with a list of captions each."""
    table = {
        "image": [photo(number) for number in range(IMAGES)],
        "captions": [captions_of(number) for number in range(IMAGES)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path, row_group_size=8)
    return path


@dataclass(frozen=True)
class OpenClip:
    """open_clip's own model, transform and tokenizer."""

    model: open_clip.CLIP
    transform: object
    tokenize: object

    @torch.no_grad()
    def images(self) -> np.ndarray:
        """Embeddings of the images, L2-normalised."""
        pixels = [self.transform(Image.open(io.BytesIO(photo(number)))) for number in range(IMAGES)]
        return self.model.encode_image(torch.stack(pixels), normalize=True).numpy()

    @torch.no_grad()
    def texts(self, captions: list[str]) -> np.ndarray:
        """Embeddings of captions, L2-normalised."""
        return self.model.encode_text(self.tokenize(captions), normalize=True).numpy()

    def classifier(self, names: tuple[str, ...], templates: tuple[str, ...]) -> np.ndarray:
        """open_clip's zero-shot weights (C, D)."""
        functions = [lambda c, t=template: t.replace("{c}", c) for template in templates]
        weights_DC = open_clip.build_zero_shot_classifier(
            self.model, self.tokenize, names, functions
        )
        return weights_DC.T.numpy()


@pytest.fixture(scope="session")
def reference(network) -> OpenClip:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{network}")
    model.eval()
    return OpenClip(model, transform, open_clip.get_tokenizer(f"local-dir:{network}"))
