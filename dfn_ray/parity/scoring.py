"""The scores of variants over the same samples; embeddings that variants share are made once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from dfn_ray.clip.decode import decode_images
from dfn_ray.clip.network import FrozenNetwork, build
from dfn_ray.clip.scoring import FilteringNetwork
from dfn_ray.clip.tokenizer import tokenize
from dfn_ray.config import Decode
from dfn_ray.parity.variant import Variant

BATCH = 64
"""Images decoded and embedded at a time: 10 MB of pixels at 224."""
Rows = tuple[int, ...]


class Scoring:
    """Samples that can be scored in any variant, on one device."""

    def __init__(
        self,
        network: FrozenNetwork,
        captions: Sequence[str],
        images: Sequence[bytes],
        *,
        decode: Decode,
        device: str,
        threads: int | None,
    ) -> None:
        self._network, self._captions, self._images = network, captions, images
        self._decode, self._device, self._threads = decode, device, threads
        self._embedded: dict[tuple[Variant, bool, Rows], np.ndarray] = {}
        self._built: tuple[tuple[bool, str], FilteringNetwork] | None = None

    def scores(self, variant: Variant, rows: Rows) -> np.ndarray:
        """The cosine of each of the rows, float32; NaN where the image fails."""
        image_ND = self._embeddings(replace(variant, prompt="{}"), True, rows)
        # What only images depend on is as in the recipe, so that all these variants share the captions.
        of_text = replace(
            variant,
            transform=self._network.transform,
            decode_mode=self._decode.mode,
            on_truncated=self._decode.on_truncated,
        )
        text_ND = self._embeddings(of_text, False, rows)
        return np.clip((image_ND * text_ND).sum(axis=1), -1, 1)

    def _embeddings(self, variant: Variant, of_images: bool, rows: Rows) -> np.ndarray:
        key = (variant, of_images, rows)
        if key not in self._embedded:
            embed = self._embed_images if of_images else self._embed_texts
            batches = (rows[start : start + BATCH] for start in range(0, len(rows), BATCH))
            self._embedded[key] = np.concatenate([embed(variant, batch) for batch in batches])
        return self._embedded[key]

    def _embed_images(self, variant: Variant, rows: Rows) -> np.ndarray:
        decoded = decode_images(
            [self._images[row] for row in rows],
            [variant.transform],
            mode=variant.decode_mode,
            on_truncated=variant.on_truncated,
            max_pixels=self._decode.max_pixels,
            timeout_s=self._decode.timeout_s,
        )
        network = self._ready(variant).with_transform(variant.transform)
        embedding_ND = network.embed_images(decoded.pixels[0]).cpu().numpy()
        embedding_ND[[reason is not None for reason in decoded.reason]] = np.nan
        return embedding_ND

    def _embed_texts(self, variant: Variant, rows: Rows) -> np.ndarray:
        captions = [variant.prompt.replace("{}", self._captions[row]) for row in rows]
        tokens_NL = tokenize(self._network.tokenizer, captions)
        return self._ready(variant).embed_texts(tokens_NL).cpu().numpy()

    def _ready(self, variant: Variant) -> FilteringNetwork:
        """The network on its device; one at a time, since two large ones may not fit."""
        key = (variant.quick_gelu, variant.precision)
        if self._built is None or self._built[0] != key:
            self._built = None
            with torch.random.fork_rng(devices=[]):
                built = build(variant.network(self._network), self._device, threads=self._threads)
            self._built = (key, built)
        return self._built[1]
