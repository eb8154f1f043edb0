"""Fragmentation as numbers: what cutting a picture into tiles does to its labels, shown by the paper in pictures only.

A *border* is a line between two cells of the tile grid; the picture's own edges are none. Three measures:

    disagreement  share of pixels whose label differs when the whole grid is moved by half a tile
    excess        (label changes per pair of neighbours across borders) / (per pair anywhere else) - 1
    band          the confusion of the pixels in a band along borders, tile / 16 wide (32 px of 512), half on each side

A truth knows no tiles: its own excess is what chance and content give on that grid, and stands beside the prediction's.
All are counts of pixels that add up: pictures come in strips, one row of regions at a time. Labels are 255 where
nothing counts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box, tile_over
from gigamask.plan import Plan, Region
from model.data.pictures import IGNORE
from model.metrics import Bytes, Counts, mean_iou

BAND_SHARE = 16  # a band is tile_px / 16 wide


@dataclass(slots=True)
class SeamCounts:
    """Of a whole split. prediction, truth: (2, 2) as LabelChanges counts. inside, outside: (K, K) confusions of the
    band and of the rest. compared, differing: pixels under both grids."""

    classes: int
    prediction: Counts = field(default_factory=lambda: np.zeros((2, 2), np.int64))
    truth: Counts = field(default_factory=lambda: np.zeros((2, 2), np.int64))
    inside: Counts = field(init=False)
    outside: Counts = field(init=False)
    compared: int = 0
    differing: int = 0

    def __post_init__(self) -> None:
        self.inside, self.outside = np.zeros((2, self.classes, self.classes), np.int64)

    def compare(self, labels: Bytes, shifted: Bytes) -> None:
        """The same pixels under both grids; 255 in `labels` where nothing counts."""
        valid = labels != IGNORE
        self.compared += int(valid.sum())
        self.differing += int((valid & (labels != shifted)).sum())

    def scores(self) -> SeamScores:
        return SeamScores(
            disagreement=self.differing / self.compared if self.compared else math.nan,
            excess=excess(self.prediction),
            truth_excess=excess(self.truth),
            band_miou=mean_iou(self.inside),
            elsewhere_miou=mean_iou(self.outside),
        )


@dataclass(frozen=True, slots=True)
class SeamScores:
    """nan where nothing could be compared (a picture of one tile has no border). elsewhere_miou: outside the band."""

    disagreement: float
    excess: float
    truth_excess: float
    band_miou: float
    elsewhere_miou: float


def excess(changes: Counts) -> float:
    """changes: (2, 2), as LabelChanges counts. 0: borders are like any other line; 1: twice the changes."""
    (pairs, changed), (border_pairs, border_changed) = changes.tolist()
    if not (border_pairs and changed):
        return math.nan
    return float((border_changed / border_pairs) / (changed / pairs) - 1)


class LabelChanges:
    """Neighbouring pixels of one picture with different labels, each pair counted once, also across strips.

    counts: (2, 2) int64, [elsewhere, across a border] x [pairs, those that differ].
    """

    def __init__(self, tile_px: int) -> None:
        self.counts: Counts = np.zeros((2, 2), np.int64)
        self._tile_px = tile_px
        self._last: Bytes | None = None  # (1, W): the row above the next strip

    def add(self, y0: int, strip: Bytes) -> None:
        """strip: (h, W) labels of the rows from y0 on. Strips come from top to bottom, without a gap."""
        height, width = strip.shape
        if self._last is not None:
            self._count(self._last, strip[:1], np.array([y0]), axis=1)
        self._count(strip[:-1], strip[1:], y0 + np.arange(1, height), axis=1)
        self._count(strip[:, :-1], strip[:, 1:], np.arange(1, width), axis=0)
        self._last = strip[-1:].copy()

    def _count(self, before: Bytes, after: Bytes, lines: NDArray[np.int64], axis: int) -> None:
        """lines: the coordinate of `after` on the axis that is crossed."""
        both = (before != IGNORE) & (after != IGNORE)
        pairs, changed = both.sum(axis=axis), (both & (before != after)).sum(axis=axis)
        at_border = lines % self._tile_px == 0
        for row, lined in enumerate((~at_border, at_border)):
            self.counts[row] += (pairs[lined].sum(), changed[lined].sum())


def band(box: Box, shape: tuple[int, int], tile_px: int) -> NDArray[np.bool_]:
    """(box.height, box.width): the pixels near a border of a picture of that shape."""
    rows = _near_border(np.arange(box.y0, box.y1), shape[0], tile_px)
    columns = _near_border(np.arange(box.x0, box.x1), shape[1], tile_px)
    return rows[:, None] | columns


def _near_border(positions: NDArray[np.int64], total: int, tile_px: int) -> NDArray[np.bool_]:
    width = tile_px // BAND_SHARE
    line, beyond = np.divmod(positions + width // 2, tile_px)  # the grid line at or before the band that may hold it
    near: NDArray[np.bool_] = (beyond < width) & (line > 0) & (line * tile_px < total)
    return near


class LabelRows:
    """Full rows of labels: appended at the bottom, dropped from the top."""

    def __init__(self, width: int) -> None:
        self._top = 0
        self._rows: Bytes = np.empty((0, width), np.uint8)

    @property
    def bottom(self) -> int:
        return self._top + len(self._rows)

    def append(self, rows: Bytes) -> None:
        self._rows = np.concatenate([self._rows, rows])

    def read(self, box: Box) -> Bytes:
        """Raises IndexError for rows that are not there (yet, or any more)."""
        if box.y0 < self._top or box.y1 > self.bottom:
            raise IndexError(f"rows {self._top} to {self.bottom} are here, not {box.y0} to {box.y1}")
        return self._rows[box.y0 - self._top : box.y1 - self._top, box.x0 : box.x1]

    def drop_above(self, y: int) -> None:
        gone = max(0, min(y, self.bottom) - self._top)
        self._rows, self._top = self._rows[gone:].copy(), self._top + gone


class MovedGrid:
    """The grid moved by half a tile down and right, beside the labels that one picture has under its own grid."""

    def __init__(self, plan: Plan) -> None:
        self._regions = regions_from(plan, plan.tile_px // 2)
        self._next = next(self._regions, None)
        self._kept = LabelRows(plan.shape[1])

    def add(self, strip: Bytes) -> Iterator[tuple[Region, Bytes]]:
        """strip: (h, W), the next rows. Yields the moved regions whose rows are all there, with the labels in them."""
        self._kept.append(strip)
        while self._next is not None and self._next.box.y1 <= self._kept.bottom:
            yield self._next, self._kept.read(self._next.box)
            self._next = next(self._regions, None)
        self._kept.drop_above(self._next.box.y0 if self._next else self._kept.bottom)


def regions_from(plan: Plan, origin_px: int) -> Iterator[Region]:
    """The regions of a grid that starts `origin_px` down and right; what lies above and left of it is in none.

    Their tiles read all that really lies around them, also from beyond the grid. With origin 0: those of the plan.
    """
    shape = plan.shape[0] - origin_px, plan.shape[1] - origin_px
    if min(shape) < 1:
        return
    for region in replace(plan, shape=shape).regions():
        box = _moved(region.box, origin_px)
        locals_ = (_moved(tile.local, origin_px) for tile in region.tiles)
        whole = (tile_over(box.y0, box.x0, plan.shape, plan.tile_px, plan.alpha) for box in locals_)
        kept = (_moved(tile.keep, origin_px) for tile in region.tiles)
        tiles = tuple(replace(tile, keep=keep) for tile, keep in zip(whole, kept, strict=True))
        yield Region(region.index, box, box, plan.window(box, tiles), tiles, plan.overlap)


def _moved(box: Box, by_px: int) -> Box:
    return Box(box.y0 + by_px, box.x0 + by_px, box.y1 + by_px, box.x1 + by_px)
