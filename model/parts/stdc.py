"""The surrounding branch's trunk: the first four stages of STDC1 (Fan et al., CVPR 2021), down to stride 16.

SGNet section 3.2 names "the first four stages of STDC": stem x2 and x4, then stages x8 and x16 of two modules each.
`width` scales every channel count; 1.0 is the paper's (512 channels out, 1.278 M parameters).
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from model.parts.conv import conv_norm, conv_norm_relu

STRIDE = 16


class StdcModule(nn.Module):
    """Four convolutions of halving width, their outputs concatenated (STDC, Fig. 3)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half, quarter, eighth = outputs // 2, outputs // 4, outputs // 8
        self.first = conv_norm_relu(inputs, half)
        self.shrink = conv_norm(half, half, 3, stride=2, groups=half) if stride == 2 else nn.Identity()
        self.pool = nn.AvgPool2d(3, 2, 1) if stride == 2 else nn.Identity()
        self.rest = nn.ModuleList(
            [conv_norm_relu(half, quarter, 3), conv_norm_relu(quarter, eighth, 3), conv_norm_relu(eighth, eighth, 3)]
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        parts = [self.pool(x)]
        x = self.shrink(x)
        for conv in self.rest:
            x = conv(x)
            parts.append(x)
        return torch.cat(parts, dim=1)


class StdcTrunk(nn.Module):
    """(B, 3, S, S) -> (B, 512 width, S/16, S/16)"""

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        c2, c4, c8, c16 = (round(c * width) for c in (32, 64, 256, 512))
        if min(c2, c4, c8, c16) < 8 or c8 % 8 or c16 % 8:
            raise ValueError(f"trunk width {width}: expected channels in eighths, got {(c2, c4, c8, c16)}")
        self.channels = c16
        self.layers = nn.Sequential(
            conv_norm_relu(3, c2, 3, stride=2),
            conv_norm_relu(c2, c4, 3, stride=2),
            StdcModule(c4, c8, 2),
            StdcModule(c8, c8, 1),
            StdcModule(c8, c16, 2),
            StdcModule(c16, c16, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.layers(x))
