"""A pool filtered on Ray with a SigLIP saved by transformers.

Its scores equal those of transformers, and verify passes.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from dfn_ray import cli
from dfn_ray.config import recipe_from
from dfn_ray.filtering.filter_pool import filter_pool
from dfn_ray.testing.sample_pools import TarBuilder, photo, uid_of
from tests.filtering.test_filter_pool import read
from tests.network import layouts
from tests.network.layout_tokenizers import CAPTIONS, CONTEXT, gemma_tokenizer, siglip_tokenizer

pytestmark = pytest.mark.ray
COUNT = 24
SIZES = ((40, 36), (64, 64), (31, 90))


def samples() -> list[tuple[bytes, str]]:
    captions = [text for text in CAPTIONS if text.strip() and len(text) < 200]
    return [
        (photo(n, SIZES[n % len(SIZES)]), f"{captions[n % len(captions)]} {n}")
        for n in range(COUNT)
    ]


def by_transformers(folder: Path) -> np.ndarray:
    """The cosine of each sample, computed by transformers alone."""
    model = transformers.SiglipModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    images, captions = zip(*samples(), strict=True)
    words = tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=CONTEXT,
        return_tensors="pt",
    )
    pixels = SiglipImageProcessorPil.from_pretrained(folder)(
        images=[Image.open(io.BytesIO(data)).convert("RGB") for data in images],
        return_tensors="pt",
    )
    with torch.inference_mode():
        found = model(pixel_values=pixels["pixel_values"], **words)
    return (found.image_embeds * found.text_embeds).sum(-1).numpy()


@pytest.mark.parametrize("kind", [pytest.param("siglip", marks=pytest.mark.slow), "siglip2"])
def test_a_siglip_of_transformers_filters_a_pool_by_its_scores_and_verify_passes(
    local_ray, tmp_path, kind, capsys
):
    folder = tmp_path / "network"
    tokenizer = siglip_tokenizer(folder) if kind == "siglip" else gemma_tokenizer()
    layouts.siglip(folder, {}, {}, tokenizer)
    (tmp_path / "pool").mkdir()
    for shard in range(2):
        tar = TarBuilder()
        for n, (image, caption) in enumerate(samples()):
            if n % 2 == shard:
                tar.sample(f"{n:03d}", image=image, caption=caption, metadata={"uid": uid_of(n)})
        (tmp_path / "pool" / f"{shard}.tar").write_bytes(tar.getvalue())
    job = recipe_from(
        {
            "run_uri": str(tmp_path / "run"),
            "pool": {"uri": str(tmp_path / "pool"), "chunk_rows": 8},
            "networks": [{"name": "dfn", "model": f"local-dir:{folder}"}],
            "select": {"keep_fraction": 0.25},
            "scorers": {"threads": 1},
        }
    )
    filter_pool(job)
    expected = dict(zip(map(uid_of, range(COUNT)), by_transformers(folder).tolist(), strict=True))
    rows = read(tmp_path / "run" / "scores").to_pylist()
    assert {row["uid"]: row["score_dfn"] for row in rows} == pytest.approx(expected, abs=1e-5)
    kept = read(tmp_path / "run" / "subset")["uid"].to_pylist()
    assert set(kept) == set(sorted(expected, key=lambda uid: -expected[uid])[: COUNT // 4])
    assert cli.run(["verify", job.run_uri, "--full", "--rescore", "100"]) == 0
    assert "24 samples in 4 chunks scored again" in " ".join(capsys.readouterr().out.split())
