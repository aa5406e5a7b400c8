"""Encoding of captions without their padding, if the embedding stays the same.

In a causal text tower that is pooled at the end token, tokens after it have no effect. Web captions
have 10 to 20 of CLIP's 77 tokens, so a batch is cropped to its longest caption.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from open_clip.transformer import TextTransformer, text_global_pool
from torch import nn


def can_crop_text(model: nn.Module) -> bool:
    """Returns True if tokens after a caption's end token cannot affect its embedding.

    This holds for causal towers pooled at the end token. False for bidirectional towers (SigLIP),
    an appended class token (CoCa), pooling at a fixed position, and Hugging Face towers.
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
    """Returns the number of tokens that each embedding depends on; all without cropping."""
    if not can_crop_text(model):
        return np.full(len(tokens_NL), tokens_NL.shape[1])
    pool_type, end_id = _pool(getattr(model, "text", model))
    marks_NL = tokens_NL if pool_type == "argmax" else tokens_NL == end_id
    return marks_NL.argmax(axis=1) + 1


def encode_text(model: nn.Module, tokens_BL: torch.Tensor) -> torch.Tensor:
    """Returns the embeddings (B, D), not normalised, of captions with end tokens in `tokens_BL`.

    `tokens_BL` may be narrower than the context only if `can_crop_text(model)`. The cropped forward
    equals open_clip's CLIP.encode_text and TextTransformer.forward over the first positions.
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
    """The pooling type and the end token of a tower; open_clip.CLIP has longer names for them."""
    if isinstance(tower, TextTransformer):
        return tower.pool_type, tower.eos_id
    return tower.text_pool_type, tower.text_eos_id
