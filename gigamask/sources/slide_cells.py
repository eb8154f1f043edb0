"""Scanner formats through OpenSlide: Aperio with JPEG 2000 tiles, and other vendors' single files.

Only what begins as TIFF or CZI comes here: some of OpenSlide's others are texts that name further files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gigamask.settings import Settings
from gigamask.sources.blocks import CellGrid, Pixels, rows_of
from gigamask.sources.limits import check_size, translated

_CELL_PX = 1024
_OURS = {None, "generic-tiff", "aperio"}


@dataclass(frozen=True, slots=True)
class Slide:
    """bounds: y, x of the part of level 0 that holds tissue, `height` x `width` of it. icc: its colour profile."""

    path: Path
    vendor: str
    height: int
    width: int
    bounds: tuple[int, int]
    pixel_size_um: tuple[float, float] | None
    icc: bytes | None


def detect_vendor(path: Path) -> str | None:
    """OpenSlide's name for the format, None where it knows none."""
    import openslide

    try:
        vendor: str | None = openslide.OpenSlide.detect_format(str(path))
    except openslide.OpenSlideError:
        return None
    return vendor


def belongs_to_openslide(vendor: str | None) -> bool:
    """A vendor's format that plain TIFF reading would get wrong."""
    return vendor not in _OURS


def open_slide(path: Path, settings: Settings) -> Slide:
    """Raises BadImage."""
    import openslide

    with translated("the slide's header cannot be read"), openslide.OpenSlide(str(path)) as slide:
        properties = slide.properties
        width, height = slide.dimensions
        y, x = (int(properties.get(f"openslide.bounds-{axis}", 0)) for axis in "yx")
        width = int(properties.get("openslide.bounds-width", width))
        height = int(properties.get("openslide.bounds-height", height))
        check_size(height, width, 4, settings)
        vendor, size = properties["openslide.vendor"], _pixel_size(properties)
        return Slide(path, vendor, height, width, (y, x), size, _profile(slide))


def _pixel_size(properties: Any) -> tuple[float, float] | None:
    try:
        sizes = float(properties["openslide.mpp-y"]), float(properties["openslide.mpp-x"])
    except (KeyError, ValueError):
        return None
    return sizes if min(sizes) > 0 else None


def _profile(slide: Any) -> bytes | None:
    """None for a broken one too: libvips passes over those as well."""
    from PIL.ImageCms import PyCMSError

    try:
        profile = slide.color_profile
    except PyCMSError:
        return None
    return profile.tobytes() if profile is not None else None


def slide_rows(slide: Slide) -> Iterator[Pixels]:
    """Blocks (n, width, 4) of straight RGBA; alpha is 0 where the scanner saw nothing."""
    import openslide

    with openslide.OpenSlide(str(slide.path)) as source:
        y0, x0 = slide.bounds

        def read(row: int, col: int) -> Pixels:
            top, left = row * _CELL_PX, col * _CELL_PX
            with translated(f"the slide's pixels at {left}, {top} do not decode"):
                image = source.read_region((x0 + left, y0 + top), 0, (_CELL_PX, _CELL_PX))
            return np.asarray(image)

        yield from rows_of(CellGrid(slide.height, slide.width, _CELL_PX, _CELL_PX, 4, np.dtype(np.uint8), read))
