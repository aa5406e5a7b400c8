"""Pixels and tokens -> cosine similarity, on one device.

Scores are a function of the chunk: batches are formed within one call, and depend on nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from dfn_ray.images.transform import ImageTransform
from dfn_ray.network import text_tower

_MIN_TEXT_BATCH = 32
"""Minimum number of captions in a batch that ends early because of caption lengths."""
_TEXT_BATCH_STRETCH = 1.25
"""A batch ends before a caption longer than its shortest by this factor: at most 1/5 is padding."""
_MAX_CPU_BATCH = 32
"""Larger batches exceed the caches. ViT-B/32 in bf16, images per CPU-second: 88 at 32, 77 at 64, 69
at 128."""
_BATCHES_AHEAD = 2
"""Batches queued on the device: one runs while the next is copied."""


@dataclass(frozen=True, kw_only=True)
class ChunkScores:
    """The scores and embeddings of the N samples of a chunk, each with one or more captions."""

    score_N: np.ndarray
    """float32 cosine similarity in [-1, 1] of each caption; NaN where an embedding is not
    finite."""
    image_embedding_ND: np.ndarray | None
    """float16, L2-normalised; None unless requested."""
    text_embedding_ND: np.ndarray | None
    """float16, L2-normalised, of each caption; None unless requested."""


class FilteringNetwork:
    """Both towers on one device. Cosines are in float32 at any precision of the forward."""

    def __init__(
        self,
        model: nn.Module,
        transform: ImageTransform,
        device: torch.device,
        *,
        compile: bool = False,
    ) -> None:
        self.device = device
        self.transform = transform
        self._model = model
        self._dtype = next(model.parameters()).dtype
        self._mean, self._std = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (transform.mean, transform.std)
        )
        self._image_tower: Callable[..., Any] = model.encode_image  # type: ignore[assignment]
        self._text_tower: Callable[..., Any] = text_tower.encode_text
        if compile:
            # dynamic from the start: otherwise kernels, and the last bits, depend on earlier
            # shapes.
            self._image_tower = torch.compile(self._image_tower, dynamic=True)
            self._text_tower = torch.compile(self._text_tower, dynamic=True)

    def with_transform(self, transform: ImageTransform) -> FilteringNetwork:
        """Returns the same towers with another transform."""
        return FilteringNetwork(self._model, transform, self.device)

    @torch.inference_mode()
    def embed_images(self, pixels_BHWC: np.ndarray) -> torch.Tensor:
        """Returns float32 L2-normalised embeddings (B, D) of uint8 pixels, on the device."""
        image_BCHW = self._to_device(pixels_BHWC).permute(0, 3, 1, 2).float()
        image_BCHW = image_BCHW.div_(255).sub_(self._mean).div_(self._std).to(self._dtype)
        return F.normalize(self._image_tower(image_BCHW, normalize=False).float(), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, tokens_BL: np.ndarray) -> torch.Tensor:
        """Returns float32 L2-normalised embeddings (B, D) of int32 tokens, on the device."""
        length = int(text_tower.lengths(self._model, tokens_BL).max())
        text_BL = self._to_device(tokens_BL[:, :length])
        return F.normalize(self._text_tower(self._model, text_BL).float(), dim=-1)

    @torch.inference_mode()
    def score(
        self,
        pixels_NHWC: np.ndarray,
        tokens_NL: np.ndarray,
        *,
        batch_size: int,
        keep_embeddings: bool = False,
        caption_count_N: np.ndarray | None = None,
    ) -> ChunkScores:
        """Returns the scores of a chunk: row n of `pixels_NHWC` with the captions of sample n.

        These are row n of `tokens_NL` (int32) or, with `caption_count_N`, the next
        `caption_count_N[n]` rows. Pixels are uint8. Equal captions are encoded once; captions of
        similar length share a batch. No batch is larger than `batch_size`; on a CPU batches are
        smaller.
        """
        count = len(pixels_NHWC)
        if count == 0:
            none = np.zeros((0, 0), np.float16) if keep_embeddings else None
            return ChunkScores(
                score_N=np.zeros(0, np.float32), image_embedding_ND=none, text_embedding_ND=none
            )
        image_ND = self.embed_all_images(pixels_NHWC, batch_size=batch_size)
        text_ND = self.embed_all_texts(tokens_NL, batch_size=batch_size)
        image_of_ND = image_ND
        if caption_count_N is not None:
            image_of_ND = image_ND.repeat_interleave(
                torch.tensor(caption_count_N, device=self.device), dim=0
            )
        score_N = (image_of_ND * text_ND).sum(dim=-1).clamp(-1, 1)
        return ChunkScores(
            score_N=score_N.cpu().numpy(),
            image_embedding_ND=image_ND.half().cpu().numpy() if keep_embeddings else None,
            text_embedding_ND=text_ND.half().cpu().numpy() if keep_embeddings else None,
        )

    @torch.inference_mode()
    def embed_all_images(self, pixels_NHWC: np.ndarray, *, batch_size: int) -> torch.Tensor:
        """Returns image embeddings (N, D), N >= 1; on a CPU, batches may be smaller."""
        batch_size = self._batch_size(batch_size)
        batches = (slice(i, i + batch_size) for i in range(0, len(pixels_NHWC), batch_size))
        return torch.cat(self._ahead(self.embed_images(pixels_NHWC[b]) for b in batches))

    @torch.inference_mode()
    def embed_all_texts(self, tokens_NL: np.ndarray, *, batch_size: int) -> torch.Tensor:
        """Returns text embeddings (N, D), N >= 1.

        Each distinct row of tokens is encoded once, in batches of texts of similar length.
        """
        batch_size = self._batch_size(batch_size)
        distinct_ML, row_N = np.unique(tokens_NL, axis=0, return_inverse=True)
        length_M = text_tower.lengths(self._model, distinct_ML)
        order_M = np.argsort(length_M, kind="stable")
        batches = batch_by_length(length_M[order_M], batch_size)
        sorted_MD = torch.cat(
            self._ahead(self.embed_texts(distinct_ML[order_M[b]]) for b in batches)
        )
        place_M = np.argsort(order_M, kind="stable")
        return sorted_MD[torch.from_numpy(place_M[row_N.reshape(-1)]).to(self.device)]

    def _batch_size(self, most: int) -> int:
        return min(most, _MAX_CPU_BATCH) if self.device.type == "cpu" else most

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type == "cuda":
            # With pinned memory, the copy and this function overlap with the previous batch.
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _ahead(self, batches: Iterable[torch.Tensor]) -> list[torch.Tensor]:
        """All batches, issued without waiting, but at most a few ahead of the device."""
        done: list[torch.Tensor] = []
        in_flight: deque[Any] = deque()
        for batch in batches:
            done.append(batch)
            if self.device.type == "cuda":
                in_flight.append(torch.cuda.current_stream(self.device).record_event())
                if len(in_flight) == _BATCHES_AHEAD:
                    in_flight.popleft().synchronize()
        return done


def batch_by_length(length_M: np.ndarray, batch_size: int) -> Iterator[slice]:
    """Yields slices of ascending lengths: batches of `batch_size` or less, with little padding."""
    first = 0
    for index, length in enumerate(length_M.tolist()):
        taken = index - first
        stretched = length > length_M[first] * _TEXT_BATCH_STRETCH
        if taken == batch_size or (taken >= _MIN_TEXT_BATCH and stretched):
            yield slice(first, index)
            first = index
    if first < len(length_M):
        yield slice(first, len(length_M))
