"""The surround's side of the work once for a region, not once for every tile (the context modes of docs/sgnet.md).

    trunk_shared    one map of the trunk; each tile mixes the part over its own surround
    neighbourhood   one context map of the whole branch; each tile takes the part over itself

A map has one cell for 16 px. Windows begin on the lattice that the manifest names, so a cell holds the same number in
whichever region's map it lies, and two regions agree along their border.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box, Tile
from gigamask.manifest import Context, ModelManifest
from gigamask.plan import Region
from model.predictors.tiles import Bytes, Look, cut, cut_locals

CELL_PX = 16  # as model.parts.stdc.STRIDE, which needs torch
_BEFORE, _AFTER = 1, 2  # cells beside a tile that its edge pixels are interpolated from


class SharedBatch(NamedTuple):
    """local: (B,3,t,t); maps: B parts (C,n,n) of the region's map; offset: (B,2) int32 px of the tile in its part."""

    local: Bytes
    maps: list[Any]
    offset: NDArray[np.int32]


class SharedNetwork(Protocol):
    """A TileNetwork whose batches are SharedBatch."""

    def context(self, picture: Bytes) -> Any:
        """(3, H, W) -> (C, H/16, W/16), on the engine's device"""
        ...


def map_cells(manifest: ModelManifest) -> int:
    return part_cells(manifest.context, manifest.tile_px, manifest.alpha)


def part_cells(context: Context, tile_px: int, alpha: int) -> int:
    """n: side of the part of a map that a tile is handed."""
    if context.mode == "trunk_shared":
        return tile_px * alpha // CELL_PX
    return tile_px // CELL_PX + _BEFORE + _AFTER


def shared_look(network: SharedNetwork, manifest: ModelManifest) -> Callable[[Bytes, Region], Look]:
    def look(window: Bytes, region: Region) -> Look:
        frame = frame_of(region, manifest)
        found = network.context(cut(window, frame.within(region.window), manifest.pad_color))

        def batch(tiles: Sequence[Tile]) -> SharedBatch:
            places = [place_in(frame, tile, manifest) for tile in tiles]
            maps = [found[:, cells.y0 : cells.y1, cells.x0 : cells.x1] for cells, _ in places]
            offset = np.array([offset for _, offset in places], np.int32)
            return SharedBatch(cut_locals(window, region.window, tiles, manifest), maps, offset)

        return batch

    return look


def frame_of(region: Region, manifest: ModelManifest) -> Box:
    """The window filled up to whole cells of the lattice, and to what a tile needs where the image is smaller."""
    window, lattice = region.window, manifest.context.lattice_px
    if window.y0 % lattice or window.x0 % lattice:
        raise ValueError(
            f"window of region {region.index} begins at {(window.y0, window.x0)}: expected multiples of {lattice} px;"
            f" plan regions with this model's manifest"
        )
    side = map_cells(manifest) * CELL_PX
    return window.union(Box(window.y0, window.x0, window.y0 + side, window.x0 + side)).snap(lattice)


def place_in(frame: Box, tile: Tile, manifest: ModelManifest) -> tuple[Box, tuple[int, int]]:
    """(cells of the frame's map that the tile is handed, (y, x) px of the tile in them)"""
    n = map_cells(manifest)
    local, surround = tile.local.within(frame), tile.surround.within(frame)
    if manifest.context.mode == "trunk_shared":
        y, x = -(-surround.y0 // CELL_PX), -(-surround.x0 // CELL_PX)  # up: a tile at the border lies inside its part
    else:
        y, x = (
            max(0, min(start // CELL_PX - _BEFORE, total // CELL_PX - n))
            for start, total in ((local.y0, frame.height), (local.x0, frame.width))
        )
    return Box(y, x, y + n, x + n), (local.y0 - y * CELL_PX, local.x0 - x * CELL_PX)
