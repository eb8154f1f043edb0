"""RoIAlign's closed form is grid_sample, upsample-then-crop and, at the centre, a slice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from model.parts.roialign import interpolation, roi_align


def by_grid_sample(features: Tensor, offset: Tensor, box_px: int, stride: int, size: int) -> Tensor:
    side = features.shape[-1]
    at = (torch.arange(size, dtype=features.dtype) + 0.5) * box_px / stride / size - 0.5
    y, x = (offset[:, axis, None] / stride + at for axis in (0, 1))  # (B, size) in cells
    y, x = (2 * (c + 0.5) / side - 1 for c in (y, x))
    grid = torch.stack([x[:, None, :].expand(-1, size, -1), y[:, :, None].expand(-1, -1, size)], dim=-1)
    return F.grid_sample(features, grid, padding_mode="border", align_corners=False)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_equals_grid_sample_at_any_offset(size: int) -> None:
    torch.manual_seed(0)
    features = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    offset = torch.tensor([[0, 0], [512, 512], [137, 301], [511, 1]], dtype=torch.float64)
    expected = by_grid_sample(features, offset, 512, 16, size)
    assert (roi_align(features, offset, 512, 16, size) - expected).abs().max() < 1e-12


def test_an_integer_offset_gives_what_a_float64_one_gives() -> None:
    features = torch.randn(2, 3, 64, 64)
    offset = torch.tensor([[137, 301], [16, 500]], dtype=torch.int32)
    exact = roi_align(features.double(), offset.double(), 512, 16, 128)
    assert (roi_align(features, offset, 512, 16, 128) - exact).abs().max() < 1e-5


def test_at_the_centre_it_is_a_plain_slice() -> None:
    features = torch.randn(1, 3, 64, 64)
    aligned = roi_align(features, torch.tensor([[256, 256]]), 512, 16, 32)
    assert torch.equal(aligned, features[..., 16:48, 16:48])


def test_equals_upsampling_the_whole_map_and_cutting_there() -> None:
    features = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    whole = F.interpolate(features, scale_factor=4, mode="bilinear", align_corners=False)
    aligned = roi_align(features, torch.tensor([[128, 64]], dtype=torch.float64), 512, 16, 128)
    assert (aligned - whole[..., 32:160, 16:144]).abs().max() < 1e-12


def test_weights_of_every_sample_sum_to_one() -> None:
    weights = interpolation(torch.tensor([0, 137, 512]), 512, 16, 128, 64)
    assert torch.allclose(weights.sum(dim=-1), torch.ones(3, 128))


def test_gradients_reach_the_cells_under_the_box_and_no_others() -> None:
    features = torch.randn(1, 1, 64, 64, requires_grad=True)
    roi_align(features, torch.tensor([[256, 256]]), 512, 16, 32).sum().backward()
    assert features.grad is not None
    expected = torch.zeros(64, 64)
    expected[16:48, 16:48] = 1
    assert torch.equal(features.grad[0, 0], expected)
