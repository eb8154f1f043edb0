"""Surrounding context integration (SGNet section 3.3, Eqs. 1 to 5).

Attention inside each window, one token per window, attention between those tokens, broadcast back, feed-forward.
The shape of an MSG-Transformer block with the messenger token replaced by GAP -> SA.

Who attends to whom in Eq. 3 is a knob:
    reach "all"             every window of the surround, as the paper's prose says
    reach "region"          the windows of its own region of R x R windows, as its notation says
    reach "neighbourhood"   the windows at most r away on each axis (ours): the block then commutes with a shift by a
                            whole window, so that one pass over a large area serves every tile in it
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from model.parts.attention import SelfAttention, feed_forward

Tokens = Literal["mean", "convolution", "none"]
Reach = Literal["all", "region", "neighbourhood"]


class Sci(nn.Module):
    """(B, C, H, W) -> same; H and W in multiples of the window side w.

    tokens: how a window becomes one token: global average pooling (Eq. 2), a w x w convolution (Table 3), or not at
    all (Table 3's W-MSA alone). span: R or r of `reach`, in windows.
    """

    def __init__(
        self,
        channels: int,
        window: int = 8,
        *,
        tokens: Tokens = "mean",
        reach: Reach = "all",
        span: int = 0,
        ffn_prenorm: bool = True,
        token_norm: bool = False,
    ) -> None:
        super().__init__()
        if reach != "all" and span < 1:
            raise ValueError(f"reach {reach!r} needs a span of at least 1 window, got {span}")
        self.window, self.tokens, self.reach, self.span = window, tokens, reach, span
        self.norm_window = nn.LayerNorm(channels)
        self.window_attention = SelfAttention(channels, side=window)
        if tokens != "none":
            self.token_attention = SelfAttention(channels)
        if tokens == "convolution":
            self.token_convolution = nn.Linear(window * window * channels, channels)
        self.norm_token = nn.LayerNorm(channels) if token_norm else nn.Identity()
        self.norm_ffn = nn.LayerNorm(channels) if ffn_prenorm else nn.Identity()  # Eq. 5 prints none
        self.ffn = feed_forward(channels)

    def forward(self, x: Tensor) -> Tensor:
        b, _, height, width = x.shape
        f = to_windows(x, self.window)  # (B n, w*w, C)
        f = self.window_attention(self.norm_window(f)) + f  # Eq. 1
        if self.tokens != "none":
            g = self._pool(f)  # Eq. 2: (B n, C)
            allowed = reachable(height // self.window, width // self.window, self.reach, self.span, x.device)
            g = self.norm_token(g.reshape(b, -1, g.shape[-1]))
            g = self.token_attention(g, allowed).flatten(0, 1)  # Eq. 3: (B n, C)
            f = f + g[:, None, :]  # Eq. 4
        f = self.ffn(self.norm_ffn(f)) + f  # Eq. 5
        return from_windows(f, self.window, height, width)

    def _pool(self, f: Tensor) -> Tensor:
        if self.tokens == "convolution":
            pooled: Tensor = self.token_convolution(f.flatten(1))  # a convolution of side and stride w
            return pooled
        return f.mean(dim=1)


def reachable(rows: int, columns: int, reach: Reach, span: int, device: torch.device) -> Tensor | None:
    """(n, n) bool for n = rows x columns windows, row-major; None: every window reaches every window."""
    if reach == "all":
        return None
    # not by dividing a running number: the ONNX exporter divides by no size that it does not know yet
    y = torch.arange(rows, device=device)[:, None].expand(rows, columns).flatten()
    x = torch.arange(columns, device=device)[None, :].expand(rows, columns).flatten()
    if reach == "region":
        y, x = y // span, x // span
        return (y[:, None] == y) & (x[:, None] == x)
    return ((y[:, None] - y).abs() <= span) & ((x[:, None] - x).abs() <= span)


def to_windows(x: Tensor, w: int) -> Tensor:
    """(B, C, H, W) -> (B n, w*w, C), n = (H/w)(W/w), row-major."""
    b, c, height, width = x.shape
    if height % w or width % w:
        raise ValueError(f"a map of {height} x {width} cells does not divide into windows of {w}")
    x = x.reshape(b, c, height // w, w, width // w, w).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(-1, w * w, c)


def from_windows(f: Tensor, w: int, height: int, width: int) -> Tensor:
    """The inverse of to_windows."""
    c = f.shape[-1]
    x = f.reshape(-1, height // w, width // w, w, w, c).permute(0, 5, 1, 3, 2, 4)
    return x.reshape(-1, c, height, width)
