"""Measures a filtering network on the demo pool, against truth.parquet."""

import io
import json
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias, cast

import numpy as np
import open_clip
import pyarrow.parquet as pq
import torch
from PIL import Image

from dfn_ray.demo.area_under_curve import area_under_curve
from tools.demo_data.damage import SHARE_BY_KIND

Transform: TypeAlias = Callable[[Image.Image], torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A filtering network with its transform and tokenizer."""

    model: open_clip.CLIP
    transform: Transform
    tokenizer: Callable[[list[str]], torch.Tensor]


def load_network(folder: Path) -> Network:
    """The network in a folder, loaded by open_clip alone, its weights in float32."""
    location = f"local-dir:{folder}"
    # open_clip declares less than it returns: a CLIP and two transforms.
    model, _, transform = cast(
        tuple[open_clip.CLIP, Transform, Transform],
        open_clip.create_model_and_transforms(location),
    )
    return Network(model=model, transform=transform, tokenizer=open_clip.get_tokenizer(location))


def score_pool(network: Network, pool: Path) -> dict[str, float]:
    """The score by uid of every readable sample, in float32."""
    network.model.eval()
    score_by_uid: dict[str, float] = {}
    for shard in sorted(pool.glob("*.tar")):
        uids: list[str] = []
        images: list[torch.Tensor] = []
        captions: list[str] = []
        for files in read_samples(shard):
            content = next((files[form] for form in ("png", "jpg", "webp") if form in files), b"")
            try:
                uid = json.loads(files["json"])["uid"]
                caption = files["txt"].decode()
                image = Image.open(io.BytesIO(content)).convert("RGB")
            except (OSError, KeyError, ValueError):
                continue  # the pool's broken samples, which the pipeline counts
            uids.append(uid)
            images.append(network.transform(image))
            captions.append(caption)
        with torch.inference_mode():
            image_embedding_BD = network.model.encode_image(torch.stack(images), normalize=True)
            text_embedding_BD = network.model.encode_text(
                network.tokenizer(captions), normalize=True
            )
            score_B = (image_embedding_BD * text_embedding_BD).sum(dim=1)
        score_by_uid.update(zip(uids, score_B.tolist(), strict=True))
    return score_by_uid


def read_samples(shard: Path) -> list[dict[str, bytes]]:
    """The files of each sample of a shard, by extension."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            key, _, extension = member.name.partition(".")
            content = tar.extractfile(member)
            assert content is not None  # the pool's tars hold files only
            samples.setdefault(key, {})[extension] = content.read()
    return list(samples.values())


def pool_figures(score_by_uid: dict[str, float], truth_file: Path) -> dict[str, float]:
    """The figures of these scores against truth.parquet, rounded to four digits."""
    truth = [row for row in pq.read_table(truth_file).to_pylist() if row["uid"] in score_by_uid]
    score = np.array([score_by_uid[row["uid"]] for row in truth], dtype=np.float32)
    kind = np.array([row["kind"] for row in truth])
    clean = score[kind == "clean"]
    figures = {
        f"auc_clean_vs_{damage}": area_under_curve(clean, score[kind == damage])
        for damage in SHARE_BY_KIND
    }
    figures["auc_clean_vs_damaged"] = area_under_curve(clean, score[kind != "clean"])
    kept = np.argsort(-score, kind="stable")[: len(score) // 2]
    kept_clean = int((kind[kept] == "clean").sum())
    figures["precision_at_keep_fraction_0.5"] = kept_clean / len(kept)
    figures["recall_at_keep_fraction_0.5"] = kept_clean / len(clean)
    for name in ("clean", *SHARE_BY_KIND):
        of_kind = score[kind == name]
        figures[f"mean_score_{name}"] = float(of_kind.mean())
        figures[f"kept_share_{name}"] = float((kind[kept] == name).sum() / len(of_kind))
    figures["clean_score_p10"] = float(np.quantile(clean, 0.1))
    figures["clean_score_p90"] = float(np.quantile(clean, 0.9))
    figures["samples_scored"] = float(len(score))
    return {name: round(value, 4) for name, value in figures.items()}
