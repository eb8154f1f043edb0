"""Pictures that tests can compute, and pyramids of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigamask.image_info import ImageInfo
from gigamask.pyramid.image import ImageWriter

Pixels = NDArray[np.uint8]


def picture(shape: tuple[int, int], channels: int = 3, seed: int = 0) -> Pixels:
    """(h, w, channels): smooth blobs with noise on them; of the validity channel, a disc is 0."""
    h, w = shape
    y, x = np.mgrid[:h, :w].astype(np.float32)
    noise = np.random.default_rng(seed).integers(0, 40, (h, w), dtype=np.uint8)
    waves = [np.sin(y / (31 + 9 * c)) * np.cos(x / (47 - 8 * c)) for c in range(3)]
    colors = [(108 + 107 * wave).astype(np.uint8) + noise for wave in waves]
    valid = np.where((y - h / 2) ** 2 + (x - w / 3) ** 2 > (min(h, w) / 4) ** 2, 255, 0).astype(np.uint8)
    return np.ascontiguousarray(np.stack([*colors, valid][:channels], axis=-1))


def write_image(root: Path, pixels: Pixels, step: int = 1000, **info: object) -> Path:
    """pixels: (h, w, channels), appended `step` rows at a time."""
    height, width, channels = pixels.shape
    known = {"height": height, "width": width, "channels": channels, "format": "test"}
    with ImageWriter(root, ImageInfo.model_validate(known | info)) as writer:
        for y in range(0, height, step):
            writer.append(pixels[y : y + step])
    return root


def tree(root: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every file."""
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
