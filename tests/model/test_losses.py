"""Eqs. 6 and 7 against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from model.losses import IGNORE, LossWeights, consistency, cross_entropy, total_loss
from model.sgnet import TrainingOutput


def test_cross_entropy_is_the_mean_over_pixels_that_are_not_ignored() -> None:
    scores = torch.zeros(1, 4, 2, 2)
    labels = torch.tensor([[[0, 1], [IGNORE, 3]]])
    assert cross_entropy(scores, labels, None).item() == pytest.approx(math.log(4))


def test_a_patch_without_a_valid_pixel_costs_nothing_and_is_not_nan() -> None:
    scores = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(scores, torch.full((1, 2, 2), IGNORE), None)
    loss.backward()
    assert loss.item() == 0


def test_consistency_is_zero_where_both_views_agree() -> None:
    surround = torch.randn(2, 3, 8, 8)
    local = torch.stack([surround[0, :, 1:5, 2:6], surround[1, :, 4:8, 0:4]])
    assert consistency(local, surround, torch.tensor([[1, 2], [4, 0]]), LossWeights()).item() == 0


def test_consistency_is_two_where_they_are_sure_of_different_classes() -> None:
    local, surround = torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 8, 8)
    local[:, 0], surround[:, 1] = 100, 100
    assert consistency(local, surround, torch.tensor([[2, 2]]), LossWeights()).item() == pytest.approx(2)


def test_the_total_weighs_its_parts_as_the_paper_does() -> None:
    output = TrainingOutput(torch.randn(1, 3, 4, 4), torch.randn(1, 3, 8, 8), [])
    labels, around = torch.randint(0, 3, (1, 4, 4)), torch.randint(0, 3, (1, 8, 8))
    parts = total_loss(output, labels, around, torch.tensor([[2, 2]]), LossWeights())
    expected = parts["local"] + 0.4 * parts["surround"] + 0.1 * parts["consistency"]
    assert torch.allclose(parts["total"], expected)


def test_the_host_alone_has_the_local_part_only() -> None:
    labels = torch.zeros(1, 4, 4, dtype=torch.int64)
    parts = total_loss(
        TrainingOutput(torch.zeros(1, 3, 4, 4), None, []), labels, labels, torch.zeros(1, 2), LossWeights()
    )
    assert parts.keys() == {"total", "local"}
