"""Which pixels a tile shows: the grids of DZI and XYZ over an image's own pixels.

A *window* is a box of pixels 2**level as wide as the image's. Levels halve the image, sizes rounded up, as the pyramid
does; there may be more of them than the pyramid has, down to a single pixel.
DZI counts the other way: its level 0 is one pixel, its last is the image (Deep Zoom file format). Tiles do not overlap,
so that each lies in one chunk of the pyramid.
XYZ counts zooms from the whole image in one tile (z = 0) to the image's own pixels; a tile is always a whole square.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gigamask.errors import NotFound
from gigamask.geometry import Box, level_count, level_shape

TILE_PX = 256
_INDEX = re.compile(r"\d{1,9}", re.ASCII)

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """box: in pixels of `level`, inside it. size: (height, width) of the picture.

    part: (y0, x0, y1, x1) of the box, between pixels too, that is resampled to the picture. None: the box is shown as
    it is, and what lies beyond it is empty.
    """

    level: int
    box: Box
    size: Shape
    part: tuple[float, float, float, float] | None = None


def parse_index(text: str, what: str) -> int:
    """Raises NotFound for what is no plain number: it names no tile."""
    if not _INDEX.fullmatch(text):
        raise NotFound(f"{what} is a whole number from 0, not {text[:40]!r}")
    return int(text)


def dzi_last_level(shape: Shape) -> int:
    """ceil(log2(longest side)): the level of the image's own pixels."""
    return (max(shape) - 1).bit_length()


def dzi_window(shape: Shape, level: int, col: int, row: int) -> Window:
    """Raises NotFound for a tile outside the image. Tiles at its right and bottom are as small as what is left."""
    last = dzi_last_level(shape)
    if level > last:
        raise NotFound(f"levels are 0 to {last}, not {level}")
    box = _cell(level_shape(shape, last - level), col, row, f"level {level}")
    return Window(last - level, box, box.shape)


def xyz_last_zoom(shape: Shape) -> int:
    return level_count(shape, TILE_PX) - 1


def xyz_window(shape: Shape, zoom: int, x: int, y: int) -> Window:
    """Raises NotFound for a tile outside the image."""
    last = xyz_last_zoom(shape)
    if zoom > last:
        raise NotFound(f"zooms are 0 to {last}, not {zoom}")
    box = _cell(level_shape(shape, last - zoom), x, y, f"zoom {zoom}")
    return Window(last - zoom, box, (TILE_PX, TILE_PX))


def _cell(shape: Shape, col: int, row: int, where: str) -> Box:
    rows, cols = -(-shape[0] // TILE_PX), -(-shape[1] // TILE_PX)
    if not (0 <= row < rows and 0 <= col < cols):
        raise NotFound(f"{where} has {cols} x {rows} tiles; ({col}, {row}) is outside")
    y, x = row * TILE_PX, col * TILE_PX
    return Box(y, x, y + TILE_PX, x + TILE_PX).clip(shape)


def dzi_descriptor(shape: Shape, extension: str) -> str:
    """The `.dzi` file: XML of the 2008 schema."""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<Image xmlns="http://schemas.microsoft.com/deepzoom/2008" TileSize="{TILE_PX}" Overlap="0" '
        f'Format="{extension}"><Size Width="{shape[1]}" Height="{shape[0]}"/></Image>\n'
    )
