"""Regions of interest: what is read, which pixels they hold, and what is refused."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gigamask.errors import InvalidOption
from gigamask.geometry import Box, level_shape
from gigamask.image_info import Georeference, ImageInfo
from gigamask.roi import CELL_PX, MAX_VERTICES, Area, Polygon, Roi, inside, parse_roi, roi_in_pixels, touches

GEOTIFFS = (Path(__file__).parents[1] / "../shared/data/geotiff").resolve()
SQUARE = [[10, 20], [40, 20], [40, 60], [10, 60], [10, 20]]
HOLE = [[20, 30], [30, 30], [30, 40], [20, 40], [20, 30]]
UTM = Georeference(epsg=32633, transform=(500_000.0, 10.0, 0.0, 4_600_000.0, 0.0, -10.0))


def image(height: int = 1000, width: int = 2000, georeference: Georeference | None = None) -> ImageInfo:
    return ImageInfo(height=height, width=width, channels=3, format="test", georeference=georeference)


def polygon(*rings: list[list[float]], **members: Any) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": list(rings)} | members


def feature(geometry: dict[str, Any], **properties: Any) -> dict[str, Any]:
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def crs(name: str) -> dict[str, Any]:
    return {"crs": {"type": "name", "properties": {"name": name}}}


def pixels_of(roi: Roi, shape: tuple[int, int] = (100, 100)) -> set[tuple[int, int]]:
    return {(int(y), int(x)) for y, x in np.argwhere(inside(roi, Box(0, 0, *shape)))}


def in_pixels(given_roi: Any) -> Roi:
    return roi_in_pixels(parse_roi(given_roi), image())


def test_a_box_holds_the_pixels_it_covers() -> None:
    roi = parse_roi("10,20,30,40")
    assert roi.frame == "pixel"
    assert pixels_of(roi) == {(y, x) for y in range(20, 60) for x in range(10, 40)}


def test_a_pixel_is_inside_where_its_centre_is() -> None:
    assert pixels_of(parse_roi("10.4,20.4,2,1")) == {(20, 10), (20, 11)}
    assert pixels_of(parse_roi("10.6,20.6,2,1")) == {(21, 11), (21, 12)}
    assert pixels_of(parse_roi("10.6,20.6,0.8,0.8")) == set()


def test_holes_are_outside_and_many_polygons_are_one_region() -> None:
    holed = in_pixels(polygon(SQUARE, HOLE))
    assert len(pixels_of(holed)) == 30 * 40 - 10 * 10
    both = in_pixels({"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [HOLE]]})
    assert pixels_of(both) == pixels_of(in_pixels(polygon(SQUARE)))


def test_each_feature_is_an_area_with_its_own_name() -> None:
    features = [
        feature(polygon(SQUARE), name="tumour"),
        feature(polygon(HOLE)),
        feature(polygon(HOLE), name="tumour"),
        feature({"type": "MultiPolygon", "coordinates": [[SQUARE], [HOLE]]}, name=" stroma "),
        feature(polygon(SQUARE), name=7),
    ]
    roi = parse_roi({"type": "FeatureCollection", "features": features})
    assert [area.name for area in roi.areas] == ["tumour", "area 2", "tumour (2)", "stroma", "area 5"]
    assert [len(area.polygons) for area in roi.areas] == [1, 1, 1, 2, 1]


def test_text_and_object_are_read_alike_and_survive_the_wire() -> None:
    given_roi = feature(polygon(SQUARE, HOLE), name="a")
    roi = parse_roi(json.dumps(given_roi))
    assert roi == parse_roi(given_roi) == parse_roi(roi)
    assert Roi.model_validate_json(roi.model_dump_json()) == roi == parse_roi(roi.model_dump(mode="json"))
    assert not roi.geometry.is_empty  # kept with it, and no part of what it equals
    assert roi == parse_roi(given_roi)
    assert hash(roi) == hash(parse_roi(given_roi))


def test_an_open_ring_is_closed_and_heights_are_dropped() -> None:
    open_ring = [[x, y, 5.0] for x, y in SQUARE[:-1]]
    assert parse_roi(polygon(open_ring)) == parse_roi(polygon(SQUARE))


def test_a_ring_that_crosses_itself_fills_both_its_halves() -> None:
    bow_tie = in_pixels(polygon([[0, 0], [20, 20], [20, 0], [0, 20], [0, 0]]))
    held = pixels_of(bow_tie)
    assert {(10, 1), (10, 18)} <= held
    assert not {(1, 10), (18, 10)} & held
    assert touches(bow_tie, Box(9, 0, 11, 3))
    assert not touches(bow_tie, Box(0, 9, 3, 11))


quarters = st.integers(-200, 5000).map(lambda n: n / 4)
corners = st.tuples(quarters, quarters)
outlines = st.lists(corners, min_size=3, max_size=9, unique=True)


def polygon_through(points: list[tuple[float, float]]) -> Roi:
    ring = (*points, points[0])
    return Roi(areas=(Area(name="a", polygons=(Polygon(rings=(ring,)),)),))


@settings(max_examples=60, deadline=None)
@given(outlines, st.integers(0, 2), st.tuples(*[st.integers(0, 900)] * 2), st.integers(1, 700), st.integers(1, 700))
def test_no_answer_depends_on_the_window(
    points: list[tuple[float, float]], level: int, corner: tuple[int, int], height: int, width: int
) -> None:
    roi = polygon_through(points)
    whole_shape = level_shape((1000, 1300), level)
    whole = inside(roi, Box(0, 0, *whole_shape), level)
    y, x = (n >> level for n in corner)
    box = Box(y, x, y + height, x + width).clip(whole_shape)
    assert np.array_equal(inside(roi, box, level), whole[box.slices])


@settings(max_examples=60, deadline=None)
@given(outlines, st.tuples(*[st.integers(0, 1100)] * 2), st.integers(1, 200))
def test_where_a_pixel_is_inside_its_box_is_touched(
    points: list[tuple[float, float]], corner: tuple[int, int], side: int
) -> None:
    roi, (y, x) = polygon_through(points), corner
    box = Box(y, x, y + side, x + side)
    held = inside(roi, box)
    assert touches(roi, box) or not held.any()
    for row, col in np.argwhere(held)[:3].tolist():
        assert touches(roi, Box(y + row, x + col, y + row + 1, x + col + 1))


@settings(max_examples=40, deadline=None)
@given(outlines, st.integers(0, 2))
def test_inside_is_what_shapely_says_of_the_centres(points: list[tuple[float, float]], level: int) -> None:
    roi = polygon_through(points)
    y, x = np.random.default_rng(0).integers(0, 300, (2, 800))
    centres = shapely.points((x + 0.5) * 2**level, (y + 0.5) * 2**level)
    expected, clear = shapely.contains(roi.geometry, centres), ~shapely.dwithin(roi.geometry.boundary, centres, 1e-6)
    assert np.array_equal(inside(roi, Box(0, 0, 300, 300), level)[y, x][clear], expected[clear])


def test_a_box_is_touched_where_it_holds_a_pixel_and_not_where_only_edges_meet() -> None:
    roi = parse_roi("512,512,512,512")
    cells = [(r, c) for r in range(4) for c in range(4) if touches(roi, cell_at(r, c))]
    assert cells == [(1, 1)]


@pytest.mark.parametrize("corner", [(0, 0), (0, 9), (9, 0), (9, 9)])
def test_a_box_is_touched_where_a_corner_holds_a_single_centre(corner: tuple[int, int]) -> None:
    x, y = corner
    assert touches(parse_roi(f"{x + 0.4},{y + 0.4},0.2,0.2"), Box(0, 0, 10, 10))
    assert not touches(parse_roi(f"{x + 0.4},{y + 0.4},0.2,0.2"), Box(0, 0, 10, 10).grow(-1))


def cell_at(row: int, col: int) -> Box:
    return Box(row * CELL_PX, col * CELL_PX, (row + 1) * CELL_PX, (col + 1) * CELL_PX)


def test_ten_thousand_points_are_answered_at_once_and_one_more_is_refused() -> None:
    angles = [2 * math.pi * k / (MAX_VERTICES - 1) for k in range(MAX_VERTICES - 1)]
    radii = [900 + 60 * math.sin(31 * a) for a in angles]
    ring = [[1000 + r * math.cos(a), 1000 + r * math.sin(a)] for a, r in zip(angles, radii, strict=True)]
    roi = in_pixels(polygon(ring))
    assert sum(touches(roi, cell_at(r, c)) for r in range(4) for c in range(4)) >= 12
    assert inside(roi, Box(0, 0, 2048, 2048)).mean() == pytest.approx(math.pi * (900**2 + 1800) / 2048**2, rel=1e-3)
    with pytest.raises(InvalidOption, match="at most 10,000 points"):
        parse_roi(polygon([*ring, [1000, 1000]]))


def tangled(kind: str) -> dict[str, Any]:
    """Few points, whose edges meet so often that GEOS would take minutes or hours, and gigabytes."""
    if kind == "ring":
        return polygon((np.random.default_rng(0).random((2_000, 2)) * 900).tolist())
    if kind == "line":
        return polygon([[x, 5.0] for x in (np.random.default_rng(0).random(2_000) * 900)])
    if kind == "spokes":
        angles = np.linspace(0, 6, 3_000)
        return polygon(
            [p for a in angles for p in ([400.0, 400.0], [400 + 300 * math.cos(a), 400 + 300 * math.sin(a)])]
        )
    slats = [[[0, y], [900, y + 0.1], [900, y + 0.2]] for y in np.linspace(1, 800, 1_000)]
    crossed = [[[y, x] for x, y in ring] for ring in slats]
    return {"type": "MultiPolygon", "coordinates": [[ring] for ring in slats + crossed]}


@pytest.mark.parametrize("kind", ["ring", "line", "slats", "spokes"])
def test_edges_that_cross_without_end_are_refused_at_once(kind: str) -> None:
    started = time.process_time()
    with pytest.raises(InvalidOption, match="cross more than 1,000 times: simplify it"):
        in_pixels(tangled(kind))
    assert time.process_time() - started < 5


def test_many_areas_side_by_side_do_not_cross() -> None:
    corners = [(x, y) for x in range(0, 900, 25) for y in range(0, 600, 25)]
    cells = [[[x, y], [x + 25, y], [x + 25, y + 25], [x, y + 25]] for x, y in corners]
    tiled = in_pixels({"type": "MultiPolygon", "coordinates": [[ring] for ring in cells]})
    assert len(pixels_of(tiled)) == 100 * 100


def test_features_of_one_name_are_read_in_no_time() -> None:
    started = time.process_time()
    with pytest.raises(InvalidOption, match="at most 1000"):
        parse_roi({"type": "FeatureCollection", "features": [feature(polygon(SQUARE), name="a")] * 20_000})
    assert time.process_time() - started < 5


def test_points_in_the_images_own_crs_become_pixels_by_its_transform() -> None:
    corner = [500_000 + 10 * 100, 4_600_000 - 10 * 200]
    ring = [corner, [corner[0] + 300, corner[1]], [corner[0] + 300, corner[1] - 400], [corner[0], corner[1] - 400]]
    for roi in (parse_roi(polygon(ring), frame="crs"), parse_roi(polygon(ring, **crs("urn:ogc:def:crs:EPSG::32633")))):
        assert roi.frame == "crs"
        placed = roi_in_pixels(roi, image(georeference=UTM))
        assert placed.frame == "pixel"
        assert pixels_of(placed, (300, 300)) == {(y, x) for y in range(200, 240) for x in range(100, 130)}


def test_a_rotated_transform_is_undone() -> None:
    figures = (100.0, 2.0, 0.5, 900.0, 0.25, -3.0)
    at = [
        [figures[0] + x * figures[1] + y * figures[2], figures[3] + x * figures[4] + y * figures[5]] for x, y in SQUARE
    ]
    placed = roi_in_pixels(parse_roi(polygon(at), frame="crs"), image(georeference=Georeference(transform=figures)))
    np.testing.assert_allclose(placed.polygons[0].rings[0], SQUARE)


@pytest.mark.parametrize("members", [{}, crs("urn:ogc:def:crs:OGC:1.3:CRS84"), crs("EPSG:4326")])
def test_geojson_on_an_image_of_the_earth_is_longitude_and_latitude(members: dict[str, Any]) -> None:
    """The upper left corner of UTM zone 33's (500000, 4600000) is at 15 E, 41.55 N."""
    from rasterio.warp import transform

    x, y = [500_000 + 10 * px for px in (100, 130, 130, 100)], [4_600_000 - 10 * py for py in (200, 200, 240, 240)]
    lon, lat = transform("EPSG:32633", "EPSG:4326", x, y)
    assert 15 < lon[0] < 15.1
    assert 41.4 < lat[0] < 41.6
    roi = parse_roi(polygon([list(p) for p in zip(lon, lat, strict=True)], **members))
    placed = roi_in_pixels(roi, image(georeference=UTM))
    np.testing.assert_allclose(placed.polygons[0].rings[0][0], (100, 200), atol=1e-3)


def test_geojson_on_an_image_without_a_place_is_in_pixels() -> None:
    roi = parse_roi(polygon(SQUARE))
    assert pixels_of(roi_in_pixels(roi, image())) == pixels_of(parse_roi("10,20,30,40"))
    with pytest.raises(ValueError, match="roi_in_pixels"):
        inside(roi, Box(0, 0, 10, 10))


@pytest.mark.skipif(not GEOTIFFS.is_dir(), reason="needs ../shared/data/geotiff")
def test_a_real_satellite_image_is_placed_as_rasterio_places_it() -> None:
    import rasterio
    from rasterio.warp import transform

    from gigamask.image_info import ReadOptions
    from gigamask.settings import Settings
    from workers.ingest import inspect

    path = GEOTIFFS / "sentinel2_tci.tif"
    info = inspect(path, ReadOptions(), Settings())
    with rasterio.open(path) as dataset:
        x, y = zip(
            *[dataset.xy(row, col, offset="ul") for col, row in [(300, 500), (400, 500), (400, 650), (300, 650)]],
            strict=True,
        )
        lon, lat = transform(dataset.crs, "EPSG:4326", x, y)
    placed = roi_in_pixels(parse_roi(polygon([list(p) for p in zip(lon, lat, strict=True)])), info)
    held = inside(placed, Box(0, 0, *info.shape))
    assert held.sum() == 100 * 150
    assert held[500:650, 300:400].all()


REFUSED = {
    "10,20,30": "x,y,width,height.*not '10,20,30'",
    "10,20,0,5": "width and height over 0, not '10,20,0,5'",
    "nan,0,1,1": "finite number, got nan",
    "here": "x,y,width,height.*not 'here'",
    "{": "no JSON",
    "[1, 2]": "not a list",
    '{"type": "Point", "coordinates": [1, 2]}': "Polygon or MultiPolygon.*'Point'",
    '{"type": "Feature", "geometry": null}': "geometry of type 'None'",
    '{"type": "FeatureCollection", "features": []}': "at least one; got none",
    '{"type": "FeatureCollection", "features": [5]}': "feature 1 .* is no Feature: 5",
    '{"type": "Polygon"}': "lists of rings",
    '{"type": "Polygon", "coordinates": [[]]}': "lists of rings",
    '{"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}': "at least 4 items",
    '{"type": "Polygon", "coordinates": [[[1, 2], [3, 1e400], [3, 4]]]}': "finite number, got inf",
    '{"type": "Polygon", "coordinates": [[[1, 2], [3, true], [3, 4]]]}': "valid number, got True",
    '{"type": "Polygon", "coordinates": [[[1, 2], [3, "4"], [3, 4]]]}': "valid number, got 4",
    '{"type": "Polygon", "coordinates": [[[1, 2], [1e300, 4], [3, 4]]]}': "less than or equal to 1000000000, got 1e",
    '{"type": "Polygon", "coordinates": [], "crs": {"properties": {"name": "Mars"}}}': "EPSG code.*'Mars'",
    '{"type": "Polygon", "coordinates": [], "crs": 5}': "EPSG code.*got 5",
    "[" * 100_000: "no JSON",
}


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_wrong_is_told_with_what_is_expected(text: str) -> None:
    with pytest.raises(InvalidOption, match=REFUSED[text]):
        parse_roi(text)


def test_a_ring_left_open_is_refused_on_the_wire() -> None:
    with pytest.raises(ValidationError, match="a ring ends where it begins"):
        Roi.model_validate({"areas": [{"name": "a", "polygons": [{"rings": [[[0, 0], [1, 0], [1, 1], [0, 1]]]}]}]})


def test_a_region_that_cannot_be_placed_is_told_with_the_way_out() -> None:
    with pytest.raises(InvalidOption, match="no geo-reference: give the region of interest in pixels"):
        roi_in_pixels(parse_roi(polygon(SQUARE, **crs("EPSG:4326"))), image())
    nameless = Georeference(transform=UTM.transform)
    with pytest.raises(InvalidOption, match="CRS has no EPSG code"):
        roi_in_pixels(parse_roi(polygon(SQUARE)), image(georeference=nameless))
    with pytest.raises(InvalidOption, match=r"EPSG:999999 cannot .* EPSG:32633: .*unknown"):
        roi_in_pixels(parse_roi(polygon(SQUARE, **crs("EPSG:999999"))), image(georeference=UTM))


def test_a_region_beyond_the_image_is_told_with_both_sizes() -> None:
    with pytest.raises(InvalidOption, match=r"x 5000 to 5010 and y 0 to 10 .* the image 2000 x 1000"):
        roi_in_pixels(parse_roi("5000,0,10,10"), image())
    flat = polygon([[1, 1], [5, 5], [9, 9], [1, 1]])
    with pytest.raises(InvalidOption, match=r"no pixel of the image .* no area"):
        roi_in_pixels(parse_roi(flat), image())
