"""A region of interest: named areas of polygons, in an image's pixels or on the Earth.

Points are (x, y), as in GeoJSON; in pixels, (0, 0) is the outer corner of the image's first pixel and (0.5, 0.5) its
centre. A pixel is inside where its centre is; rings that cross are first made valid (shapely.make_valid). What is
rasterised is always a cell of a fixed grid, so that no answer depends on which window is asked for.
"""

from __future__ import annotations

from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from gigamask.crossings import count_crossings
from gigamask.errors import InvalidOption
from gigamask.geojson import EXPECTED, WGS84, epsg_of, named_polygons, read_json
from gigamask.geometry import Box
from gigamask.image_info import ImageInfo

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_VERTICES = 10_000
MAX_AREAS = 1_000
MAX_CROSSINGS = 1_000  # a ring that crosses itself so often takes a second to be made valid; one of 300 points can 15
MAX_TOLD_VERTICES = 100
CELL_PX = 512
_EXPECTED = f"a box x,y,width,height in pixels, or GeoJSON: {EXPECTED}"
# Of a box, the pixel centres and a little more: nothing that `inside` could find lies beyond (half a pixel less this).
_CENTRES_PX = 0.5 - 1e-3

_Coordinate = Annotated[float, Field(strict=True, allow_inf_nan=False, ge=-1e9, le=1e9)]
Point = tuple[_Coordinate, _Coordinate]
Ring = Annotated[tuple[Point, ...], Field(min_length=4)]
Mask = NDArray[np.bool_]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Polygon(_Part):
    """rings: the outer one first, then holes; each closed: its last point is its first."""

    rings: Annotated[tuple[Ring, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _is_closed(self) -> Polygon:
        for ring in self.rings:
            if ring[0] != ring[-1]:
                raise ValueError(f"a ring ends where it begins, at {ring[0]}, not at {ring[-1]}")
        return self


class Area(_Part):
    name: Annotated[str, Field(min_length=1, max_length=200)]
    polygons: Annotated[tuple[Polygon, ...], Field(min_length=1)]


class Roi(_Part):
    """frame: what the points are in.

    pixel: level-0 pixels. crs: the CRS `epsg`, or the image's own where that is None. geojson: what GeoJSON without a
    word about it means: longitude and latitude (RFC 7946, section 4) where the image lies on the Earth, else pixels.
    """

    areas: Annotated[tuple[Area, ...], Field(min_length=1, max_length=MAX_AREAS)]
    frame: Literal["pixel", "crs", "geojson"] = "pixel"
    epsg: Annotated[int, Field(gt=0, lt=1_000_000)] | None = None

    @model_validator(mode="after")
    def _is_bounded(self) -> Roi:
        points = sum(len(ring) for polygon in self.polygons for ring in polygon.rings)
        if points > MAX_VERTICES:
            raise ValueError(f"a region of interest has at most {MAX_VERTICES:,} points, not {points:,}: simplify it")
        return self

    @property
    def polygons(self) -> tuple[Polygon, ...]:
        return tuple(polygon for area in self.areas for polygon in area.polygons)

    @cached_property
    def geometry(self) -> Any:
        """All areas as one valid shapely geometry, prepared for many questions. No part of what a Roi equals.

        Raises InvalidOption where their edges cross too often.
        """
        import shapely

        _require_few_crossings(self.polygons)
        parts = [_valid_parts(polygon) for polygon in self.polygons]
        whole = shapely.union_all(np.concatenate(parts))
        shapely.prepare(whole)
        return whole


def _require_few_crossings(polygons: tuple[Polygon, ...]) -> None:
    """A point that a polygon comes back to counts too: GEOS takes as long for a thousand that meet in one."""
    rings = [np.array(ring) for polygon in polygons for ring in polygon.rings]
    edges = np.concatenate([np.hstack([ring[:-1], ring[1:]]) for ring in rings])
    crossings = sum(map(_repeated_points, polygons))
    if crossings <= MAX_CROSSINGS:
        crossings += count_crossings(edges, MAX_CROSSINGS)
    if crossings > MAX_CROSSINGS:
        raise InvalidOption(f"edges of a region of interest cross more than {MAX_CROSSINGS:,} times: simplify it")


def _repeated_points(polygon: Polygon) -> int:
    points = [point for ring in polygon.rings for point in ring[:-1]]
    return len(points) - len(set(points))


def _valid_parts(polygon: Polygon) -> Any:
    """Shapely polygons: one, or more where rings cross; what is left over of them without an area is dropped."""
    import shapely

    outer, *holes = polygon.rings
    parts = shapely.get_parts(shapely.make_valid(shapely.Polygon(outer, holes)))
    return parts[shapely.get_dimensions(parts) == 2]


def parse_roi(given: str | dict[str, Any] | Roi, frame: Literal["pixel", "crs"] | None = None) -> Roi:
    """given: "x,y,width,height" in pixels, or GeoJSON (a Polygon, a MultiPolygon, Features of them) as text or object.

    A feature's `properties.name` names its area, else it is "area 1", and so on. frame: what the GeoJSON's points are
    in, over what it says itself. Also takes what `Roi.model_dump` gave. Raises InvalidOption.
    """
    if isinstance(given, Roi):
        return given
    if isinstance(given, str) and not given.lstrip().startswith(("{", "[")):
        return _parse_box(given)
    found = read_json(given) if isinstance(given, str) else given
    if not isinstance(found, dict):
        raise InvalidOption(f"a region of interest is {_EXPECTED}, not a {type(found).__name__}")
    if "areas" in found:
        return _checked(found)
    named = named_polygons(found)
    areas = [{"name": name, "polygons": [{"rings": rings} for rings in polygons]} for name, polygons in named]
    epsg = None if frame else epsg_of(found)
    return _checked({"areas": areas, "frame": frame or ("crs" if epsg else "geojson"), "epsg": epsg})


def _parse_box(text: str) -> Roi:
    try:
        x, y, width, height = (float(part) for part in text.split(","))
    except ValueError as exc:
        raise InvalidOption(f"a region of interest is {_EXPECTED}, not {text[:80]!r}") from exc
    if not (width > 0 and height > 0):
        raise InvalidOption(f"a box is x,y,width,height with width and height over 0, not {text[:80]!r}")
    ring = [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
    return _checked({"areas": [{"name": "area 1", "polygons": [{"rings": [ring]}]}]})


def _checked(found: dict[str, Any]) -> Roi:
    try:
        return Roi.model_validate(found)
    except ValidationError as exc:
        wrong = exc.errors(include_url=False)[0]
        place = ".".join(map(str, wrong["loc"]))
        got = f", got {str(wrong['input'])[:80]}" if wrong["type"] != "value_error" else ""
        raise InvalidOption(f"region of interest{place and f', {place}'}: {wrong['msg']}{got}") from exc


def abridged(roi: Roi) -> Roi:
    """What lists of jobs show: the same, or the rectangle around it where it has over MAX_TOLD_VERTICES points."""
    points = [point for polygon in roi.polygons for ring in polygon.rings for point in ring]
    if len(points) <= MAX_TOLD_VERTICES:
        return roi
    (x0, y0), (x1, y1) = (tuple(map(edge, zip(*points, strict=True))) for edge in (min, max))
    around = Polygon(rings=(((x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)),))
    named = roi.areas[0].name if len(roi.areas) == 1 else f"around {len(roi.areas)} areas"
    return Roi(areas=(Area(name=named, polygons=(around,)),), frame=roi.frame, epsg=roi.epsg)


def roi_in_pixels(roi: Roi, info: ImageInfo) -> Roi:
    """The same in frame `pixel`. Raises InvalidOption where it cannot be placed, or lies outside the image.

    Points are placed one by one; the lines between them are straight in the image.
    """
    plain = roi.frame == "pixel" or (roi.frame == "geojson" and info.georeference is None)
    placed = Roi(areas=roi.areas) if plain else _placed(roi, info)
    _require_meeting(placed, info)
    return placed


def _placed(roi: Roi, info: ImageInfo) -> Roi:
    place = info.georeference
    if place is None or place.transform is None:
        raise InvalidOption("the image has no geo-reference: give the region of interest in pixels")
    source = WGS84 if roi.frame == "geojson" else roi.epsg
    points = np.array([point for polygon in roi.polygons for ring in polygon.rings for point in ring])
    if source is not None and source != place.epsg:
        points = _reprojected(points, source, place.epsg)
    return _with_points(roi, _to_pixels(points, place.transform))


def _reprojected(points: NDArray[np.float64], source: int, target: int | None) -> NDArray[np.float64]:
    """points: (n, 2), x (longitude) first."""
    if target is None:
        raise InvalidOption(
            f"the image's CRS has no EPSG code, so that EPSG:{source} cannot be brought to it: "
            "give the region of interest in the image's own CRS (frame crs) or in pixels"
        )
    from rasterio.errors import CRSError
    from rasterio.warp import transform

    try:
        x, y = transform(f"EPSG:{source}", f"EPSG:{target}", points[:, 0], points[:, 1])[:2]
    except CRSError as exc:
        raise InvalidOption(f"EPSG:{source} cannot be brought to the image's EPSG:{target}: {exc}") from exc
    found = np.stack([x, y], axis=-1)
    if not np.isfinite(found).all():
        raise InvalidOption(f"the region of interest, in EPSG:{source}, cannot be brought to the image's EPSG:{target}")
    return found


def _to_pixels(points: NDArray[np.float64], transform: tuple[float, ...]) -> NDArray[np.float64]:
    """(n, 2) x, y of the CRS -> (n, 2) x (column), y (row): the inverse of the six figures."""
    x0, dx, rx, y0, ry, dy = transform
    x, y = points[:, 0] - x0, points[:, 1] - y0
    scale = dx * dy - rx * ry
    if scale == 0:
        raise InvalidOption(f"the image's transform {transform} has no inverse")
    return np.stack([(dy * x - rx * y) / scale, (dx * y - ry * x) / scale], axis=-1)


def _with_points(roi: Roi, points: NDArray[np.float64]) -> Roi:
    """points: (n, 2), in the order of the ROI's own."""
    rest = iter(points.tolist())
    areas = [
        {
            "name": area.name,
            "polygons": [{"rings": [list(islice(rest, len(ring))) for ring in p.rings]} for p in area.polygons],
        }
        for area in roi.areas
    ]
    return _checked({"areas": areas})


def _require_meeting(roi: Roi, info: ImageInfo) -> None:
    if touches(roi, Box(0, 0, info.height, info.width)):
        return
    if roi.geometry.is_empty:
        raise InvalidOption("no pixel of the image lies in the region of interest: its polygons have no area")
    x0, y0, x1, y1 = (f"{edge:.6g}" for edge in roi.geometry.bounds)
    raise InvalidOption(
        f"no pixel of the image lies in the region of interest: it spans x {x0} to {x1} and y {y0} to {y1} in pixels, "
        f"the image {info.width} x {info.height}"
    )


def touches(roi: Roi, box: Box) -> bool:
    """Whether a pixel of the level-0 box may be inside: True wherever `inside` is True anywhere in it."""
    _require_pixels(roi)
    import shapely

    centres = shapely.box(box.x0 + _CENTRES_PX, box.y0 + _CENTRES_PX, box.x1 - _CENTRES_PX, box.y1 - _CENTRES_PX)
    return bool(shapely.intersects(roi.geometry, centres))


def inside(roi: Roi, box: Box, level: int = 0) -> Mask:
    """box: in pixels of `level`. (h, w): whether the pixel's centre lies inside."""
    _require_pixels(roi)
    mask = np.zeros(box.shape, np.bool_)
    for cell in _cells(box):
        part = cell.intersect(box)
        mask[part.within(box).slices] = _inside_cell(roi, cell, level)[part.within(cell).slices]
    return mask


def _require_pixels(roi: Roi) -> None:
    if roi.frame != "pixel":
        raise ValueError(f"asked of a region of interest in pixels (roi_in_pixels), not in frame {roi.frame!r}")


def _cells(box: Box) -> Iterator[Box]:
    whole = box.snap(CELL_PX)
    for y in range(whole.y0, whole.y1, CELL_PX):
        for x in range(whole.x0, whole.x1, CELL_PX):
            yield Box(y, x, y + CELL_PX, x + CELL_PX)


def _inside_cell(roi: Roi, cell: Box, level: int) -> Mask:
    """(CELL_PX, CELL_PX). Rasterised only where the outline passes."""
    import shapely

    y0, x0, y1, x1 = (edge << level for edge in (cell.y0, cell.x0, cell.y1, cell.x1))
    frame = shapely.box(x0, y0, x1, y1)
    if not shapely.intersects(roi.geometry, frame):
        return np.zeros(cell.shape, np.bool_)
    if shapely.contains_properly(roi.geometry, frame):
        return np.ones(cell.shape, np.bool_)
    return _rasterise(roi, cell, level)


def _rasterise(roi: Roi, cell: Box, level: int) -> Mask:
    import shapely
    from rasterio.features import geometry_mask
    from rasterio.transform import Affine

    parts = [shapely.geometry.mapping(part) for part in shapely.get_parts(roi.geometry)]
    side = 1 << level
    transform = Affine(side, 0, cell.x0 * side, 0, side, cell.y0 * side)
    found: Mask = geometry_mask(parts, cell.shape, transform, all_touched=False, invert=True)
    return found
