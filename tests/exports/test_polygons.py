"""The laws of outlines: they give the mask back, leave no gaps, and do not depend on blocks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from rasterio.features import rasterize

from gigamask.errors import InvalidOption
from gigamask.exports.catalog import ExportOptions
from gigamask.exports.polygons import Grid, Outline, trace_polygons, trace_result
from gigamask.manifest import NO_DATA
from gigamask.pyramid.halve import halve_mode
from gigamask.roi import parse_roi
from tests.exports.results_for_tests import Labels, blobs, make_result

small_masks = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=14), elements=st.sampled_from([0, 1, 255]))
block_sides = st.integers(1, 9)


def grid_of(labels: Labels) -> Grid:
    return Grid(lambda box: labels[box.slices], labels.shape, labels.shape)


def burn(outlines: Iterable[Outline], shape: tuple[int, int]) -> Labels:
    shapes = [(outline.polygon, outline.label) for outline in outlines]
    return rasterize(shapes, shape, fill=NO_DATA, dtype="uint8") if shapes else np.full(shape, NO_DATA, np.uint8)


def is_coverage(outlines: Iterable[Outline]) -> bool:
    polygons = np.array([outline.polygon for outline in outlines], object)
    return bool(shapely.is_valid(polygons).all() and (len(polygons) == 0 or shapely.coverage_is_valid(polygons)))


def canonical(outlines: Iterable[Outline]) -> list[tuple[int, str]]:
    """Without the vertices on straight edges, which neighbours may or may not share."""
    return sorted((o.label, shapely.normalize(_without_straight(o.polygon)).wkt) for o in outlines)


def _without_straight(polygon: shapely.Polygon) -> shapely.Polygon:
    def corners(ring: shapely.LinearRing) -> np.ndarray:
        points = shapely.get_coordinates(ring)[:-1]
        before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
        return points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]

    return shapely.Polygon(corners(polygon.exterior), [corners(ring) for ring in polygon.interiors])


@settings(max_examples=80, deadline=None)
@given(small_masks, block_sides)
def test_outlines_rasterised_give_the_mask_back_and_leave_no_gap(labels: Labels, block_px: int) -> None:
    outlines = list(trace_polygons(grid_of(labels), block_px=block_px))
    assert np.array_equal(burn(outlines, labels.shape), labels)
    assert sum(o.polygon.area for o in outlines) == np.count_nonzero(labels != NO_DATA)
    assert is_coverage(outlines)


@settings(max_examples=60, deadline=None)
@given(small_masks, block_sides)
def test_outlines_do_not_depend_on_blocks(labels: Labels, block_px: int) -> None:
    whole = canonical(trace_polygons(grid_of(labels), block_px=99))
    assert canonical(trace_polygons(grid_of(labels), block_px=block_px)) == whole


@settings(max_examples=60, deadline=None)
@given(small_masks, block_sides, st.floats(0.5, 5))
def test_simplified_neighbours_neither_overlap_nor_leave_gaps(labels: Labels, block_px: int, by_px: float) -> None:
    labels = np.where(labels == NO_DATA, 2, labels).astype(np.uint8)
    outlines = list(trace_polygons(grid_of(labels), by_px, block_px=block_px))
    assert is_coverage(outlines)
    assert sum(o.polygon.area for o in outlines) == pytest.approx(labels.size)
    assert shapely.union_all([o.polygon for o in outlines]).equals(shapely.box(0, 0, *labels.shape[::-1]))


def test_a_ring_around_a_hole_that_spans_blocks_is_one_polygon_with_one_hole() -> None:
    labels = np.zeros((30, 30), np.uint8)
    labels[4:26, 4:26] = 1
    found = [o for o in trace_polygons(grid_of(labels), block_px=8) if o.label == 0]
    assert [len(o.polygon.interiors) for o in found] == [1]
    assert found[0].polygon.area == 30 * 30 - 22 * 22


def test_pixels_that_touch_at_a_corner_are_two_polygons() -> None:
    labels = np.array([[1, 0], [0, 1]], np.uint8)
    found = list(trace_polygons(grid_of(labels)))
    assert sorted((o.label, o.polygon.area) for o in found) == [(0, 1), (0, 1), (1, 1), (1, 1)]
    assert is_coverage(found)


def test_a_pinched_hole_is_valid_in_any_block() -> None:
    """Two holes that touch at a corner, and an outline that touches itself: what makes other tracers' rings invalid."""
    labels = np.zeros((8, 8), np.uint8)
    labels[2, 2] = labels[3, 3] = labels[0, 5] = labels[1, 6] = 1
    for block_px in (2, 3, 8):
        found = list(trace_polygons(grid_of(labels), block_px=block_px))
        assert is_coverage(found)
        assert np.array_equal(burn(found, labels.shape), labels)


def test_simplifying_takes_most_vertices_and_little_area() -> None:
    labels = blobs((700, 900), size_px=14)
    exact, simple = (list(trace_polygons(grid_of(labels), by, block_px=256)) for by in (0.0, 2.0))
    count, less = (sum(shapely.get_num_coordinates(o.polygon) for o in found) for found in (exact, simple))
    assert less < count / 2
    assert is_coverage(simple)
    for label in range(3):
        area, kept = (sum(o.polygon.area for o in found if o.label == label) for found in (exact, simple))
        assert kept == pytest.approx(area, rel=0.02)


def test_a_polygon_with_too_many_vertices_comes_in_parts_that_cover_the_same() -> None:
    labels = blobs((300, 400), size_px=2)
    found = list(trace_polygons(grid_of(labels), block_px=32, max_vertices=500))
    assert np.array_equal(burn(found, labels.shape), labels)
    assert is_coverage(found)
    assert max(shapely.get_num_coordinates(o.polygon) for o in found) < 2 * 500
    assert any(o.part for o in found)
    whole = list(trace_polygons(grid_of(labels), block_px=32))
    assert not any(o.part for o in whole)
    small = [canonical([o])[0] for o in found if not o.part]
    assert set(small) <= set(canonical(whole))


def test_what_is_held_is_bounded_by_rows_of_blocks_not_by_the_image() -> None:
    """A comb that hangs together over the whole height is handed out on the way."""
    labels = np.zeros((3000, 64), np.uint8)
    labels[:, 1::2] = 1
    labels[0] = 1
    labels[::2, 0] = 1
    read: list[int] = []
    grid = Grid(lambda box: (read.append(box.y1), labels[box.slices])[1], labels.shape, labels.shape)
    found = []
    for outline in trace_polygons(grid, block_px=64, max_vertices=300):
        found.append(outline)
        assert not outline.part or outline.polygon.bounds[1] > read[-1] - 800
    assert sum(outline.part for outline in found) > 5
    assert np.array_equal(burn(found, labels.shape), labels)


@pytest.mark.parametrize("shape", [(700, 900), (701, 903)])
def test_a_coarser_level_is_traced_in_level_0_pixels(tmp_path: Path, shape: tuple[int, int]) -> None:
    labels = blobs(shape)
    result = make_result(tmp_path / "a.zarr", labels)
    found = list(trace_result(result, ExportOptions(level=1)))
    coarse = np.kron(halve_mode(labels), np.ones((2, 2), np.uint8))[: shape[0], : shape[1]]
    assert np.array_equal(burn(found, shape), coarse)
    assert sum(o.polygon.area for o in found) == np.count_nonzero(coarse != NO_DATA)


def test_only_what_lies_in_the_region_of_interest_is_traced(tmp_path: Path) -> None:
    labels = blobs((600, 500))
    result = make_result(tmp_path / "a.zarr", labels)
    found = burn(trace_result(result, ExportOptions(roi=parse_roi("100,200,300,250"))), labels.shape)
    expected = np.full_like(labels, NO_DATA)
    expected[200:450, 100:400] = labels[200:450, 100:400]
    assert np.array_equal(found, expected)


def test_small_objects_are_left_out_and_larger_ones_unchanged(tmp_path: Path) -> None:
    result = make_result(tmp_path / "a.zarr", blobs((400, 500), size_px=2))
    every = list(trace_result(result))
    large = list(trace_result(result, ExportOptions(min_area_px=50)))
    assert 0 < len(large) < len(every)
    assert canonical(large) == canonical(o for o in every if o.polygon.area >= 50)


@pytest.mark.parametrize("options", [ExportOptions(level=9), ExportOptions(level=-1), ExportOptions(simplify_px=-1.0)])
def test_what_cannot_be_traced_is_refused(tmp_path: Path, options: ExportOptions) -> None:
    result = make_result(tmp_path / "a.zarr", blobs((100, 100)))
    with pytest.raises(InvalidOption, match=r"not -?[19]"):
        next(trace_result(result, options))
