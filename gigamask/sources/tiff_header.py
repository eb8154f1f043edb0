"""The tags of a TIFF that decide how its pixels are to be read, by tifffile; no pixel is touched."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigamask.errors import BadImage, UnsupportedImage
from gigamask.settings import Settings
from gigamask.sources.limits import check_size, translated
from gigamask.sources.tiff_directories import count_directories, is_bigtiff

CODECS = {
    1: "none",
    2: "ccitt",
    3: "g3",
    4: "g4",
    5: "lzw",
    6: "old-jpeg",
    7: "jpeg",
    8: "deflate",
    32773: "packbits",
    32946: "deflate",
    33003: "jpeg2000-ycc",
    33005: "jpeg2000",
    34712: "jpeg2000",
    34887: "lerc",
    34925: "lzma",
    50000: "zstd",
    50001: "webp",
    50002: "jpegxl",
    52546: "jpegxl",
}
_REDUCED, _MASK = 1, 4
MINISWHITE, MINISBLACK, RGB, PALETTE, SEPARATED, YCBCR, CIELAB = 0, 1, 2, 3, 5, 6, 8


@dataclass(frozen=True, slots=True)
class TiffHeader:
    """One page.

    planes: how many pages of this size there are. mask: the page that is this one's mask (NewSubfileType 4).
    cell: (height, width) of a tile, or of a strip. extra: ExtraSamples. role: GDAL's word for the last band.
    """

    path: Path
    page: int
    planes: int
    big: bool
    height: int
    width: int
    bands: int
    bits: int
    dtype: np.dtype[Any] | None
    codec: int
    photometric: int
    separate: bool
    tiled: bool
    cell: tuple[int, int]
    extra: tuple[int, ...]
    role: str | None
    orientation: int
    palette: NDArray[np.uint8] | None
    icc: bytes | None
    nodata: float | None
    description: str
    resolution: tuple[float, float] | None
    geokeys: dict[str, Any]
    mask: TiffHeader | None = None

    @property
    def codec_name(self) -> str:
        return CODECS.get(self.codec, str(self.codec))


def read_tiff_header(path: Path, settings: Settings) -> TiffHeader:
    """Raises BadImage, UnsupportedImage or ImageTooLarge."""
    count = count_directories(path, settings.max_pages)
    with translated("the TIFF tags cannot be read"):
        import tifffile

        with tifffile.TiffFile(path) as tiff:
            pages: list[Any] = [tiff.pages[i] for i in range(count)]
            index = _first_full_page(pages)
            page = pages[index]
            _check_page(page, settings)
            same = [i for i, p in enumerate(pages) if _shape(p) == _shape(page)]
            masks = [i for i in same if int(pages[i].subfiletype) & _MASK and pages[i].bitspersample in (1, 8)]
            planes = [i for i in same if not int(pages[i].subfiletype) & (_MASK | _REDUCED)]
            mask = _header_of(path, pages[masks[0]], masks[0], 1) if masks else None
            return replace(_header_of(path, page, index, len(planes)), mask=mask)


def _first_full_page(pages: list[Any]) -> int:
    full = [i for i, page in enumerate(pages) if not int(page.subfiletype) & (_REDUCED | _MASK)]
    return full[0] if full else 0


def _shape(page: Any) -> tuple[int, int]:
    return int(page.imagelength), int(page.imagewidth)


def _check_page(page: Any, settings: Settings) -> None:
    height, width = _shape(page)
    check_size(height, width, int(page.samplesperpixel), settings)
    if int(page.imagedepth) != 1:
        raise UnsupportedImage(f"volumes in one TIFF page are not read; this one is {page.imagedepth} deep")
    if page.is_tiled and (page.tilelength < 1 or page.tilewidth < 1):
        raise BadImage(f"a tile has at least 1 x 1 px; this TIFF says {page.tilewidth} x {page.tilelength}")
    if int(page.compression) not in CODECS:
        raise UnsupportedImage(f"TIFF compression {int(page.compression)} is not read")


def _header_of(path: Path, page: Any, index: int, planes: int) -> TiffHeader:
    height, width = _shape(page)
    tiled = bool(page.is_tiled)
    rows = min(int(page.rowsperstrip) or height, height)
    bits = page.bitspersample
    if not isinstance(bits, int):
        raise UnsupportedImage(f"bands of different widths are not read; this TIFF has {tuple(bits)} bits")
    orientation = _number(page, 274) or 1
    return TiffHeader(
        path,
        index,
        planes,
        is_bigtiff(path),
        height,
        width,
        int(page.samplesperpixel),
        bits,
        _dtype(page),
        int(page.compression),
        int(page.photometric),
        int(page.planarconfig) == 2,
        tiled,
        (int(page.tilelength), int(page.tilewidth)) if tiled else (rows, width),
        tuple(int(extra) for extra in page.extrasamples),
        _last_role(page),
        orientation if 1 <= orientation <= 8 else 1,
        _palette(page),
        _value(page, 34675),
        _nodata(page),
        str(page.description or "")[:1_000_000],
        _resolution(page),
        dict(page.geotiff_tags or {}) if 34735 in page.tags else {},
    )


def _dtype(page: Any) -> np.dtype[Any] | None:
    """Of decoded samples: 1, 2 and 4 bits come as uint8."""
    if page.dtype is None:
        return None
    return np.dtype(np.uint8) if page.dtype == bool else np.dtype(page.dtype).newbyteorder("=")


def _value(page: Any, code: int) -> Any:
    tag = page.tags.get(code)
    return None if tag is None else tag.value


def _number(page: Any, code: int) -> int | None:
    value = _value(page, code)
    return int(value) if isinstance(value, int) else None


def _palette(page: Any) -> NDArray[np.uint8] | None:
    """(n, 3); the tag has 16 bits a colour, of which the upper 8 count (TIFF 6.0, section 5)."""
    table = page.colormap
    if int(page.photometric) != PALETTE or table is None:
        return None
    shift = 8 if int(np.max(table)) > 255 else 0
    return (np.asarray(table).T >> shift).astype(np.uint8)


def _nodata(page: Any) -> float | None:
    """GDAL's tag 42113: the value as text."""
    text = _value(page, 42113)
    try:
        return None if text is None else float(text)
    except (TypeError, ValueError):
        return None


def _last_role(page: Any) -> str | None:
    """What GDAL's metadata (tag 42112) calls the last band: "Alpha", "Undefined", ..."""
    last = int(page.samplesperpixel) - 1
    found = re.search(rf'name="COLORINTERP" sample="{last}"[^>]*>([^<]*)<', str(_value(page, 42112) or ""))
    return found[1] if found else None


def _resolution(page: Any) -> tuple[float, float] | None:
    """(y, x) micrometres a pixel from tags in pixels per centimetre; None for inches and for nonsense."""
    if _number(page, 296) != 3:
        return None
    sizes = [_micrometres(_value(page, code)) for code in (283, 282)]
    return (sizes[0], sizes[1]) if sizes[0] and sizes[1] else None


def _micrometres(per_centimetre: Any) -> float | None:
    try:
        top, bottom = per_centimetre
        return float(1e4 * bottom / top)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
