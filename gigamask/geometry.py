"""Boxes on a pixel grid, and what a tile reads and keeps.

Coordinates are (y, x), half-open, in level-0 pixels. Level k of an image of n pixels a side has ceil(n / 2**k).
A *working pixel* w is what a model sees as one: the level-0 pixels [w * scale, (w + 1) * scale).

A tile *keeps* one cell of a grid anchored at the image's origin; the kept cells cover the image exactly once.
It *reads* more: a `local` window of the network's input size, and a `surround` alpha times as wide with the same
centre (SGNet, section 3.2). Both are shifted into the image at its borders, as training samples them
(the random centre of section 3.2 puts the local patch anywhere inside its surround).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, floor


@dataclass(frozen=True, slots=True, order=True)
class Box:
    """[y0, y1) x [x0, x1)"""

    y0: int
    x0: int
    y1: int
    x1: int

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def within(self, outer: Box) -> Box:
        """This box in the frame whose origin is `outer`'s."""
        return Box(self.y0 - outer.y0, self.x0 - outer.x0, self.y1 - outer.y0, self.x1 - outer.x0)

    def clip(self, shape: tuple[int, int]) -> Box:
        """The part inside an image of this (height, width)."""
        h, w = shape
        return Box(min(max(self.y0, 0), h), min(max(self.x0, 0), w), min(max(self.y1, 0), h), min(max(self.x1, 0), w))

    def grow(self, px: int) -> Box:
        """By so many pixels on every side; may leave the image."""
        return Box(self.y0 - px, self.x0 - px, self.y1 + px, self.x1 + px)

    def snap(self, px: int) -> Box:
        """Outwards, to multiples of px from the image's origin."""
        return Box(self.y0 // px * px, self.x0 // px * px, -(-self.y1 // px) * px, -(-self.x1 // px) * px)

    def intersect(self, other: Box) -> Box:
        """Empty (and meaningless) where they do not meet."""
        return Box(max(self.y0, other.y0), max(self.x0, other.x0), min(self.y1, other.y1), min(self.x1, other.x1))

    def union(self, other: Box) -> Box:
        return Box(min(self.y0, other.y0), min(self.x0, other.x0), max(self.y1, other.y1), max(self.x1, other.x1))


@dataclass(frozen=True, slots=True)
class Tile:
    """One prediction: `keep` is written; `local` and `surround` are what the network sees.

    local: (t, t); surround: (alpha t, alpha t). They overrun the image (bottom, right) only where it is smaller.
    """

    keep: Box
    local: Box
    surround: Box


def tile_at(row: int, col: int, shape: tuple[int, int], tile_px: int, alpha: int) -> Tile:
    """The tile of grid cell (row, col) in an image of (height, width)."""
    return tile_over(row * tile_px, col * tile_px, shape, tile_px, alpha)


def tile_over(y: int, x: int, shape: tuple[int, int], tile_px: int, alpha: int) -> Tile:
    """The tile that keeps the cell with its corner at (y, x), on whatever grid."""
    t, s = tile_px, tile_px * alpha
    keep = Box(y, x, y + t, x + t).clip(shape)
    ly, lx = shift_into(y, t, shape[0]), shift_into(x, t, shape[1])
    margin = (s - t) // 2
    sy, sx = shift_into(ly - margin, s, shape[0]), shift_into(lx - margin, s, shape[1])
    return Tile(keep, Box(ly, lx, ly + t, lx + t), Box(sy, sx, sy + s, sx + s))


def shift_into(start: int, length: int, total: int) -> int:
    """Move [start, start + length) the least that puts it inside [0, total); 0 where it cannot fit."""
    return max(0, min(start, total - length))


def level_shape(shape: tuple[int, int], level: int) -> tuple[int, int]:
    """(ceil(height / 2**level), ceil(width / 2**level))"""
    return -(-shape[0] >> level), -(-shape[1] >> level)


def level_count(shape: tuple[int, int], smallest_px: int = 256) -> int:
    """Levels until the longer side is at most `smallest_px`; at least 1."""
    count = 1
    while max(level_shape(shape, count - 1)) > smallest_px:
        count += 1
    return count


def scaled_shape(shape: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) in working pixels; where scale is 2**k, that of level k."""
    height, width = (max(1, ceil(side / scale - 1e-6)) for side in shape)
    return height, width


def scaled_box(box: Box, scale: float) -> Box:
    """The working pixels that are nearest to a pixel of the level-0 box: those that its pixel centres lie in."""
    if scale == 1:
        return box
    first = (floor((start + 0.5) / scale) for start in (box.y0, box.x0))
    last = (floor((stop - 0.5) / scale) + 1 for stop in (box.y1, box.x1))
    return Box(*first, *last)
