"""How well labels agree with the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IGNORE = 255


def confusion(truth: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> NDArray[np.int64]:
    """(K, K) pixel counts, [true, predicted]; where the truth is 255 nothing counts."""
    valid = truth != IGNORE
    pairs = truth[valid].astype(np.int64) * classes + labels[valid]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def iou(matrix: NDArray[np.int64]) -> NDArray[np.float64]:
    """(K,) intersection over union; nan for a class that is neither there nor predicted."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    scores: NDArray[np.float64] = np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
    return scores
