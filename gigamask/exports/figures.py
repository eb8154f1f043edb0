"""Figures as people read them: areas, lengths, shares and counts in words of a page."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gigamask.image_info import ImageInfo

# By the image's unit: from which value on, its size in the unit, its name. The largest that fits is used.
_LENGTHS = {
    "micrometer": ((0.0, 1.0, "µm"), (1e3, 1e3, "mm"), (1e5, 1e4, "cm")),
    "meter": ((0.0, 1.0, "m"), (1e3, 1e3, "km")),
}
_AREAS = {
    "micrometer": ((0.0, 1.0, "µm²"), (1e5, 1e6, "mm²")),
    "meter": ((0.0, 1.0, "m²"), (1e4, 1e4, "ha"), (1e7, 1e6, "km²")),
}
_BAR_SHARE = 0.28


def count_text(number: int) -> str:
    return f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def share_text(share: float | None) -> str:
    """`12.3 %`; what is there is never shown as nothing."""
    if share is None:
        return "–"
    return "< 0.1 %" if 0 < share < 0.0005 else f"{share * 100:.1f} %"


def pixels_text(pixels: int) -> str:
    """`12.3 MP`"""
    for size, name in ((1e12, "TP"), (1e9, "GP"), (1e6, "MP")):
        if pixels >= size:
            return f"{_digits(pixels / size)} {name}"
    return f"{count_text(pixels)} px"


def area_text(pixels: int, info: ImageInfo, beside: int | None = None) -> str:
    """Of so many level-0 pixels: in the image's unit, or in pixels where it has none.

    beside: the largest of the areas that are read together, which decides their unit.
    """
    if info.pixel_area is None or info.unit is None:
        return pixels_text(pixels)
    size, name = _scale((beside or pixels) * info.pixel_area, _AREAS[info.unit])
    return f"{_digits(pixels * info.pixel_area / size)} {name}"


def extent_text(info: ImageInfo) -> str | None:
    """`1.1 x 1.48 mm`, width first; None where pixels have no size."""
    if info.pixel_size is None or info.unit is None:
        return None
    height, width = info.height * info.pixel_size[0], info.width * info.pixel_size[1]
    size, name = _scale(max(height, width), _LENGTHS[info.unit])
    return f"{_digits(width / size)} × {_digits(height / size)} {name}"


def pixel_size_text(info: ImageInfo) -> str | None:
    """`0.499 µm`, or both sides, width first, where they differ."""
    if info.pixel_size is None or info.unit is None:
        return None
    name = _LENGTHS[info.unit][0][2]
    height, width = (_digits(side, 4) for side in info.pixel_size)
    return f"{width} {name}" if width == height else f"{width} × {height} {name}"


@dataclass(frozen=True, slots=True)
class ScaleBar:
    """share: of the picture's width, in (0, 1)."""

    text: str
    share: float


def scale_bar(info: ImageInfo) -> ScaleBar | None:
    """1, 2 or 5 times a power of ten, at most _BAR_SHARE of the width."""
    if info.pixel_size is None or info.unit is None:
        return None
    width = info.width * info.pixel_size[1]
    longest = width * _BAR_SHARE
    ten = 10.0 ** math.floor(math.log10(longest))
    length = next(step * ten for step in (5, 2, 1) if step * ten <= longest)
    size, name = _scale(length, _LENGTHS[info.unit])
    return ScaleBar(f"{_digits(length / size)} {name}", length / width)


def _scale(value: float, units: tuple[tuple[float, float, str], ...]) -> tuple[float, str]:
    _, size, name = [unit for unit in units if value >= unit[0]][-1]
    return size, name


def _digits(value: float, digits: int = 3) -> str:
    """So many significant ones, without an exponent."""
    if value >= 10**digits:
        return count_text(round(value))
    return f"{float(f'{value:.{digits}g}'):.12f}".rstrip("0").rstrip(".")
