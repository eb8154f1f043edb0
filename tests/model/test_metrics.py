from __future__ import annotations

import numpy as np
import pytest

from model.metrics import confusion, iou


def test_iou_of_a_case_worked_by_hand() -> None:
    truth = np.array([0, 0, 0, 1, 1, 255], np.uint8)
    labels = np.array([0, 0, 1, 1, 0, 1], np.uint8)
    matrix = confusion(truth, labels, 3)
    assert matrix.tolist() == [[2, 1, 0], [1, 1, 0], [0, 0, 0]]
    assert iou(matrix)[:2] == pytest.approx([2 / 4, 1 / 3])
    assert np.isnan(iou(matrix)[2])
