"""Captions encoded without their padding, where that gives the same embedding.

A causal text tower that is read at the end token cannot see what follows it. Web captions have 10 to 20
tokens of CLIP's 77, so a batch is cropped to its longest caption.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from open_clip.transformer import TextTransformer, text_global_pool
from torch import nn


def can_crop_text(model: nn.Module) -> bool:
    """Whether what follows a caption's end token cannot change its embedding: causal, and pooled there.

    False for two-way towers (SigLIP), an appended class token (CoCa), pooling at a fixed place, and
    Hugging Face towers.
    """
    tower = getattr(model, "text", model)
    if not (isinstance(tower, TextTransformer) or tower is model):
        return False
    return (
        getattr(tower, "attn_mask", None) is not None
        and getattr(tower, "cls_emb", None) is None
        and _pool(tower)[0] in ("argmax", "eos")
    )


def lengths(model: nn.Module, tokens_NL: np.ndarray) -> np.ndarray:
    """Tokens of each caption that its embedding depends on; all of them where the text cannot be cropped."""
    if not can_crop_text(model):
        return np.full(len(tokens_NL), tokens_NL.shape[1])
    pool_type, end_id = _pool(getattr(model, "text", model))
    marks_NL = tokens_NL if pool_type == "argmax" else tokens_NL == end_id
    return marks_NL.argmax(axis=1) + 1


def encode_text(model: nn.Module, tokens_BL: torch.Tensor) -> torch.Tensor:
    """The embeddings (B, D), not normalised, of captions whose end tokens lie inside `tokens_BL`.

    `tokens_BL` may be narrower than the context only if `can_crop_text(model)`. The cropped forward is that of
    open_clip's CLIP.encode_text and TextTransformer.forward over the first positions.
    """
    if not can_crop_text(model):
        return model.encode_text(tokens_BL, normalize=False)  # type: ignore[operator]
    tower: Any = getattr(model, "text", model)
    length = tokens_BL.shape[1]
    dtype = tower.transformer.get_cast_dtype()
    position_LW = tower.positional_embedding[:length].to(dtype)
    x_BLW = tower.token_embedding(tokens_BL).to(dtype) + position_LW
    x_BLW = tower.transformer(x_BLW, attn_mask=tower.attn_mask[:length, :length])
    pool_type, end_id = _pool(tower)
    x_BW = text_global_pool(tower.ln_final(x_BLW), tokens_BL, pool_type, eos_token_id=end_id)
    projection = tower.text_projection
    if projection is None:
        return x_BW
    return projection(x_BW) if isinstance(projection, nn.Linear) else x_BW @ projection


def _pool(tower: Any) -> tuple[str, int | None]:
    """Where the tower is read, and its end token; open_clip.CLIP has them under longer names."""
    if isinstance(tower, TextTransformer):
        return tower.pool_type, tower.eos_id
    return tower.text_pool_type, tower.text_eos_id
