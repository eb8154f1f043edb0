"""Tile by tile: cut what each tile looks at, run the network, keep what the tile keeps.

Where tiles overlap, their scores are averaged before a label is taken (model.predictors.blend).

An engine that tunes itself to the shape of a batch (a GPU's) is given one shape alone: the last batch of a region is
filled up by repeating its last tile. On a CPU that would only be work thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box, Tile
from gigamask.manifest import ModelManifest
from gigamask.plan import Region
from model.predictors.blend import Canvas, blend, tile_weights

Bytes = NDArray[np.uint8]
Scores = NDArray[np.float32]


class TileBatch(NamedTuple):
    """local: (B,3,t,t); surround: (B,3,S,S) and offset: (B,2) int32 (y, x), or None where alpha is 1."""

    local: Bytes
    surround: Bytes | None
    offset: NDArray[np.int32] | None


class TileNetwork(Protocol):
    """One inference engine with one model in it. fixed_batch: it wants every batch in the same shape.

    A batch is what its Look makes of tiles: a TileBatch, or a SharedBatch of model.predictors.shared.
    """

    @property
    def fixed_batch(self) -> bool: ...

    def labels(self, batch: Any) -> Bytes:
        """(B, t, t) class ids"""
        ...

    def scores(self, batch: Any) -> Scores:
        """(B, K, t, t) logits"""
        ...


Look = Callable[[Sequence[Tile]], Any]
"""Tiles of one region -> a batch of what the network is to see of them."""


@dataclass(frozen=True, slots=True)
class TilePredictor:
    """share: from a region's window to its Look; None: every tile with a surround of its own, as in the paper."""

    manifest: ModelManifest
    network: TileNetwork
    batch: int
    share: Callable[[Bytes, Region], Look] | None = None

    def predict(self, window: Bytes, region: Region) -> Bytes:
        """(3, h, w) pixels of region.window -> (h, w) labels of region.work; NO_DATA where no tile is."""
        canvas = Canvas(region.work)
        self._fill(canvas, window, region)
        return canvas.labels

    def predict_scored(self, window: Bytes, region: Region) -> tuple[Bytes, Bytes]:
        """As `predict`, and (C, h, w) probabilities, round(255 p); 0 where no tile is."""
        canvas = Canvas(region.work, len(self.manifest.classes))
        self._fill(canvas, window, region)
        assert canvas.probabilities is not None
        return canvas.labels, canvas.probabilities

    def _fill(self, canvas: Canvas, window: Bytes, region: Region) -> None:
        if window.shape != (3, *region.window.shape):
            raise ValueError(
                f"window of region {region.index}: expected {(3, *region.window.shape)}, got {window.shape}"
            )
        if not region.tiles:
            return
        look = self.look(window, region)
        if region.overlap != "none":
            weights = tile_weights(region.overlap, self.manifest.tile_px)
            scored = self._batches(region, look, self.network.scores)
            blend(region, canvas, scored, weights, len(self.manifest.classes))
        elif canvas.probabilities is not None:
            for tile, scores in self._each(region, look, self.network.scores):
                canvas.set_scores(tile.keep, scores[:, *tile.keep.within(tile.local).slices])
        else:
            for tile, labels in self._each(region, look, self.network.labels):
                canvas.set_labels(tile.keep, labels[tile.keep.within(tile.local).slices])

    def look(self, window: Bytes, region: Region) -> Look:
        """What is done once for a region, and then for tiles of it."""
        if self.share:
            return self.share(window, region)
        return lambda tiles: cut_tiles(window, region.window, tiles, self.manifest)

    def _each(
        self, region: Region, look: Look, run: Callable[[Any], NDArray[Any]]
    ) -> Iterator[tuple[Tile, NDArray[Any]]]:
        for tiles, found in self._batches(region, look, run):
            yield from zip(tiles, found, strict=False)

    def _batches(
        self, region: Region, look: Look, run: Callable[[Any], NDArray[Any]]
    ) -> Iterator[tuple[Sequence[Tile], NDArray[Any]]]:
        for start in range(0, len(region.tiles), self.batch):
            tiles = region.tiles[start : start + self.batch]
            missing = self.batch - len(tiles) if self.network.fixed_batch else 0
            yield tiles, run(look([*tiles, *[tiles[-1]] * missing]))


def cut_tiles(window: Bytes, frame: Box, tiles: Sequence[Tile], manifest: ModelManifest) -> TileBatch:
    """frame: the box of the image that `window` covers."""
    pad = manifest.pad_color
    local = cut_locals(window, frame, tiles, manifest)
    if manifest.alpha == 1:
        return TileBatch(local, None, None)
    surround = np.stack([cut(window, tile.surround.within(frame), pad) for tile in tiles])
    inside = [tile.local.within(tile.surround) for tile in tiles]
    return TileBatch(local, surround, np.array([(box.y0, box.x0) for box in inside], np.int32))


def cut_locals(window: Bytes, frame: Box, tiles: Sequence[Tile], manifest: ModelManifest) -> Bytes:
    """(B, 3, t, t)"""
    return np.stack([cut(window, tile.local.within(frame), manifest.pad_color) for tile in tiles])


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
