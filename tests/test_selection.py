"""Which tiles are run: decided cell by cell on a grid that knows no regions."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigamask.errors import InvalidOption
from gigamask.geometry import Box
from gigamask.job import JobOptions, Overlap, SelectionSummary
from gigamask.plan import Plan
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.working import nearest
from gigamask.roi import inside, parse_roi, touches
from gigamask.selection import Selection, cell_edges, cells_touched, cells_with_tissue, select
from gigamask.tissue import Tissue
from tests.pictures import picture, write_image

T = 64
SHAPE = (900, 1300)


@st.composite
def selections(draw: st.DrawFn) -> Selection:
    scale = draw(st.sampled_from([1.0, 2.0, 1.5, 0.5, 3.3]))
    overlap: Overlap = draw(st.sampled_from(["none", "half", "gaussian"]))
    plan = Plan(SHAPE, T, 2, draw(st.sampled_from([512, 1024])), overlap=overlap, scale=scale)
    rows, cols = (len(cell_edges(n, plan)) - 1 for n in SHAPE)
    cells = np.random.default_rng(draw(st.integers(0, 99))).random((rows, cols)) < draw(st.sampled_from([0.1, 0.5, 1]))
    summary = SelectionSummary(tiles_total=cells.size, tiles_selected=int(cells.sum()))
    return Selection(plan, cells, None, summary)


@settings(max_examples=25, deadline=None)
@given(selections())
def test_every_pixel_of_a_chosen_cell_is_kept_and_seen_by_every_tile_that_it_lies_in(selection: Selection) -> None:
    plan = selection.plan
    rows, cols = (nearest(0, n, plan.scale) // T for n in SHAPE)
    chosen = selection.cells[rows[:, None], cols]
    for region in plan.regions():
        kept, narrowed = selection.kept(region), selection.narrow(region)
        assert np.array_equal(kept, chosen[region.box.slices])
        assert kept.any() == bool(narrowed.tiles)
        before, after = (_times_seen(tiles, region.work) for tiles in (region.tiles, narrowed.tiles))
        work_rows, work_cols = (np.arange(a, b) // T for a, b in _sides(region.work))
        wanted = selection.cells[work_rows[:, None], work_cols]
        assert np.array_equal(before[wanted], after[wanted])
        if plan.overlap == "none":
            assert not after[~wanted].any()
        for tile in narrowed.tiles:
            assert tile.surround.clip(plan.work_shape).union(narrowed.window) == narrowed.window


def _sides(box: Box) -> tuple[tuple[int, int], tuple[int, int]]:
    return (box.y0, box.y1), (box.x0, box.x1)


def _times_seen(tiles: tuple, work: Box) -> np.ndarray:
    seen = np.zeros(work.shape, int)
    for tile in tiles:
        seen[tile.keep.within(work).slices] += 1
    return seen


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 5000), st.floats(0.13, 50), st.sampled_from([32, 64, 500]))
def test_cells_begin_where_their_first_pixel_is(total: int, scale: float, tile_px: int) -> None:
    edges = cell_edges(total, Plan((total, 1), tile_px, 1, 512, scale=scale))
    owner = nearest(0, total, scale) // tile_px
    assert np.array_equal(np.searchsorted(edges, np.arange(total), side="right") - 1, owner)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 800), st.integers(0, 1200), st.floats(1, 900), st.floats(1, 900), st.sampled_from([1.0, 1.5]))
def test_a_cell_is_touched_where_the_region_of_interest_touches_it(
    y: int, x: int, height: float, width: float, scale: float
) -> None:
    roi, plan = parse_roi(f"{x},{y},{width},{height}"), Plan(SHAPE, T, 1, 512, scale=scale)
    rows, cols = (cell_edges(n, plan) for n in SHAPE)
    cells, within = cells_touched(roi, rows, cols), inside(roi, Box(0, 0, *SHAPE))
    for (row, col), found in np.ndenumerate(cells):
        cell = Box(*map(int, (rows[row], cols[col], rows[row + 1], cols[col + 1])))
        assert found == touches(roi, cell)
        assert found or not within[cell.slices].any()


def test_a_cell_has_tissue_where_a_pixel_of_tissue_reaches_into_it() -> None:
    plan = Plan(SHAPE, T, 1, 512)
    rows, cols = (cell_edges(n, plan) for n in SHAPE)
    mask = np.random.default_rng(0).random((SHAPE[0] // 8 + 1, SHAPE[1] // 8 + 1)) < 0.004
    cells = cells_with_tissue(Tissue(3, 0, "validity", 0.0, mask), rows, cols)
    spread = mask.repeat(8, axis=0).repeat(8, axis=1)[: SHAPE[0], : SHAPE[1]]
    expected = [[spread[y : y + T, x : x + T].any() for x in range(0, SHAPE[1], T)] for y in range(0, SHAPE[0], T)]
    assert np.array_equal(cells, expected)
    assert 0 < cells.sum() < cells.size


def test_of_seventeen_gigapixels_it_is_told_in_a_second_and_kept_in_a_megabyte() -> None:
    side = 130_000
    plan, third = Plan((side, side), 256, 1, 4096, scale=0.5), side / 3
    roi = parse_roi(f"{third},{third},{third},{third}")
    started = time.process_time()
    edges = cell_edges(side, plan)
    cells = cells_touched(roi, edges, edges)
    assert time.process_time() - started < 2
    assert cells.nbytes < 2**21
    assert cells.mean() == pytest.approx(1 / 9, rel=0.01)


def test_a_job_that_chooses_nothing_selects_nothing_and_one_outside_the_image_is_refused(tmp_path: Path) -> None:
    image = ImagePyramid(write_image(tmp_path / "image.zarr", picture((300, 400))))
    plan = Plan((300, 400), T, 1, 512)
    assert select(image, plan, JobOptions()) is None
    found = select(image, plan, JobOptions(roi=parse_roi("10,20,100,30")))
    assert found is not None
    assert found.summary == SelectionSummary(tiles_total=35, tiles_selected=2)
    with pytest.raises(InvalidOption, match="no pixel of the image"):
        select(image, plan, JobOptions(roi=parse_roi("1000,20,100,30")))
