"""Pixels and labels as small files: JPEG, PNG, WebP.

Labels become colours by a table and nothing else. As PNG or WebP a mask is lossless and without data transparent; a PNG
holds indices into as few colours as are in use. Encoders and their settings: docs/decisions/0009-tiles.md.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from gigamask.errors import NotFound
from gigamask.legend import Legend
from gigamask.manifest import NO_DATA

Pixels = NDArray[np.uint8]

JPEG_QUALITY, WEBP_QUALITY = 85, 80
MEDIA_TYPES = {"jpg": "image/jpeg", "jpeg": "image/jpeg", "png": "image/png", "webp": "image/webp"}


def media_type(extension: str) -> str:
    """Raises NotFound for what no encoder here writes."""
    try:
        return MEDIA_TYPES[extension]
    except KeyError:
        raise NotFound(f"pictures are {', '.join(MEDIA_TYPES)}, not {extension[:20]!r}") from None


@dataclass(frozen=True, slots=True)
class Palette:
    """index: (256,), label -> row of `colors`. colors: (n, 4) RGBA, each once."""

    index: Pixels
    colors: Pixels

    @property
    def no_data(self) -> int:
        return int(self.index[NO_DATA])


@lru_cache(maxsize=256)
def palette_of(legend: Legend, hidden: frozenset[int] = frozenset()) -> Palette:
    """hidden: labels that are as transparent as no data."""
    rows = legend.palette()
    rows[list(hidden)] = 0
    colors, index = np.unique(rows, axis=0, return_inverse=True)
    return Palette(index.reshape(-1).astype(np.uint8), colors)


def encode_pixels(pixels: Pixels, extension: str) -> bytes:
    """pixels: (3 or 4, h, w); the 4th says where there is data: elsewhere JPEG is white, the others transparent."""
    if extension in ("jpg", "jpeg"):
        return _jpeg(pixels if len(pixels) == 3 else np.where(pixels[3] > 0, pixels[:3], np.uint8(255)))
    picture = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))
    return _save(picture, extension, webp={"quality": WEBP_QUALITY, "method": 0})


def _jpeg(pixels: Pixels) -> bytes:
    """(3, h, w)"""
    rows = np.array(pixels.transpose(1, 2, 0), order="C")  # a copy: the encoder wants exact strides of sides of 1 too
    return bytes(imagecodecs.jpeg8_encode(rows, level=JPEG_QUALITY, subsampling="420"))


def encode_labels(labels: Pixels, palette: Palette, extension: str) -> bytes:
    """labels: (h, w). JPEG, for those who can show nothing else, is over white and not lossless."""
    if extension == "png":
        return _indexed_png(palette.index[labels], palette)
    colors = palette.colors[palette.index[labels]]
    if extension in ("jpg", "jpeg"):
        return encode_pixels(colors.transpose(2, 0, 1), extension)
    return _save(Image.fromarray(colors), extension, webp={"lossless": True, "quality": 0, "method": 0, "exact": True})


def _indexed_png(indices: Pixels, palette: Palette) -> bytes:
    picture = Image.fromarray(indices)
    picture.putpalette(palette.colors[:, :3].tobytes(), "RGB")
    return _save(picture, "png", png={"transparency": palette.colors[:, 3].tobytes()})


def _save(
    picture: Image.Image, extension: str, png: dict[str, Any] | None = None, webp: dict[str, Any] | None = None
) -> bytes:
    out = io.BytesIO()
    if extension == "png":
        picture.save(out, "PNG", compress_level=1, **(png or {}))
    else:
        picture.save(out, "WEBP", **(webp or {}))
    return out.getvalue()
