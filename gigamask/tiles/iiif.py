"""IIIF Image API 3.0, level 1: what a request asks for, and what `info.json` says (https://iiif.io/api/image/3.0/).

Whatever is asked for, at most SOURCE_PX are read and MOST_PX a side are sent; `info.json` tells the limit. A picture
is read from the finest level that is no coarser than it, and resampled from there; a tile of the grid that `info.json`
tells needs no resampling.
"""

from __future__ import annotations

import re
from typing import Any

from gigamask.errors import BadPicture
from gigamask.geometry import Box, level_count, level_shape
from gigamask.tiles.grids import Shape, Window

CONTEXT = "http://iiif.io/api/image/3/context.json"
PROTOCOL = "http://iiif.io/api/image"
TILE_PX = 512
MOST_PX = 2048
SOURCE_PX = 4 * MOST_PX * MOST_PX
FORMATS = ("jpg", "png", "webp")
QUALITIES = ("default", "color")

_REGION = re.compile(r"(\d{1,9}),(\d{1,9}),(\d{1,9}),(\d{1,9})", re.ASCII)
_SIZE = re.compile(r"(\d{0,9}),(\d{0,9})", re.ASCII)


def information(url: str, shape: Shape) -> dict[str, Any]:
    """The body of `info.json`. url: of the image, absolute, without `/info.json`."""
    levels = range(level_count(shape, TILE_PX))
    whole = [level_shape(shape, level) for level in levels]
    sizes = [{"width": w, "height": h} for h, w in reversed(whole) if max(h, w) <= MOST_PX]
    return {
        "@context": CONTEXT,
        "id": url,
        "type": "ImageService3",
        "protocol": PROTOCOL,
        "profile": "level1",
        "width": shape[1],
        "height": shape[0],
        "maxWidth": MOST_PX,
        "maxHeight": MOST_PX,
        "sizes": sizes,
        "tiles": [{"width": TILE_PX, "height": TILE_PX, "scaleFactors": [2**level for level in levels]}],
        "extraFormats": ["png", "webp"],
        "extraQualities": ["color"],
        "extraFeatures": ["sizeByWh"],
    }


def window_of(shape: Shape, region: str, size: str, rotation: str) -> Window:
    """Raises BadPicture for what level 1 does not know, and for what is not there."""
    if rotation != "0":
        raise BadPicture(f"the rotation is 0, not {rotation[:40]!r}")
    box = parse_region(region, shape)
    return _window(shape, box, parse_size(size, box))


def parse_region(text: str, shape: Shape) -> Box:
    """`full`, `square` (in the middle) or `x,y,w,h`, of which the part inside the image counts."""
    height, width = shape
    if text == "full":
        return Box(0, 0, height, width)
    if text == "square":
        side = min(shape)
        y, x = (height - side) // 2, (width - side) // 2
        return Box(y, x, y + side, x + side)
    match = _REGION.fullmatch(text)
    if match is None:
        raise BadPicture(f"a region is full, square or x,y,w,h in pixels, not {text[:60]!r}")
    x, y, w, h = map(int, match.groups())
    box = Box(y, x, y + h, x + w).clip(shape)
    if box.height < 1 or box.width < 1:
        raise BadPicture(f"the region {text} holds no pixel of an image of {width} x {height} px")
    return box


def parse_size(text: str, region: Box) -> Shape:
    """`max`, `w,`, `,h` or `w,h` -> (height, width); never larger than the region, nor than MOST_PX."""
    if text == "max":
        scale = min(1.0, MOST_PX / max(region.shape))
        return max(1, round(region.height * scale)), max(1, round(region.width * scale))
    match = _SIZE.fullmatch(text)
    if match is None or match.groups() == ("", ""):
        raise BadPicture(f"a size is max, w, or ,h or w,h in pixels, not {text[:60]!r}")
    w, h = (int(side) if side else None for side in match.groups())
    height = h if h is not None else max(1, round(region.height * (w or 0) / region.width))
    width = w if w is not None else max(1, round(region.width * (h or 0) / region.height))
    if not (1 <= height <= region.height and 1 <= width <= region.width):
        raise BadPicture(f"a size is at least 1 x 1 and at most the region's, {region.width} x {region.height}: {text}")
    if max(height, width) > MOST_PX:
        raise BadPicture(f"a picture has at most {MOST_PX} px a side, not {width} x {height}")
    return height, width


def _window(shape: Shape, region: Box, size: Shape) -> Window:
    level = _level(shape, region, size)
    side = 1 << level
    box = Box(region.y0 // side, region.x0 // side, -(-region.y1 // side), -(-region.x1 // side))
    if box.shape == size and region.y0 % side == region.x0 % side == 0:
        return Window(level, box, size)
    y0, x0 = region.y0 / side - box.y0, region.x0 / side - box.x0
    y1, x1 = min(region.y1 / side - box.y0, box.height), min(region.x1 / side - box.x0, box.width)
    return Window(level, box, size, (y0, x0, y1, x1))


def _level(shape: Shape, region: Box, size: Shape) -> int:
    """No coarser than the picture, unless too many pixels would be read: long strips squeezed along one side."""
    level = 0
    while (
        2 << level <= max(region.shape)
        and _fits(level + 1, region.height, size[0], region.y1 == shape[0])
        and _fits(level + 1, region.width, size[1], region.x1 == shape[1])
    ):
        level += 1
    while (region.height >> level) * (region.width >> level) > SOURCE_PX:
        level += 1
    return level


def _fits(level: int, length: int, size: int, at_end: bool) -> bool:
    """Whether `length` pixels have `size` at the level, or more; at the image's end the last may be cut off."""
    return (size - 1) << level < length if at_end else size << level <= length
