"""Multi-head self-attention over a set of tokens, with an optional learned bias of relative positions."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

HEAD_CHANNELS = 32  # d, as in Swin and MSG-Transformer; the paper is silent


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

    def forward(self, x: Tensor) -> Tensor:
        b, tokens, c = x.shape
        qkv = self.qkv(x).reshape(b, tokens, 3, self.heads, HEAD_CHANNELS)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, h, tokens, d)
        bias = self.bias() if self.bias is not None else None
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
