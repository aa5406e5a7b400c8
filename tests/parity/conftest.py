"""Golden scores by open_clip alone, and a pool in which every setting matters."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image, ImageFile
from torchvision.transforms import CenterCrop

from dfn_ray.config import Pool
from dfn_ray.pool import iter_chunks, list_pool
from dfn_ray.testing.sample_pools import TarBuilder

DEMO = Path(__file__).parents[2] / "dfn_ray" / "demo" / "data"
SAMPLES, TRUNCATED = 20, 3


@dataclass(frozen=True)
class Sample:
    uid: str
    caption: str
    image: bytes
    is_truncated: bool = False


def _demo_samples() -> list[Sample]:
    pool = Pool(uri=(str(DEMO / "pool"),))
    found = []
    for shard in list_pool(pool).shards[:1]:
        for _, table in iter_chunks(shard, pool):
            found += [row for row in table.to_pylist() if row["status"] is None]
    return [Sample(row["uid"], row["text"], row["image"]) for row in found]


def _reshaped(sample: Sample, number: int) -> Sample:
    """The drawing cut to a strip and enlarged, so that all resizing settings differ.

    At 64 pixels the wide ones lose 31 columns, so that they start at the 15th or the 16th.
    """
    image = Image.open(io.BytesIO(sample.image)).convert("RGB")
    box = (0, 12, 64, 55) if number % 2 else (10, 0, 54, 64)
    cut = image.crop(box)
    cut = cut.resize((cut.width * 2, cut.height * 2), Image.Resampling.NEAREST)
    file = io.BytesIO()
    is_truncated = number < TRUNCATED
    cut.save(file, "JPEG" if is_truncated else "PNG", quality=95)
    data = file.getvalue()
    return Sample(
        sample.uid,
        sample.caption,
        data[: len(data) * 6 // 10] if is_truncated else data,
        is_truncated,
    )


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Drawings of the demo's pool in other shapes, four of them cut off."""
    readable = [sample for sample in _demo_samples() if _opens(sample.image)]
    return [_reshaped(sample, number) for number, sample in enumerate(readable[:SAMPLES])]


def _opens(data: bytes) -> bool:
    try:
        Image.open(io.BytesIO(data)).load()
    except OSError:
        return False
    return True


@pytest.fixture(scope="session")
def strips(samples, tmp_path_factory) -> Path:
    """The samples as a pool of one tar."""
    tar = TarBuilder()
    for number, sample in enumerate(samples):
        extension = "jpg" if sample.is_truncated else "png"
        tar.sample(
            f"{number:03d}",
            image=sample.image,
            caption=sample.caption,
            metadata={"uid": sample.uid},
            image_extension=extension,
        )
    folder = tmp_path_factory.mktemp("strips")
    (folder / "0.tar").write_bytes(tar.getvalue())
    return folder


def golden(
    samples,
    *,
    prompt: str = "{}",
    precision: str = "fp32",
    crop: Callable[[Image.Image], Image.Image] | None = None,
    **settings,
) -> np.ndarray:
    """Scores by open_clip's model, transform and tokenizer alone; `crop` replaces its crop."""
    torch.set_num_threads(1)  # as in the recipe: several wait for each other on a busy machine
    name = f"local-dir:{DEMO / 'network'}"
    model, _, transform = open_clip.create_model_and_transforms(
        name, precision=precision, **settings
    )
    if crop is not None:
        (at,) = (n for n, t in enumerate(transform.transforms) if isinstance(t, CenterCrop))
        transform.transforms[at] = crop
    tokenizer = open_clip.get_tokenizer(name)
    model.eval()
    ImageFile.LOAD_TRUNCATED_IMAGES = True
    try:
        images = torch.stack(
            [transform(Image.open(io.BytesIO(s.image)).convert("RGB")) for s in samples]
        )
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    dtype = torch.bfloat16 if precision == "pure_bf16" else torch.float32
    with torch.inference_mode():
        image_ND = model.encode_image(images.to(dtype)).float()
        text_ND = model.encode_text(tokenizer([prompt.format(s.caption) for s in samples])).float()
    image_ND, text_ND = (torch.nn.functional.normalize(x, dim=-1) for x in (image_ND, text_ND))
    return (image_ND * text_ND).sum(-1).numpy()


@pytest.fixture(scope="session")
def published(samples, tmp_path_factory) -> Path:
    """open_clip's float32 scores of the samples, in DataComp's format."""
    return write_scores(
        tmp_path_factory.mktemp("golden") / "scores.parquet", samples, golden(samples)
    )


def write_scores(path: Path, samples, scores, **more) -> Path:
    columns = {"uid": [s.uid for s in samples], "text": [s.caption for s in samples]}
    pq.write_table(pa.table({**columns, "clip_score": scores, **more}), path)
    return path


@pytest.fixture(scope="session")
def parity_recipe(strips, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "recipe.toml"
    path.write_text(
        f'run_uri = "{path.parent}/run"\n[pool]\nuri = "{strips}"\n'
        f'[[networks]]\nmodel = "local-dir:{DEMO / "network"}"\n[scorers]\nthreads = 1\n'
    )
    return path
