"""Scores of variants over the same samples; embeddings that variants share are computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from dfn_ray.config import Recipe
from dfn_ray.images.decode import decode_images
from dfn_ray.network.filtering_network import FilteringNetwork
from dfn_ray.network.packed import PackedNetwork, build
from dfn_ray.network.tokenizer import tokenize
from dfn_ray.parity.variant import Variant
from dfn_ray.preparing.several_captions import counting_captions, encoded_captions, reduce_scores

BATCH = 64
"""Images decoded and embedded at a time: 10 MB of pixels at 224."""
Rows = tuple[int, ...]


class VariantScorer:
    """Scores fixed samples in any variant, on one device."""

    def __init__(
        self,
        network: PackedNetwork,
        captions: Sequence[list[str]],
        images: Sequence[bytes],
        *,
        recipe: Recipe,
        device: str,
    ) -> None:
        self._network, self._images = network, images
        self._decode, self._device, self._threads = recipe.decode, device, recipe.scorers.threads
        self._caption_rule = recipe.captions
        self._captions = encoded_captions(captions, self._caption_rule)
        self._counts = [_counting(own, recipe) for own in self._captions]
        self._embedded: dict[tuple[Variant, bool, Rows], np.ndarray] = {}
        self._built: tuple[tuple[bool, str], FilteringNetwork] | None = None

    def scores(self, variant: Variant, rows: Rows) -> np.ndarray:
        """The cosine for each row, float32; NaN where the image cannot be decoded."""
        image_ND = self._embeddings(replace(variant, prompt="{}"), True, rows)
        # Settings that affect only images are reset to the recipe's, so that these variants share
        # text embeddings.
        of_text = replace(
            variant,
            transform=self._network.transform,
            decode_mode=self._decode.mode,
            on_truncated=self._decode.on_truncated,
        )
        text_MD = self._embeddings(of_text, False, rows)
        length_N = np.array([len(self._captions[row]) for row in rows])
        score_M = np.clip((np.repeat(image_ND, length_N, axis=0) * text_MD).sum(axis=1), -1, 1)
        is_included_M = np.concatenate([self._counts[row] for row in rows])
        score_N, _ = reduce_scores(score_M, None, length_N, is_included_M, self._caption_rule)
        return score_N

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
        captions = [
            variant.prompt.replace("{}", text) for row in rows for text in self._captions[row]
        ]
        tokens_NL = tokenize(self._network.tokenizer, captions)
        return self._ready(variant).embed_texts(tokens_NL).cpu().numpy()

    def _ready(self, variant: Variant) -> FilteringNetwork:
        """The network on its device; one at a time, because two large ones may not fit."""
        key = (variant.quick_gelu, variant.precision)
        if self._built is None or self._built[0] != key:
            self._built = None
            with torch.random.fork_rng(devices=[]):
                built = build(variant.network(self._network), self._device, threads=self._threads)
            self._built = (key, built)
        return self._built[1]


def _counting(captions: Sequence[str], recipe: Recipe) -> list[bool]:
    """Mask of a sample's captions that count; all of them if filtering would reject the sample.

    The reference has a score for it.
    """
    counts = counting_captions(captions, recipe.rules, recipe.captions)
    return counts if any(counts) else [True] * len(captions)
