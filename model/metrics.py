"""How well labels agree with the truth: counts that add up over regions and pictures, and what is read from them.

Class ids are 0..K-1; where the truth is 255 nothing counts. One (K, K) int64 matrix holds a whole split, so the scores
are those of all its pixels together, not a mean over pictures.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from model.data.pictures import IGNORE

Bytes = NDArray[np.uint8]
Counts = NDArray[np.int64]


def confusion(truth: Bytes, labels: Bytes, classes: int) -> Counts:
    """(K, K) pixel counts, [true, predicted]. Raises ValueError for an id that is no class."""
    valid = truth != IGNORE
    known, predicted = truth[valid], labels[valid]
    check_ids(known, classes, "the truth")
    check_ids(predicted, classes, "the prediction")
    pairs = known.astype(np.int64) * classes + predicted
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def check_ids(ids: Bytes, classes: int, whose: str) -> None:
    """Raises ValueError for an id outside 0..classes-1, the ignored 255 included."""
    found = int(ids.max(initial=0))
    if found >= classes:
        raise ValueError(f"{whose}: label {found}, expected ids from 0 to {classes - 1}")


def iou(matrix: Counts) -> NDArray[np.float64]:
    """(K,) |true and predicted| / |true or predicted|; nan for a class that is neither there nor predicted."""
    hits = np.diag(matrix).astype(np.float64)
    union = matrix.sum(axis=0) + matrix.sum(axis=1) - hits
    scores: NDArray[np.float64] = np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)
    return scores


def mean_iou(matrix: Counts) -> float:
    """Over the classes that occur, in the truth or in the prediction; nan where none does."""
    scores = iou(matrix)
    found = scores[~np.isnan(scores)]
    return float(found.mean()) if len(found) else math.nan
