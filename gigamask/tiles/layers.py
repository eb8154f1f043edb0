"""What tiles are cut from: the image or the labels of a job, at any level, also above the pyramid's last."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image
from PIL.Image import Resampling

from gigamask.geometry import Box, level_shape
from gigamask.manifest import NO_DATA
from gigamask.pyramid.arrays import Pixels
from gigamask.pyramid.halve import halve_mean, halve_mode
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskPyramid
from gigamask.tiles.grids import Shape, Window

Read = Callable[[Box, int], Pixels]


class Layer(Protocol):
    """shape: (height, width) of level 0."""

    @property
    def shape(self) -> Shape: ...

    def read(self, box: Box, level: int) -> Pixels:
        """box: in pixels of `level`, inside it; any level. (..., h, w)."""


@dataclass(frozen=True, slots=True)
class ImageLayer:
    pyramid: ImagePyramid

    @property
    def shape(self) -> Shape:
        return self.pyramid.info.shape

    def read(self, box: Box, level: int) -> Pixels:
        """(3 or 4, h, w)"""
        return read_above(self.pyramid.read, self.pyramid.levels, self.shape, box, level, halve_mean)


@dataclass(frozen=True, slots=True)
class MaskLayer:
    """A published mask."""

    pyramid: MaskPyramid
    shape: Shape

    def read(self, box: Box, level: int) -> Pixels:
        """(h, w)"""
        return read_above(self.pyramid.read, self.pyramid.levels, self.shape, box, level, halve_mode)


def read_above(
    read: Read, levels: int, shape: Shape, box: Box, level: int, halve: Callable[[Pixels], Pixels]
) -> Pixels:
    """A level that is there is read; one above is the last, which is small, halved as often as it takes."""
    if level < levels:
        return read(box, level)
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
