"""An image at a model's resolution: a level of its pyramid, resampled where none fits; and labels brought back.

Working pixel w covers the level-0 pixels [w * scale, (w + 1) * scale). It is read from level k = floor(log2 scale), by
bilinear interpolation at its centre, (w + 1/2) * scale / 2^k - 1/2 in pixels of that level: a position on the image,
not in a window, computed in whole numbers from there on. So a working pixel is the same whichever window it is read in.
Where scale is 2^k, the level is taken as it is. A level-0 pixel takes the label of the working pixel that its centre
lies in.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log2

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box, level_shape
from gigamask.plan import Region
from gigamask.pyramid.arrays import Pixels
from gigamask.pyramid.image import ImagePyramid

ONE = 256  # a weight of 1
STRIP_PX = 256  # rows interpolated at a time: 32-bit intermediates of some MiB

Indices = NDArray[np.int64]


def source_level(scale: float, levels: int) -> int:
    """The coarsest level that is no coarser than a working pixel."""
    return min(max(0, floor(log2(scale))), levels - 1)


def read_working(image: ImagePyramid, window: Box, scale: float) -> Pixels:
    """window: in working pixels, inside the image. (C, h, w)."""
    level = source_level(scale, image.levels)
    step = scale / 2**level
    if step == 1:
        return image.read(window, level)
    height, width = level_shape(image.info.shape, level)
    rows, cols = taps(window.y0, window.y1, step, height), taps(window.x0, window.x1, step, width)
    source = Box(rows.start, cols.start, rows.stop, cols.stop)
    return interpolate(image.read(source, level), rows, cols)


@dataclass(frozen=True, slots=True)
class Taps:
    """Along one axis: what each pixel is made of, `(ONE - weight) * low + weight * high`.

    low, high: (n,), from `start`, the first that is read; the last is `stop` - 1. weight: (n,) in [0, ONE].
    """

    start: int
    stop: int
    low: Indices
    high: Indices
    weight: NDArray[np.uint32]


def taps(first: int, end: int, step: float, total: int) -> Taps:
    """Of pixels [first, end), each `step` source pixels wide, in a source of `total`; beyond it, its last one again."""
    centers = (np.arange(first, end) + 0.5) * step - 0.5
    below = np.floor(centers)
    weight = np.rint((centers - below) * ONE).astype(np.uint32)
    low, high = (np.clip(below.astype(np.int64) + n, 0, total - 1) for n in (0, 1))
    start = int(low[0])
    return Taps(start, int(high[-1]) + 1, low - start, high - start, weight)


def interpolate(source: Pixels, rows: Taps, cols: Taps) -> Pixels:
    """(C, H, W) -> (C, h, w), rounded half up."""
    found = np.empty((len(source), len(rows.low), len(cols.low)), np.uint8)
    for y in range(0, len(rows.low), STRIP_PX):
        part = slice(y, y + STRIP_PX)
        weight = rows.weight[part, None]
        strip = source[:, rows.low[part]] * (ONE - weight) + source[:, rows.high[part]] * weight
        left, right = strip[..., cols.low], strip[..., cols.high]
        found[:, part] = (left * (ONE - cols.weight) + right * cols.weight + ONE * ONE // 2) // (ONE * ONE)
    return found


def nearest(first: int, end: int, scale: float) -> Indices:
    """The working pixel of each level-0 pixel in [first, end)."""
    found: Indices = np.floor((np.arange(first, end) + 0.5) / scale).astype(np.int64)
    return found


def spread(plane: Pixels, region: Region, scale: float) -> Pixels:
    """(..., h, w) of region.work -> (..., H, W) of region.box."""
    if scale == 1:
        return plane
    box, work = region.box, region.work
    rows, cols = nearest(box.y0, box.y1, scale) - work.y0, nearest(box.x0, box.x1, scale) - work.x0
    found: Pixels = plane.take(rows, axis=-2).take(cols, axis=-1)
    return found
