"""The coordinate reference system of an image, also one without an EPSG code: GeoTIFF keys, read back by GDAL."""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rasterio.crs import CRS

    from gigamask.image_info import Georeference

# GeoTIFF 1.1, annex B: a directory of (key, where, count, value), beside it the doubles and one string of texts.
_DIRECTORY, _DOUBLES, _TEXTS = 34735, 34736, 34737
_SCALE, _TIE = 33550, 33922

Tag = tuple[int, int, int, Any, bool]  # as tifffile takes it: code, type, count, value, in the first page alone


def crs_of(georeference: Georeference | None) -> CRS | None:
    """None where the image does not say, or says what GDAL does not understand."""
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if georeference is None:
        return None
    with suppress(CRSError):
        if georeference.epsg is not None:
            return CRS.from_epsg(georeference.epsg)
    return _read_keys(georeference.keys)


def _read_keys(keys: dict[str, Any]) -> CRS | None:
    """None for keys that make no CRS: they come from files of any kind."""
    import numpy as np
    import rasterio
    import tifffile
    from rasterio.errors import RasterioError

    tags = key_tags(keys)
    if not tags:
        return None
    scale, tie = (1.0, 1.0, 0.0), (0.0,) * 6
    places = [(_SCALE, 12, 3, scale, True), (_TIE, 12, 6, tie, True)]
    memory = BytesIO()
    tifffile.imwrite(memory, np.zeros((1, 1), np.uint8), metadata=None, extratags=[*places, *tags])
    try:
        with rasterio.MemoryFile(memory.getvalue()) as file, file.open() as image:
            return image.crs
    except RasterioError:
        return None


def key_tags(keys: dict[str, Any]) -> list[Tag]:
    """keys: name -> value, as `Georeference.keys`. Empty where it has no key."""
    import tifffile

    ids = {key.name: int(key.value) for key in tifffile.TIFF.GEO_KEYS} if keys else {}
    known = sorted((ids[name], value) for name, value in keys.items() if name in ids)
    if not known:
        return []
    entries: list[int] = []
    doubles: list[float] = []
    texts = b""
    for code, value in known:
        if isinstance(value, int):
            entries += (code, 0, 1, value)
        elif isinstance(value, str):
            text = value.encode("ascii", "replace") + b"|"
            entries += (code, _TEXTS, len(text), len(texts))
            texts += text
        else:
            numbers = value if isinstance(value, list) else [value]
            entries += (code, _DOUBLES, len(numbers), len(doubles))
            doubles += numbers
    directory = (1, 1, 0, len(entries) // 4, *entries)
    return [
        (_DIRECTORY, 3, len(directory), directory, True),
        *([(_DOUBLES, 12, len(doubles), tuple(doubles), True)] if doubles else []),
        *([(_TEXTS, 2, len(texts) + 1, texts + b"\0", True)] if texts else []),
    ]
