"""Scores of images and captions in this process, by the steps of a run, without starting Ray."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import pyarrow as pa

from dfn_ray.config import Decode, Network, Rules, Scorers
from dfn_ray.errors import InputError
from dfn_ray.filtering.scoring.bounds import NOTHING
from dfn_ray.filtering.scoring.scorer import Scorer
from dfn_ray.network.packed import PackedNetwork
from dfn_ray.on_ray.cells import Cell
from dfn_ray.pool.captions import is_encodable
from dfn_ray.pool.text import has_visible
from dfn_ray.preparing.prepare import NetworkInputs, Preparation, prepare
from dfn_ray.resolving.fetch_networks import fetch_network
from dfn_ray.schema import SAMPLE_SCHEMA, Chunk, Reason, Status, score_column
from dfn_ray.storage import read_uri
from dfn_ray.uids.derived import derive_uid

CHUNK_ROWS = 256
"""Pairs decoded and scored at a time, as `pool.chunk_rows`."""
_NAME = "pairs"
_RESULT = ("score", "status", "reason", "width", "height")

Image: TypeAlias = bytes | str | os.PathLike[str]
"""The bytes of an image file, or where it is: a path or a URI."""


class PairScorer:
    """A filtering network on one device, which treats a pair as a run would."""

    def __init__(
        self,
        network: PackedNetwork,
        *,
        device: Literal["cpu", "cuda"] = "cpu",
        decode: Decode | None = None,
    ) -> None:
        self.network = network
        self._preparation = Preparation(
            Rules(), decode or Decode(), (network.transform,), (network.tokenizer,)
        )
        scorers = Scorers(device=device, gpus=1.0 if device == "cuda" else 0.0)
        self._scorer = Scorer([network], [NetworkInputs(0, 0)], scorers, network.name, NOTHING)

    def score(self, images: Sequence[Image], captions: Sequence[str | None]) -> pa.Table:
        """Scores images against captions, row by row.

        Returns a table with a row per pair, in the order given: `score` (float32 cosine similarity
        in [-1, 1], null if the pair failed), `status` (`scored` or `failed`), `reason` (of a
        failure, as in a run), `width` and `height` (of the image, in pixels).

        Raises InputError if the numbers of images and captions differ, StorageError if an image
        file cannot be read.
        """
        if len(images) != len(captions):
            raise InputError(f"need a caption per image, got {len(images)} and {len(captions)}")
        starts = range(0, max(1, len(images)), CHUNK_ROWS)
        return pa.concat_tables(
            self._scored(images[i : i + CHUNK_ROWS], captions[i : i + CHUNK_ROWS], i)
            for i in starts
        )

    def _scored(
        self, images: Sequence[Image], captions: Sequence[str | None], first_row: int
    ) -> pa.Table:
        samples = [
            _sample(first_row + place, _bytes_of(image), caption)
            for place, (image, caption) in enumerate(zip(images, captions, strict=True))
        ]
        chunk = Chunk(shard=_NAME, first_row=first_row, rows=len(samples), last=True)
        table = pa.Table.from_pylist(samples, schema=SAMPLE_SCHEMA)
        prepared = prepare(Cell(chunk=chunk, samples=table), preparation=self._preparation)
        scored = self._scorer(prepared).samples
        column = score_column(self.network.name)
        if column not in scored.column_names:
            scored = scored.append_column(column, pa.nulls(len(scored), pa.float32()))
        names = ["score" if name == column else name for name in scored.column_names]
        return scored.rename_columns(names).select(_RESULT)


def load_network(
    model: str,
    *,
    device: Literal["cpu", "cuda"] = "cpu",
    decode: Decode | None = None,
    **settings: Any,
) -> PairScorer:
    """Loads a filtering network that scores images and captions in this process.

    `model` and `settings` (`pretrained`, `precision`, ...) are those of `[[networks]]` in a recipe.
    Raises InputError if the network is absent, damaged or of a kind that cannot be built.
    """
    return PairScorer(fetch_network(Network(model=model, **settings)), device=device, decode=decode)


def _bytes_of(image: Image) -> bytes:
    return image if isinstance(image, bytes) else read_uri(os.fspath(image))


def _sample(row: int, image: bytes, caption: str | None) -> dict[str, Any]:
    reason = None
    if not image:
        reason = Reason.EMPTY_IMAGE
    elif caption is None:
        reason = Reason.MISSING_CAPTION
    elif not is_encodable([caption]):
        reason = Reason.CAPTION_NOT_UTF8
    elif not has_visible(caption):
        reason = Reason.EMPTY_CAPTION
    return {
        "uid": derive_uid(_NAME, str(row)),
        "row": row,
        "key": str(row),
        "image": None if reason else image,
        "text": None if reason else caption,
        "metadata": None,
        "status": Status.FAILED.value if reason else None,
        "reason": reason.value if reason else None,
    }
