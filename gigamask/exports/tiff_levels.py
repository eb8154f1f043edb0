"""The levels of a mask as the pages of one TIFF: tiled, deflated, in the legend's colours, in memory that stays flat.

Labels stay what they are (a pixel's value is its label); the colour map says how they look.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from gigamask.exports.catalog import Progress
from gigamask.geometry import Box, level_shape
from gigamask.legend import Legend

if TYPE_CHECKING:
    from gigamask.pyramid.arrays import Pixels
    from gigamask.pyramid.result import Result

TILE_PX = 512
BLOCK_TILES = 8  # read at a time, along a row: 2 MiB of labels
DEFLATE_LEVEL = 6
REDUCED = 1  # NewSubfileType of a lower resolution (TIFF 6.0, section 8)


def write_levels(
    target: Path, result: Result, legend: Legend, progress: Progress, *, nested: bool, ome: Any = None
) -> None:
    """A BigTIFF, level 0 first. nested: the others are its SubIFDs, else pages after it. ome: metadata of OME-XML."""
    told = _Progress(result, progress)
    others = result.mask.levels - 1
    with tifffile.TiffWriter(target, bigtiff=True, ome=ome is not None) as writer:
        for level in range(result.mask.levels):
            first = {"metadata": ome, "subifds": others if nested else 0} if level == 0 else {"metadata": None}
            writer.write(
                told.watch(read_tiles(result, level)),
                shape=level_shape(result.shape, level),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="palette",
                colormap=colormap(legend),
                compression="zlib",  # tag 8; what tifffile calls deflate is the legacy tag 32946
                compressionargs={"level": DEFLATE_LEVEL},
                subfiletype=REDUCED if level else 0,
                software="gigamask" if level == 0 else False,
                maxworkers=1,
                **first,
                **_resolution(result, level),
            )


def read_tiles(result: Result, level: int) -> Iterator[Pixels]:
    """(h, w) labels, row by row, left to right, TILE_PX a side or what the level's end leaves."""
    for box in read_boxes(level_shape(result.shape, level)):
        block = result.labels(box, level)
        for start in range(0, block.shape[1], TILE_PX):
            yield block[:, start : start + TILE_PX]


def read_boxes(shape: tuple[int, int]) -> Iterator[Box]:
    """Boxes of BLOCK_TILES tiles in a row that cover a level of (height, width), row by row, left to right."""
    for y in range(0, shape[0], TILE_PX):
        for x in range(0, shape[1], TILE_PX * BLOCK_TILES):
            yield Box(y, x, y + TILE_PX, x + TILE_PX * BLOCK_TILES).clip(shape)


def colormap(legend: Legend) -> NDArray[np.uint16]:
    """(3, 256): 257 times a byte is the same shade in 16 bits."""
    return legend.palette()[:, :3].T.astype(np.uint16) * 257


def _resolution(result: Result, level: int) -> dict[str, Any]:
    """Pixels a centimetre, (x, y); nothing where the size of a pixel is not known."""
    size, unit = result.info.pixel_size, result.info.unit
    if size is None or unit is None:
        return {}
    centimetres = {"micrometer": 1e-4, "meter": 100.0}[unit]
    y, x = (1 / (side * centimetres * 2**level) for side in size)
    return {"resolution": (x, y), "resolutionunit": "CENTIMETER"}


class _Progress:
    """Counts tiles over all levels."""

    def __init__(self, result: Result, progress: Progress) -> None:
        shapes = [level_shape(result.shape, k) for k in range(result.mask.levels)]
        self._total = sum(-(-height // TILE_PX) * -(-width // TILE_PX) for height, width in shapes)
        self._done, self._progress = 0, progress

    def watch(self, tiles: Iterator[Pixels]) -> Iterator[Pixels]:
        for tile in tiles:
            yield tile
            self._done += 1
            self._progress(self._done / self._total)
