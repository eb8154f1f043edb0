"""The mask's pyramid: labels, one shard a region, so that no two writers ever meet in one file.

A mask lies in `labels/<model name>` of its image's root. A region writes its shards of the levels down to one chunk;
above, one writer builds each level from the one below. Regions never written read as NO_DATA. Where small objects are
to be taken away, regions write into `raw/<model name>` of the unfinished tree, and assembling makes the mask of that.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from gigamask.geometry import Box, level_shape
from gigamask.job import JobOptions
from gigamask.manifest import NO_DATA
from gigamask.plan import CHUNK_PX, Plan, Region
from gigamask.pyramid.arrays import Layout, LevelReader, LevelWriter, Pixels, create_level
from gigamask.pyramid.halve import halve_mode
from gigamask.pyramid.ngff import LABEL_AXES

RAW = "raw"

# Upper levels are halved in squares of this many pixels of the result: a few MiB, whatever a shard holds.
STEP_PX = 1024


def mask_folder(zarr_root: Path, model_name: str) -> Path:
    return zarr_root / "labels" / model_name


def region_folder(zarr_root: Path, model_name: str, options: JobOptions) -> Path:
    """Where regions write: the mask itself, or beside it what small objects are still to be taken from."""
    return zarr_root / RAW / model_name if options.min_object_px else mask_folder(zarr_root, model_name)


def region_writer(zarr_root: Path, model_name: str, plan: Plan, options: JobOptions) -> MaskWriter:
    """Of the folder that `region_folder` names; the levels that regions do not write are the mask's alone."""
    levels = plan.region_levels if options.min_object_px else None
    return MaskWriter(region_folder(zarr_root, model_name, options), plan, levels)


def mask_layout(plan: Plan, level: int) -> Layout:
    side = plan.shard_px(level)
    return Layout(level_shape(plan.shape, level), (CHUNK_PX, CHUNK_PX), (side, side), LABEL_AXES, NO_DATA)


class MaskWriter:
    """Writes into the folder `mask_folder` names. Several processes may each have one, for different regions."""

    def __init__(self, root: Path, plan: Plan, levels: int | None = None) -> None:
        """levels: how many there are; None = all of the plan's."""
        self.root, self.plan = root, plan
        count = plan.levels if levels is None else levels
        self._levels = [LevelWriter(root / str(k), mask_layout(plan, k)) for k in range(count)]

    def create(self) -> None:
        """Write the arrays' metadata. Raises ValueError where arrays of another plan are there."""
        for level in range(len(self._levels)):
            create_level(self.root / str(level), mask_layout(self.plan, level))

    def write_region(self, region: Region, labels: Pixels) -> None:
        """labels: (h, w) of `region.box`. On the disk when this returns. Doing it again rewrites the same bytes."""
        row, col = divmod(region.index, self.plan.grid[1])
        writes = []
        for level in range(self.plan.region_levels):
            labels = halve_mode(labels) if level else np.ascontiguousarray(labels)
            writes.append(self._levels[level].write_shard(row, col, labels))
        for write in writes:
            write.result()

    def build_upper_levels(self, progress: Callable[[float], None] = lambda fraction: None) -> None:
        """Build what regions do not write. progress: called with the fraction done, in [0, 1]."""
        shards = [
            (level, row, col)
            for level in range(self.plan.region_levels, self.plan.levels)
            for row, col in _shard_grid(mask_layout(self.plan, level))
        ]
        for done, (level, row, col) in enumerate(shards, start=1):
            labels = self._halve_below(level, row, col)
            self._levels[level].write_shard(row, col, labels).result()
            progress(done / len(shards))

    def _halve_below(self, level: int, row: int, col: int) -> Pixels:
        """The labels of one shard, (h, w)."""
        side, shape = self.plan.shard_px(level), level_shape(self.plan.shape, level)
        below, shape_below = LevelReader(self.root / str(level - 1)), level_shape(self.plan.shape, level - 1)
        shard = Box(row * side, col * side, (row + 1) * side, (col + 1) * side).clip(shape)
        labels = np.empty(shard.shape, np.uint8)
        for y in range(shard.y0, shard.y1, STEP_PX):
            for x in range(shard.x0, shard.x1, STEP_PX):
                step = Box(y, x, min(y + STEP_PX, shard.y1), min(x + STEP_PX, shard.x1))
                source = Box(2 * y, 2 * x, 2 * step.y1, 2 * step.x1).clip(shape_below)
                labels[step.within(shard).slices] = halve_mode(below.read(source.slices))
        return labels


def _shard_grid(layout: Layout) -> list[tuple[int, int]]:
    rows, cols = (n // side for n, side in zip(layout.padded, layout.shard, strict=True))
    return [(row, col) for row in range(rows) for col in range(cols)]


def read_mask(root: Path, box: Box, level: int = 0) -> Pixels:
    """root: the mask's own folder. box: in pixels of `level`. (h, w) labels.

    Raises FileNotFoundError where there is no such mask or level, IndexError where the box leaves the level.
    """
    return LevelReader(root / str(level)).read(box.slices)


class MaskPyramid:
    """A mask, opened once for many reads. Safe to read from several threads."""

    def __init__(self, root: Path, levels: int) -> None:
        """root: the mask's own folder. Raises FileNotFoundError where a level is not there."""
        self.root, self.levels = root, levels
        self._readers = [LevelReader(root / str(level)) for level in range(levels)]

    def read(self, box: Box, level: int = 0) -> Pixels:
        """box: in pixels of `level`. (h, w). Raises IndexError where it leaves the level."""
        return self._readers[level].read(box.slices)
