"""What becomes of scores: labels and probabilities of a region, the mean taken where tiles overlap.

    F(p) = sum_i w_i(p) f_i(p) / sum_i w_i(p)      f_i: the scores of tile i at pixel p (SGNet section 4.3)

`half`: w = 1. `gaussian`: w falls off with the distance to the tile's centre, sigma = t / 8, and is never less than a
thousandth: the importance map of MONAI's sliding window. A region holds only the rows that the next tile may reach.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box, Tile
from gigamask.job import Overlap
from gigamask.manifest import NO_DATA
from gigamask.plan import Region

Bytes = NDArray[np.uint8]
Scores = NDArray[np.float32]

SIGMA_TILES, LEAST_WEIGHT = 1 / 8, 1e-3
STRIP_PX = 32  # rows of which probabilities are made at a time


def tile_weights(overlap: Overlap, tile_px: int) -> Scores:
    """(t, t): what each pixel of a tile counts for, in (0, 1]."""
    if overlap != "gaussian":
        return np.ones((tile_px, tile_px), np.float32)
    away = np.arange(tile_px) - (tile_px - 1) / 2
    bell = np.exp(-(away**2) / (2 * (SIGMA_TILES * tile_px) ** 2))
    return np.maximum(np.outer(bell, bell), LEAST_WEIGHT).astype(np.float32)


class Canvas:
    """A region as it fills: where no tile was run it is NO_DATA, of probability 0.

    labels: (h, w) of `work`. probabilities: (C, h, w), round(255 p); None unless asked for.
    """

    def __init__(self, work: Box, classes: int | None = None) -> None:
        self._work = work
        self.labels: Bytes = np.full(work.shape, NO_DATA, np.uint8)
        self.probabilities: Bytes | None = None if classes is None else np.zeros((classes, *work.shape), np.uint8)

    def set_labels(self, box: Box, labels: Bytes) -> None:
        self.labels[box.within(self._work).slices] = labels

    def set_scores(self, box: Box, scores: Scores, weights: Scores | None = None) -> None:
        """scores: (C, h, w) of the box; sums, where `weights` (h, w) says by what. Nothing was run where that is 0."""
        at = box.within(self._work).slices
        labels = scores.argmax(axis=0).astype(np.uint8)  # no division by a positive number changes it
        self.labels[at] = labels if weights is None else np.where(weights > 0, labels, NO_DATA)
        if self.probabilities is not None:
            mean: Scores = scores if weights is None else _divide(scores, weights)
            found = softmax(mean)
            self.probabilities[:, *at] = found if weights is None else np.where(weights > 0, found, 0)


def _divide(sums: Scores, weights: Scores) -> Scores:
    """Where nothing was added, 0."""
    mean: Scores = np.divide(sums, np.maximum(weights, LEAST_WEIGHT), dtype=np.float32)
    return mean


def softmax(scores: Scores) -> Bytes:
    """(C, h, w) scores -> round(255 p)"""
    powers = np.exp(scores - scores.max(axis=0))
    powers *= 255 / powers.sum(axis=0)
    found: Bytes = np.rint(powers).astype(np.uint8)
    return found


def blend(
    region: Region, canvas: Canvas, batches: Iterable[tuple[Sequence[Tile], Scores]], weights: Scores, classes: int
) -> None:
    """batches: tiles, row by row, with their scores (B, C, t, t). weights: (t, t)."""
    rows = _Rows(region, canvas, classes)
    for tiles, found in batches:
        for tile, scores in zip(tiles, found, strict=False):
            rows.add(tile, scores, weights)
    rows.finish_above(region.work.y1)


class _Rows:
    """Sums of the rows that tiles may still reach, from row `top` on."""

    def __init__(self, region: Region, canvas: Canvas, classes: int) -> None:
        self._work, self._canvas = region.work, canvas
        held_px = min(max(tile.keep.height for tile in region.tiles), region.work.height)
        self._sums: Scores = np.zeros((classes, held_px, region.work.width), np.float32)
        self._weights: Scores = np.zeros((held_px, region.work.width), np.float32)
        self._top = region.work.y0

    def add(self, tile: Tile, scores: Scores, weights: Scores) -> None:
        if tile.keep.y0 > self._top:
            self.finish_above(tile.keep.y0)
        kept = tile.keep.within(tile.local).slices
        at = tile.keep.within(Box(self._top, self._work.x0, self._top, self._work.x0)).slices
        self._sums[:, *at] += scores[:, *kept] * weights[kept]
        self._weights[at] += weights[kept]

    def finish_above(self, until: int) -> None:
        """Rows above `until` are whole."""
        done = min(until - self._top, len(self._weights))
        for first in range(0, done, STRIP_PX):
            stop = min(first + STRIP_PX, done)
            box = Box(self._top + first, self._work.x0, self._top + stop, self._work.x1)
            self._canvas.set_scores(box, self._sums[:, first:stop], self._weights[first:stop])
        for held in (self._sums, self._weights):
            rest = held[..., done:, :].copy()
            held[...] = 0
            held[..., : rest.shape[-2], :] = rest
        self._top = until
