"""RoIAlign in closed form: cut the local patch out of the surround's feature map, at any size, exactly.

The box has a fixed side t and stride-16 features, so each output row i has one bilinear sample at

    y_i = oy / stride + (i + 0.5) (t / stride) / h_out - 0.5,   clamped to [0, H - 1]

and bilinear weights are hat functions, w[i, j] = max(0, 1 - |y_i - j|). Both axes separate: A = W_y F W_x^T.
Two matrix products: differentiable, the same in any ONNX runtime, equal to RoIAlign(aligned=True, sampling_ratio=-1)
and to grid_sample(padding_mode="border", align_corners=False); at the centre, and without resizing, a plain slice.
"""

from __future__ import annotations

import torch
from torch import Tensor


def roi_align(features: Tensor, offset: Tensor, box_px: int, stride: int, size: int) -> Tensor:
    """features: (B, C, H, W); offset: (B, 2) integer (y, x) px of the box in the map's picture -> (B, C, size, size)"""
    height, width = features.shape[-2:]
    rows = interpolation(offset[:, 0], box_px, stride, size, height).to(features.dtype)  # (B, size, H)
    columns = interpolation(offset[:, 1], box_px, stride, size, width).to(features.dtype)  # (B, size, W)
    return rows[:, None] @ features @ columns[:, None].transpose(-1, -2)


def interpolation(start_px: Tensor, box_px: int, stride: int, size: int, cells: int) -> Tensor:
    """(B,) integer px -> (B, size, cells) rows of hat functions that sum to 1."""
    # float32 is exact here up to 2**24 px and float64 is asked for where the start is float64 (the identity tests)
    start = start_px.to(torch.float64 if start_px.dtype == torch.float64 else torch.float32)
    step = box_px / stride / size
    at = torch.arange(size, device=start.device, dtype=start.dtype)
    y = start[:, None] / stride + (at + 0.5) * step - 0.5  # (B, size)
    y = y.clamp(0, cells - 1)
    j = torch.arange(cells, device=start.device, dtype=start.dtype)
    return (1 - (y[:, :, None] - j).abs()).clamp(min=0)
