"""A tiny network and small real pools for the filtering tests."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfn_ray.config import recipe_from
from dfn_ray.testing.networks import save_random_network
from dfn_ray.testing.pools import TarBuilder

TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "patch_size": 16, "head_width": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}


def save_network(folder: Path, seed: int) -> Path:
    """A tiny CLIP with random weights as open_clip's own folder format."""
    return save_random_network(folder, TINY, seed=seed)


@pytest.fixture(scope="session")
def network(tmp_path_factory) -> Path:
    return save_network(tmp_path_factory.mktemp("network") / "tiny", seed=0)


@pytest.fixture(scope="session")
def other_network(tmp_path_factory) -> Path:
    return save_network(tmp_path_factory.mktemp("network") / "other", seed=1)


def uid_of(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def photo(number: int, size: tuple[int, int] = (40, 36)) -> bytes:
    """A small JPEG of smooth colours, another one for each number."""
    rng = np.random.default_rng(number)
    coarse = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(buffer, "JPEG")
    return buffer.getvalue()


def write_pool(folder: Path, *, shards: int, samples: int) -> Path:
    """Good samples only: JPEG, caption and uid, `samples` a shard."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(shards):
        tar = TarBuilder()
        for index in range(samples):
            number = shard * samples + index
            tar.sample(
                f"{number:06d}",
                image=photo(number),
                caption=f"picture number {number} of {'very ' * (number % 5)}many",
                metadata={"uid": uid_of(number), "source": "test"},
            )
        (folder / f"{shard:05d}.tar").write_bytes(tar.getvalue())
    return folder


@pytest.fixture(scope="session")
def pool(tmp_path_factory) -> Path:
    """6 shards of 50 good samples."""
    return write_pool(tmp_path_factory.mktemp("pool"), shards=6, samples=50)


@pytest.fixture
def recipe(tmp_path, network):
    """Makes recipes over a pool: `recipe(pool, "select.keep_fraction=0.3")`."""

    def make(pool: Path | str, *overrides: str, run: str = "run"):
        return recipe_from(
            {
                "run_uri": str(tmp_path / run),
                "pool": {"uri": [str(pool)], "chunk_rows": 16},
                "networks": [{"name": "dfn", "model": f"local-dir:{network}"}],
                "select": {"keep_fraction": 0.3},
                "scorers": {"threads": 1},
                "execution": {"chunks_per_part": 3},
            },
            overrides,
        )

    return make
