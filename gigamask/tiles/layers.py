"""What tiles are cut from: the image or the labels of a job, at any level, also above the pyramid's last.

A chunk of the pyramid is four tiles, and a screenful asks for neighbours: of what cannot change, the last chunks are
kept as they were decoded, pixel by pixel, as encoders want them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from gigamask.geometry import Box, level_shape
from gigamask.manifest import NO_DATA
from gigamask.plan import CHUNK_PX
from gigamask.pyramid.arrays import Pixels
from gigamask.pyramid.halve import halve_mean, halve_mode
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskPyramid
from gigamask.tiles.cache import Cache
from gigamask.tiles.grids import Shape, Window

Read = Callable[[Box, int], Pixels]
Chunks = Cache[Pixels]


class Layer(Protocol):
    """shape: (height, width) of level 0."""

    @property
    def shape(self) -> Shape: ...

    def read(self, box: Box, level: int) -> Pixels:
        """box: in pixels of `level`, inside it; any level. (..., h, w), not to be written to."""


@dataclass(frozen=True, slots=True)
class ImageLayer:
    pyramid: ImagePyramid
    chunks: Chunks

    @property
    def shape(self) -> Shape:
        return self.pyramid.info.shape

    def read(self, box: Box, level: int) -> Pixels:
        """(3 or 4, h, w)"""
        if level >= self.pyramid.levels:
            return read_above(self.pyramid.read, self.pyramid.levels, self.shape, box, level, halve_mean)
        chunk = chunk_of(box, level_shape(self.shape, level))
        if chunk is None:
            return self.pyramid.read(box, level)
        kept = self.chunks.get_or_make((self.pyramid.root, level, chunk), lambda: self._decode(chunk, level))
        return kept[box.within(chunk).slices].transpose(2, 0, 1)

    def _decode(self, chunk: Box, level: int) -> Pixels:
        """(h, w, 3 or 4). Plane by plane: a third of the time that a transposed copy takes."""
        return np.stack(tuple(self.pyramid.read(chunk, level)), axis=-1)


@dataclass(frozen=True, slots=True)
class MaskLayer:
    """A published mask."""

    pyramid: MaskPyramid
    shape: Shape
    chunks: Chunks

    def read(self, box: Box, level: int) -> Pixels:
        """(h, w)"""
        if level >= self.pyramid.levels:
            return read_above(self.pyramid.read, self.pyramid.levels, self.shape, box, level, halve_mode)
        chunk = chunk_of(box, level_shape(self.shape, level))
        if chunk is None:
            return self.pyramid.read(box, level)
        kept = self.chunks.get_or_make((self.pyramid.root, level, chunk), lambda: self.pyramid.read(chunk, level))
        return kept[box.within(chunk).slices]


def chunk_of(box: Box, shape: Shape) -> Box | None:
    """The one chunk that the box lies in; None where it meets several. shape: of the level."""
    chunk = box.snap(CHUNK_PX)
    return chunk.clip(shape) if chunk.shape == (CHUNK_PX, CHUNK_PX) else None


def read_above(
    read: Read, levels: int, shape: Shape, box: Box, level: int, halve: Callable[[Pixels], Pixels]
) -> Pixels:
    """The last level, which is small, halved as often as it takes."""
    pixels = read(Box(0, 0, *level_shape(shape, levels - 1)), levels - 1)
    for _ in range(level - levels + 1):
        pixels = halve(pixels)
    return pixels[..., *box.slices]


def read_pixels(layer: Layer, window: Window) -> Pixels:
    """(3 or 4, *window.size); 4 where something lies beyond the box: there is no data."""
    pixels = layer.read(window.box, window.level)
    if window.part is not None:
        return _resampled(pixels.transpose(1, 2, 0), window, Resampling.BILINEAR).transpose(2, 0, 1)
    if pixels.shape[1:] == window.size:
        return pixels
    whole = np.zeros((4, *window.size), np.uint8)
    height, width = window.box.shape
    whole[: len(pixels), :height, :width] = pixels
    if len(pixels) == 3:
        whole[3, :height, :width] = 255
    return whole


def read_labels(layer: Layer, window: Window) -> Pixels:
    """window.size. Resampled to the nearest."""
    labels = layer.read(window.box, window.level)
    if window.part is not None:
        return _resampled(labels, window, Resampling.NEAREST)
    if labels.shape == window.size:
        return labels
    whole = np.full(window.size, NO_DATA, np.uint8)
    whole[: labels.shape[0], : labels.shape[1]] = labels
    return whole


def _resampled(picture: Pixels, window: Window, how: Resampling) -> Pixels:
    """picture: (h, w) or (h, w, channels). Pillow weighs colours by their validity."""
    assert window.part is not None
    y0, x0, y1, x1 = window.part
    source = Image.fromarray(np.ascontiguousarray(picture))
    return np.asarray(source.resize(window.size[::-1], how, box=(x0, y0, x1, y1)))
