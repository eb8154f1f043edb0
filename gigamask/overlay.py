"""A picture of a result: the image with its classes over it, small enough to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box, level_shape
from gigamask.manifest import NO_DATA, ModelManifest

OPACITY = 0.45


def write_overlay(zarr_root: Path, manifest: ModelManifest, path: Path, max_side_px: int = 2048) -> None:
    """A PNG of the finest level whose longer side is at most `max_side_px`. Reads one level whole, so keep it small."""
    import pyvips

    from gigamask.pyramid.image import ImagePyramid
    from gigamask.pyramid.mask import read_mask

    image = ImagePyramid(zarr_root)
    fitting = (k for k in range(image.levels) if max(level_shape(image.info.shape, k)) <= max_side_px)
    level = next(fitting, image.levels - 1)
    box = Box(0, 0, *level_shape(image.info.shape, level))
    labels = read_mask(zarr_root / "labels" / manifest.name, box, level)
    pyvips.Image.new_from_array(blend(image.read(box, level)[:3], labels, manifest)).pngsave(str(path))


def blend(pixels: NDArray[np.uint8], labels: NDArray[np.uint8], manifest: ModelManifest) -> NDArray[np.uint8]:
    """pixels: (3, h, w); labels: (h, w) -> (h, w, 3): out = (1 - OPACITY) pixel + OPACITY colour; no-data bare."""
    colors = np.zeros((NO_DATA + 1, 4), np.float32)
    for entry in manifest.classes:
        colors[entry.id] = (*entry.rgba[:3], 1)
    chosen = colors[labels]
    weight = chosen[..., 3:] * OPACITY
    mixed = np.moveaxis(pixels, 0, -1) * (1 - weight) + chosen[..., :3] * weight
    labelled: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return labelled
