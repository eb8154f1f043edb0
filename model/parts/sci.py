"""Surrounding context integration (SGNet section 3.3, Eqs. 1 to 5).

Attention inside each window, one token per window by global average pooling, attention between those tokens,
broadcast back, feed-forward. The shape of an MSG-Transformer block with the messenger token replaced by GAP -> SA.
Here one region is the whole surround, so Eq. 3 runs "across all the windows of the surrounding patch".
"""

from __future__ import annotations

from torch import Tensor, nn

from model.parts.attention import SelfAttention

FFN_RATIO = 4  # as in Swin; the paper is silent


class Sci(nn.Module):
    """(B, C, H, W) -> same; H and W in multiples of the window side w."""

    def __init__(self, channels: int, window: int = 8) -> None:
        super().__init__()
        self.window = window
        self.norm_window = nn.LayerNorm(channels)
        self.window_attention = SelfAttention(channels, side=window)
        self.token_attention = SelfAttention(channels)
        self.norm_ffn = nn.LayerNorm(channels)  # Eq. 5 prints none; MSG and Swin have it
        self.ffn = nn.Sequential(
            nn.Linear(channels, FFN_RATIO * channels), nn.GELU(), nn.Linear(FFN_RATIO * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        b, _, height, width = x.shape
        f = to_windows(x, self.window)  # (B n, w*w, C)
        f = self.window_attention(self.norm_window(f)) + f  # Eq. 1
        g = f.mean(dim=1)  # Eq. 2: (B n, C)
        g = self.token_attention(g.reshape(b, -1, g.shape[-1])).flatten(0, 1)  # Eq. 3: (B n, C)
        f = f + g[:, None, :]  # Eq. 4
        f = self.ffn(self.norm_ffn(f)) + f  # Eq. 5
        return from_windows(f, self.window, height, width)


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
