"""Multi-head self-attention over a set of tokens, with a learned bias of relative positions or a mask."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_CHANNELS = 32  # d, as in Swin and MSG-Transformer; the paper is silent
FFN_RATIO = 4  # as in Swin; the paper is silent


class SelfAttention(nn.Module):
    """softmax(Q K^T / sqrt(d) + bias) V, then an output projection. (B, tokens, C) -> same.

    side: tokens form a side x side square and get Swin's relative position bias (eq. 4 there); None: a plain set.
    """

    def __init__(self, channels: int, side: int | None = None) -> None:
        super().__init__()
        if channels % HEAD_CHANNELS:
            raise ValueError(f"attention needs channels in multiples of {HEAD_CHANNELS}, got {channels}")
        self.heads = channels // HEAD_CHANNELS
        self.qkv = nn.Linear(channels, 3 * channels)
        self.out = nn.Linear(channels, channels)
        self.bias = RelativeBias(self.heads, side) if side else None

    def forward(self, x: Tensor, allowed: Tensor | None = None) -> Tensor:
        """allowed: (tokens, tokens) bool, who may look at whom; None: all at all"""
        b, tokens, c = x.shape
        qkv = self.qkv(x).reshape(b, tokens, 3, self.heads, HEAD_CHANNELS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, h, tokens, d)
        bias = self.bias() if self.bias is not None else allowed
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return cast(Tensor, self.out(mixed.transpose(1, 2).reshape(b, tokens, c)))


class RelativeBias(nn.Module):
    """One learned number per head and displacement (dy, dx) inside a window."""

    index: Tensor

    def __init__(self, heads: int, side: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.zeros((2 * side - 1) ** 2, heads))
        nn.init.trunc_normal_(self.table, std=0.02)
        at = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")).flatten(1)
        dy, dx = at[:, :, None] - at[:, None, :] + side - 1  # each (w*w, w*w), 0 .. 2w-2
        self.register_buffer("index", dy * (2 * side - 1) + dx, persistent=False)

    def forward(self) -> Tensor:
        """(h, w*w, w*w)"""
        return self.table[self.index].permute(2, 0, 1)


class TransformerBlock(nn.Module):
    """x + MSA(LN(x)), then x + FFN(LN(x)), over every cell of a map: (B, C, H, W) -> same. Cost grows with (HW)^2."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm_attention, self.attention = nn.LayerNorm(channels), SelfAttention(channels)
        self.norm_ffn, self.ffn = nn.LayerNorm(channels), feed_forward(channels)

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)  # (B, HW, C)
        tokens = self.attention(self.norm_attention(tokens)) + tokens
        tokens = self.ffn(self.norm_ffn(tokens)) + tokens
        return cast(Tensor, tokens.transpose(1, 2).reshape(x.shape))


def feed_forward(channels: int) -> nn.Sequential:
    hidden = FFN_RATIO * channels
    return nn.Sequential(nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
