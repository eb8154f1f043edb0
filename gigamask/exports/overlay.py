"""A picture of a result: the image with its classes over it, small enough to look at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from gigamask.exports.catalog import ExportOptions, Progress
from gigamask.geometry import Box, level_shape
from gigamask.legend import Legend

if TYPE_CHECKING:
    from gigamask.pyramid.result import Result

OPACITY = 0.45
MAX_SIDE_PX = 2048


def write_overlay(result: Result, target: Path, options: ExportOptions, _progress: Progress) -> None:
    """A PNG of the finest level whose longer side is at most MAX_SIDE_PX, read whole."""
    from PIL import Image

    pixels = overlay(result, result.legend.recolored(options.colors), MAX_SIDE_PX)
    Image.fromarray(pixels).save(target, format="PNG")


def overlay(result: Result, legend: Legend, max_side_px: int) -> NDArray[np.uint8]:
    """(h, w, 3) of the finest level whose longer side is at most `max_side_px`, or of the coarsest."""
    fitting = (k for k in range(result.image.levels) if max(level_shape(result.shape, k)) <= max_side_px)
    level = next(fitting, result.image.levels - 1)
    box = Box(0, 0, *level_shape(result.shape, level))
    return blend(result.pixels(box, level)[:3], result.labels(box, level), legend)


def blend(pixels: NDArray[np.uint8], labels: NDArray[np.uint8], legend: Legend) -> NDArray[np.uint8]:
    """pixels: (3, h, w); labels: (h, w) -> (h, w, 3): out = (1 - OPACITY) pixel + OPACITY colour; no data bare."""
    chosen = legend.palette()[labels].astype(np.float32)
    weight = chosen[..., 3:] / 255 * OPACITY
    mixed = np.moveaxis(pixels, 0, -1) * (1 - weight) + chosen[..., :3] * weight
    labelled: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return labelled
