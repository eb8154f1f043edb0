"""Eqs. 6 and 7 against figures worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from model.data.pictures import IGNORE
from model.losses import LossWeights, consistency, cross_entropy, total_loss
from model.sgnet import TrainingOutput


def test_cross_entropy_is_the_mean_over_pixels_that_are_not_ignored() -> None:
    scores = torch.zeros(1, 4, 2, 2)
    labels = torch.tensor([[[0, 1], [IGNORE, 3]]])
    assert cross_entropy(scores, labels, None).item() == pytest.approx(math.log(4))


def test_a_patch_without_a_valid_pixel_costs_nothing_and_is_not_nan() -> None:
    scores = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(scores, torch.full((1, 2, 2), IGNORE), None)
    loss.backward()  # type: ignore[no-untyped-call]
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


def test_consistency_between_scores_or_as_a_mean_follows_its_formula() -> None:
    local, surround = torch.zeros(1, 4, 4, 4), torch.zeros(1, 4, 8, 8)
    surround[:, 0] = 3
    at = torch.tensor([[2, 2]])
    by_sum = consistency(local, surround, at, LossWeights(consistency_of="scores"))
    assert by_sum.item() == pytest.approx(3)
    by_mean = LossWeights(consistency_of="scores", consistency_over_classes="mean")
    assert consistency(local, surround, at, by_mean).item() == pytest.approx(3 / 4)


def test_the_hosts_own_heads_count_with_the_weight_that_each_brings() -> None:
    labels = torch.randint(0, 3, (1, 4, 4))
    head = torch.randn(1, 3, 4, 4)
    output = TrainingOutput(torch.randn(1, 3, 4, 4), None, [(head, 0.4), (2 * head, 0.1)])
    parts = total_loss(output, labels, labels, torch.zeros(1, 2), LossWeights(host=0.5))
    expected = 0.4 * cross_entropy(head, labels, None) + 0.1 * cross_entropy(2 * head, labels, None)
    assert torch.allclose(parts["host"], expected)
    assert torch.allclose(parts["total"], parts["local"] + 0.5 * expected)


def test_classes_weigh_as_the_recipe_says() -> None:
    """Weighted as torch weighs: by the classes of the pixels, over the sum of their weights."""
    scores, labels = torch.zeros(1, 2, 1, 2), torch.tensor([[[0, 1]]])
    scores[0, 0] = 2
    sure, wrong = math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))
    loss = cross_entropy(scores, labels, torch.tensor([1.0, 3.0]))
    assert loss.item() == pytest.approx((sure + 3 * wrong) / 4)
