"""A mask while it is made: what the regions have written so far, at every level.

A region writes only its own levels, down to one chunk; the levels above are built when all are done. Until then they
are halved here from the regions' last level, as assembling will halve them (gigamask.pyramid.mask), so a pixel shown
early is the pixel that stays. A tile over many regions is cut from an overview, a small picture of the whole mask
to which each region is added once. Regions that are not done read as no data.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gigamask.geometry import Box, level_count, level_shape
from gigamask.manifest import NO_DATA
from gigamask.plan import CHUNK_PX
from gigamask.pyramid.arrays import Pixels
from gigamask.pyramid.halve import halve_mode
from gigamask.pyramid.mask import MaskPyramid
from gigamask.tiles.grids import Shape

MOST_CELLS = 256  # regions that are read for one tile: a quarter of a second at most
OVERVIEW_PX = 2048
REFRESH_S = 0.5
REFRESH_SHARE = 10  # an overview that takes long to look for new regions looks for them less often
BUDGET_S = 0.25

Cell = tuple[int, int]


class LiveMask:
    """A layer (gigamask.tiles.layers) over the unfinished mask in `folder`. Safe to read from several threads."""

    def __init__(self, folder: Path, shape: Shape, region_px: int) -> None:
        """Raises FileNotFoundError where nothing has been begun."""
        self.shape = shape
        own = min(level_count(shape), (region_px // CHUNK_PX).bit_length())
        self._last = own - 1
        self._pyramid = MaskPyramid(folder, own)
        self._cell_px = region_px >> self._last
        self._top = self._last + self._cell_px.bit_length() - 1
        overview = min(max(level_count(shape, OVERVIEW_PX) - 1, self._last), self._top)
        self._overview = _Overview(self, overview, folder / str(self._last) / "c")

    def read(self, box: Box, level: int) -> Pixels:
        """(h, w)"""
        if level <= self._last:
            return self._pyramid.read(box, level)
        if level > self._top:
            return self._halved(box, level)
        cells = list(self._cells(box, level))
        if len(cells) > MOST_CELLS:
            return self._overview.read(box, level)
        labels = np.full(box.shape, NO_DATA, np.uint8)
        for cell in cells:
            paste(labels, box, *self.halved_cell(cell, level))
        return labels

    def _halved(self, box: Box, level: int) -> Pixels:
        """Where a region is less than a pixel: from the level where it is one."""
        steps = level - self._top
        source = Box(box.y0 << steps, box.x0 << steps, box.y1 << steps, box.x1 << steps)
        labels = self.read(source.clip(level_shape(self.shape, self._top)), self._top)
        for _ in range(steps):
            labels = halve_mode(labels)
        return labels

    def _cells(self, box: Box, level: int) -> Iterator[Cell]:
        """Regions, by (row, column), of which `box` shows something."""
        steps = level - self._last
        rows, cols = (-(-n // self._cell_px) for n in level_shape(self.shape, self._last))
        for row in range((box.y0 << steps) // self._cell_px, min(rows, -(-(box.y1 << steps) // self._cell_px))):
            for col in range((box.x0 << steps) // self._cell_px, min(cols, -(-(box.x1 << steps) // self._cell_px))):
                yield row, col

    def halved_cell(self, cell: Cell, level: int) -> tuple[Box, Pixels]:
        """A region's labels at a level above its own: where, in pixels of that level, and which."""
        side, steps = self._cell_px, level - self._last
        y, x = cell[0] * side, cell[1] * side
        box = Box(y, x, y + side, x + side).clip(level_shape(self.shape, self._last))
        labels = self._pyramid.read(box, self._last)
        for _ in range(steps):
            labels = halve_mode(labels)
        height, width = labels.shape
        return Box(y >> steps, x >> steps, (y >> steps) + height, (x >> steps) + width), labels


def paste(target: Pixels, frame: Box, box: Box, labels: Pixels) -> None:
    """frame: where `target` lies; of `labels`, which lie in `box`, what meets it is written."""
    common = frame.intersect(box)
    if common.height > 0 and common.width > 0:
        target[common.within(frame).slices] = labels[common.within(box).slices]


class _Overview:
    """The whole mask at one level, above the regions' own, where no side is longer than OVERVIEW_PX (4 MiB at most)."""

    def __init__(self, mask: LiveMask, level: int, shards: Path) -> None:
        """shards: folder of the regions' last level, `<row>/<column>` each."""
        self._mask, self._shards = mask, shards
        self._level = level
        self._labels: Pixels | None = None
        self._known: set[Cell] = set()
        self._next_look = 0.0
        self._lock = threading.Lock()

    def read(self, box: Box, level: int) -> Pixels:
        with self._lock:
            if time.monotonic() >= self._next_look:
                self._look()
            labels = self._labels
            assert labels is not None
            if level < self._level:
                return _spread(labels, box, self._level - level)
            for _ in range(level - self._level):
                labels = halve_mode(labels)
            return labels[box.slices].copy()

    def _look(self) -> None:
        """Add regions that were written since, for a while."""
        started = time.monotonic()
        if self._labels is None:
            self._labels = np.full(level_shape(self._mask.shape, self._level), NO_DATA, np.uint8)
        frame = Box(0, 0, *self._labels.shape)
        new = _written(self._shards) - self._known
        looked_s = time.monotonic() - started
        for cell in new:
            paste(self._labels, frame, *self._mask.halved_cell(cell, self._level))
            self._known.add(cell)
            if time.monotonic() > started + looked_s + BUDGET_S:
                break
        self._next_look = time.monotonic() + max(REFRESH_S, REFRESH_SHARE * looked_s)


def _written(shards: Path) -> set[Cell]:
    """Files that are being written have other names, until they are whole."""
    names = (path.relative_to(shards).parts for path in shards.glob("*/*"))
    return {(int(row), int(col)) for row, col in names if row.isdigit() and col.isdigit()}


def _spread(labels: Pixels, box: Box, steps: int) -> Pixels:
    """Each pixel 2**steps times as wide: coarser than what was asked for, where the real thing would take seconds."""
    rows, cols = np.arange(box.y0, box.y1) >> steps, np.arange(box.x0, box.x1) >> steps
    spread: Pixels = labels[np.ix_(rows, cols)]
    return spread
