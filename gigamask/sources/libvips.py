"""libvips, shut down to the four loaders we mean to use, and rows out of it one block at a time.

Always `fail_on="warning"`: with less, libvips gives black or half-black pixels for a damaged file and no error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigamask.sources.blocks import Pixels
from gigamask.sources.limits import block_rows, translated
from gigamask.sources.signature import Kind

_LOADERS = {Kind.TIFF: "tiffload", Kind.PNG: "pngload", Kind.JPEG: "jpegload", Kind.WEBP: "webpload"}
_DTYPES = {
    "uchar": "u1",
    "char": "i1",
    "ushort": "u2",
    "short": "i2",
    "uint": "u4",
    "int": "i4",
    "float": "f4",
    "double": "f8",
    "complex": "c8",
    "dpcomplex": "c16",
}


_opening = Lock()


def library() -> Any:
    """pyvips with every other loader blocked and nothing cached. Safe to ask from several threads."""
    with _opening:  # two threads at once would block each other's loaders for a moment
        return _library()


@cache
def _library() -> Any:
    import pyvips

    pyvips.operation_block_set("VipsForeignLoad", True)
    for name in ("Tiff", "Png", "Jpeg", "Webp"):
        pyvips.operation_block_set(f"VipsForeignLoad{name}", False)
    pyvips.cache_set_max(0)
    return pyvips


@dataclass(frozen=True, slots=True)
class Picture:
    """What libvips says of a file's page before a pixel is decoded."""

    path: Path
    kind: Kind
    page: int
    height: int
    width: int
    bands: int
    dtype: np.dtype[Any]
    space: str
    has_alpha: bool
    orientation: int
    icc: bytes | None
    pages: int


def open_picture(path: Path, kind: Kind, page: int = 0) -> Picture:
    """Raises BadImage."""
    with translated(f"the {kind.upper()} header cannot be read"):
        image = _load(path, kind, page)
        return Picture(
            path,
            kind,
            page,
            image.height,
            image.width,
            image.bands,
            np.dtype(_DTYPES[image.format]),
            image.interpretation,
            bool(image.hasalpha()),
            _field(image, "orientation", 1),
            _field(image, "icc-profile-data", None),
            _field(image, "n-pages", 1),
        )


def picture_rows(picture: Picture) -> Iterator[Pixels]:
    """Blocks (n, width, bands) as stored, top to bottom. Raises BadImage at the first block that does not decode."""
    step = block_rows(picture.width, picture.bands * picture.dtype.itemsize)
    reader = RowReader(picture)
    for y in range(0, picture.height, step):
        yield reader.take(min(step, picture.height - y))


class RowReader:
    """Rows on demand, in order."""

    def __init__(self, picture: Picture) -> None:
        self._picture, self._y = picture, 0
        with translated(f"the {picture.kind.upper()} header cannot be read"):
            self._region = library().Region.new(_load(picture.path, picture.kind, picture.page))

    def take(self, rows: int) -> NDArray[Any]:
        """The next (rows, width, bands)."""
        p = self._picture
        with translated(f"rows from {self._y:,} of {p.height:,} do not decode"):
            raw = self._region.fetch(0, self._y, p.width, rows)
        self._y += rows
        return np.frombuffer(raw, p.dtype).reshape(rows, p.width, p.bands)


def _load(path: Path, kind: Kind, page: int) -> Any:
    options: dict[str, Any] = {"access": "sequential", "fail_on": "warning"}
    if kind in (Kind.TIFF, Kind.WEBP):
        options["page"] = page
    return getattr(library().Image, _LOADERS[kind])(str(path), **options)


def _field(image: Any, name: str, default: Any) -> Any:
    return image.get(name) if image.get_typeof(name) else default
