"""Where polygons lie in a file: pixels, as QuPath counts them, or the CRS of an image that has a geo-reference.

Pixels are level-0 ones from the pyramid's corner, which is the corner of what a scanner calls bounds, and of what
QuPath shows; the scanner's own frame begins `ImageInfo.offset_px` before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import shapely
from numpy.typing import NDArray

from gigamask.image_info import ImageInfo

Points = NDArray[np.float64]
Transform = tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class Frame:
    """transform: pixels to the CRS, in GDAL's order, or None: pixels stay. decimals: to a thousandth of a pixel."""

    transform: Transform | None = None
    decimals: int = 0

    def place(self, polygon: shapely.Geometry) -> shapely.Geometry:
        """Outer rings run counter-clockwise (RFC 7946, section 3.1.6)."""
        placed = polygon if self.transform is None else shapely.transform(polygon, self._to_crs)
        return shapely.orient_polygons(placed)

    def _to_crs(self, points: Points) -> Points:
        assert self.transform is not None
        x0, dx, rx, y0, ry, dy = self.transform
        columns, rows = points[:, 0], points[:, 1]
        placed: Points = np.stack([x0 + columns * dx + rows * rx, y0 + columns * ry + rows * dy], axis=1)
        return placed.round(self.decimals)


PIXELS = Frame()


def frame_of(info: ImageInfo) -> Frame:
    place = info.georeference
    if place is None or place.transform is None:
        return PIXELS
    return Frame(place.transform, _decimals(place.transform))


def _decimals(transform: Transform) -> int:
    _, dx, rx, _, ry, dy = transform
    side = max(math.hypot(dx, ry), math.hypot(rx, dy), 1e-12)
    return max(0, 3 - math.floor(math.log10(side)))


def rings_of(polygon: shapely.Polygon) -> list[list[list[float]]]:
    """GeoJSON's coordinates of a Polygon; whole numbers as such."""
    return [_numbers(ring) for ring in (polygon.exterior, *polygon.interiors)]


def _numbers(ring: shapely.LinearRing) -> list[list[float]]:
    points = shapely.get_coordinates(ring)
    whole = points.astype(np.int64)
    found: list[list[float]] = (whole if (whole == points).all() else points).tolist()
    return found
