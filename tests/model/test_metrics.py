from __future__ import annotations

import numpy as np
import pytest

from model.metrics import confusion, iou, mean_iou


def test_iou_of_a_case_worked_by_hand() -> None:
    truth = np.array([0, 0, 0, 1, 1, 255], np.uint8)
    labels = np.array([0, 0, 1, 1, 0, 1], np.uint8)
    matrix = confusion(truth, labels, 3)
    assert matrix.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert iou(matrix)[:2] == pytest.approx([2 / 4, 1 / 3])
    assert np.isnan(iou(matrix)[2])


def test_the_mean_is_over_classes_that_occur_a_false_alarm_included() -> None:
    assert mean_iou(np.array([[2, 1, 0], [1, 1, 0], [0, 0, 0]])) == pytest.approx((2 / 4 + 1 / 3) / 2)
    assert mean_iou(np.array([[2, 0, 1], [0, 0, 0], [0, 0, 0]])) == pytest.approx((2 / 3 + 0) / 2)
    assert np.isnan(mean_iou(np.zeros((3, 3), np.int64)))


def test_counts_of_parts_add_up_to_those_of_the_whole() -> None:
    rng = np.random.default_rng(5)
    truth, labels = rng.integers(0, 4, (2, 50, 40)).astype(np.uint8)
    truth[rng.random((50, 40)) < 0.2] = 255
    parts = confusion(truth[:17], labels[:17], 4) + confusion(truth[17:], labels[17:], 4)
    assert np.array_equal(parts, confusion(truth, labels, 4))
    assert parts.sum() == (truth != 255).sum()


@pytest.mark.parametrize(
    ("truth", "labels", "told"),
    [
        ([0, 3], [0, 0], r"the truth: label 3, expected ids from 0 to 2"),
        ([0, 1], [0, 5], r"the prediction: label 5, expected ids from 0 to 2"),
        ([0, 1], [0, 255], r"the prediction: label 255, expected ids from 0 to 2"),
    ],
)
def test_an_id_that_is_no_class_is_refused(truth: list[int], labels: list[int], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        confusion(np.array(truth, np.uint8), np.array(labels, np.uint8), 3)
