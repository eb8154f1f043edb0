"""The probabilities behind a mask: an image pyramid of one channel a class, round(255 p), beside the labels.

It lies in `probabilities` of the image's root, an ordinary OME-NGFF image of its own. Regions write it as they write
the mask: one shard a region and level, levels halved by the mean; one writer builds the levels above. What was never
written reads as 0 in every class. Chunks hold one class, so that one can be looked at without the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from gigamask.geometry import Box, level_shape
from gigamask.image_info import ImageInfo
from gigamask.manifest import LabelClass
from gigamask.plan import CHUNK_PX, Plan, Region
from gigamask.pyramid import ngff
from gigamask.pyramid.arrays import Layout, LevelReader, LevelWriter, Pixels, create_level
from gigamask.pyramid.halve import halve_mean

FOLDER = "probabilities"
LARGEST_UPPER_SHARD_PX = 1024  # above the regions' levels: a shard holds all classes, and is built in memory


def probability_folder(zarr_root: Path) -> Path:
    return zarr_root / FOLDER


def probability_layout(plan: Plan, level: int, class_count: int) -> Layout:
    side = plan.shard_px(level)
    if level >= plan.region_levels:
        side = min(side, LARGEST_UPPER_SHARD_PX)
    return Layout(
        shape=(class_count, *level_shape(plan.shape, level)),
        chunk=(1, CHUNK_PX, CHUNK_PX),
        shard=(class_count, side, side),
        axes=ngff.IMAGE_AXES,
        fill=0,
    )


class ProbabilityWriter:
    """Writes into the folder `probability_folder` names. Several processes may each have one, for different regions."""

    def __init__(self, root: Path, plan: Plan, classes: Sequence[LabelClass]) -> None:
        self.root, self.plan, self.classes = root, plan, tuple(classes)
        self._layouts = [probability_layout(plan, k, len(self.classes)) for k in range(plan.levels)]
        self._levels = [LevelWriter(root / str(k), layout) for k, layout in enumerate(self._layouts)]

    def create(self) -> None:
        """Write the arrays' metadata. Raises ValueError where arrays of another plan are there."""
        for level, layout in enumerate(self._layouts):
            create_level(self.root / str(level), layout)

    def write_region(self, region: Region, probabilities: Pixels) -> None:
        """probabilities: (C, h, w) of `region.box`. On the disk when this returns. Again, it writes the same bytes."""
        row, col = divmod(region.index, self.plan.grid[1])
        for level in range(self.plan.region_levels):
            probabilities = halve_classes(probabilities) if level else np.ascontiguousarray(probabilities)
            self._levels[level].write_shard(row, col, probabilities).result()

    def build_upper_levels(self, progress: Callable[[float], None] = lambda fraction: None) -> None:
        """Build what regions do not write. progress: called with the fraction done, in [0, 1]."""
        upper = range(self.plan.region_levels, self.plan.levels)
        shards = [(level, row, col) for level in upper for row, col in self._shards(level)]
        for done, (level, row, col) in enumerate(shards, start=1):
            self._levels[level].write_shard(row, col, self._halve_below(level, row, col)).result()
            progress(done / len(shards))

    def _shards(self, level: int) -> list[tuple[int, int]]:
        layout = self._layouts[level]
        rows, cols = (n // side for n, side in zip(layout.padded[1:], layout.shard[1:], strict=True))
        return [(row, col) for row in range(rows) for col in range(cols)]

    def _halve_below(self, level: int, row: int, col: int) -> Pixels:
        """The probabilities of one shard, (C, h, w), class by class."""
        side, below = self._layouts[level].shard[1], LevelReader(self.root / str(level - 1))
        shard = Box(row * side, col * side, (row + 1) * side, (col + 1) * side).clip(
            level_shape(self.plan.shape, level)
        )
        whole = level_shape(self.plan.shape, level - 1)
        source = Box(2 * shard.y0, 2 * shard.x0, 2 * shard.y1, 2 * shard.x1).clip(whole)
        found = np.empty((len(self.classes), *shard.shape), np.uint8)
        for k in range(len(self.classes)):
            found[k] = halve_mean(below.read((slice(k, k + 1), *source.slices)))[0]
        return found

    def attributes(self, info: ImageInfo, provenance: ngff.Attributes) -> ngff.Attributes:
        """Of the group, for `ngff.write_group`. provenance: what made them, as of the labels."""
        found = ngff.image_attributes(info, self.plan.levels, FOLDER, provenance)
        multiscale = found["ome"]["multiscales"][0]
        multiscale["metadata"] = {"method": "mean", "description": "mean of 2 x 2 pixels, rounded half up"}
        found["ome"]["omero"] = {"channels": [_channel(c) for c in self.classes], "rdefs": {"model": "color"}}
        own = {key: value for key, value in found["gigamask"].items() if key != "image"}
        return found | {"gigamask": own | {"value": "probability of the class times 255, rounded; 0 in all: no data"}}


def _channel(entry: LabelClass) -> ngff.Attributes:
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    return {"label": entry.name, "color": entry.color[1:].upper(), "active": True, "window": window}


def halve_classes(probabilities: Pixels) -> Pixels:
    """(C, h, w) -> (C, ceil(h / 2), ceil(w / 2)). One by one: of four channels, `halve_mean` takes one for validity."""
    return np.concatenate([halve_mean(plane[None]) for plane in probabilities])


class ProbabilityPyramid:
    """A finished pyramid, opened once for many reads. Safe to read from several threads."""

    def __init__(self, root: Path) -> None:
        """root: its own folder. Raises FileNotFoundError where there is none, or none finished."""
        attributes = ngff.read_attributes(root)["ome"]
        self.root, self.levels = root, len(attributes["multiscales"][0]["datasets"])
        self.names = tuple(str(channel["label"]) for channel in attributes["omero"]["channels"])
        self._readers = [LevelReader(root / str(level)) for level in range(self.levels)]

    def read(self, box: Box, level: int = 0, first: int = 0, stop: int | None = None) -> Pixels:
        """box: in pixels of `level`. (C, h, w), of the classes [first, stop). Raises IndexError outside of either."""
        last = len(self.names) if stop is None else stop
        return self._readers[level].read((slice(first, last), *box.slices))
