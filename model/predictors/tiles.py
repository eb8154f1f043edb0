"""Tile by tile, the paper's way: every local patch with a surround of its own (SGNet section 3.2).

An engine that tunes itself to the shape of a batch (a GPU's) is given one shape alone: the last batch of a region is
filled up by repeating its last tile. On a CPU that would only be work thrown away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box, Tile
from gigamask.manifest import ModelManifest
from gigamask.plan import Region

Bytes = NDArray[np.uint8]


class TileBatch(NamedTuple):
    """local: (B,3,t,t); surround: (B,3,S,S) and offset: (B,2) int32 (y, x), or None where alpha is 1."""

    local: Bytes
    surround: Bytes | None
    offset: NDArray[np.int32] | None


class TileNetwork(Protocol):
    """One inference engine with one model in it. fixed_batch: it wants every batch in the same shape."""

    @property
    def fixed_batch(self) -> bool: ...

    def labels(self, batch: TileBatch) -> Bytes:
        """(B, t, t) class ids"""
        ...

    def scores(self, batch: TileBatch) -> NDArray[np.float32]:
        """(B, K, t, t) logits"""
        ...


@dataclass(frozen=True, slots=True)
class TilePredictor:
    manifest: ModelManifest
    network: TileNetwork
    batch: int

    def predict(self, window: Bytes, region: Region) -> Bytes:
        """(3, h, w) pixels of region.window -> (h, w) labels of region.box"""
        if window.shape != (3, *region.window.shape):
            raise ValueError(
                f"window of region {region.index}: expected {(3, *region.window.shape)}, got {window.shape}"
            )
        labels = np.empty(region.box.shape, np.uint8)
        for start in range(0, len(region.tiles), self.batch):
            tiles = region.tiles[start : start + self.batch]
            for tile, predicted in zip(tiles, self._labels(window, region.window, tiles), strict=False):
                labels[tile.keep.within(region.box).slices] = predicted[tile.keep.within(tile.local).slices]
        return labels

    def _labels(self, window: Bytes, frame: Box, tiles: Sequence[Tile]) -> Bytes:
        missing = self.batch - len(tiles) if self.network.fixed_batch else 0
        filled = [*tiles, *[tiles[-1]] * missing]
        return self.network.labels(cut_tiles(window, frame, filled, self.manifest))


def cut_tiles(window: Bytes, frame: Box, tiles: Sequence[Tile], manifest: ModelManifest) -> TileBatch:
    """frame: the box of the image that `window` covers."""
    pad = manifest.pad_color
    local = np.stack([cut(window, tile.local.within(frame), pad) for tile in tiles])
    if manifest.alpha == 1:
        return TileBatch(local, None, None)
    surround = np.stack([cut(window, tile.surround.within(frame), pad) for tile in tiles])
    inside = [tile.local.within(tile.surround) for tile in tiles]
    return TileBatch(local, surround, np.array([(box.y0, box.x0) for box in inside], np.int32))


def cut(window: Bytes, box: Box, pad: tuple[int, int, int]) -> Bytes:
    """(3, box.height, box.width); padded at the bottom and right where the image is smaller than the box."""
    rows, columns = box.slices
    found = window[:, rows, columns]
    if found.shape[1:] == box.shape:
        return found
    padded = np.empty((3, *box.shape), np.uint8)
    padded[:] = np.array(pad, np.uint8)[:, None, None]
    padded[:, : found.shape[1], : found.shape[2]] = found
    return padded
