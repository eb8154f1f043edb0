"""A mask while it is made: every pixel of a region that is done is the one that stays, at every level."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gigamask.geometry import Box, level_shape
from gigamask.plan import Plan
from gigamask.pyramid.halve import halve_mode
from gigamask.pyramid.mask import MaskWriter
from gigamask.tiles import live
from gigamask.tiles.grids import dzi_last_level
from gigamask.tiles.live import LiveMask

SHAPE = (2500, 1700)


def labels() -> np.ndarray:
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    whole: np.ndarray = ((y // 9 + x // (4 + x // 500)) % 5).astype(np.uint8)
    return whole


def written(folder: Path, region_px: int, indices: range) -> tuple[Plan, np.ndarray]:
    """The plan, and the labels with no data where no region was written."""
    plan, whole = Plan(SHAPE, 512, 2, region_px), np.full(SHAPE, 255, np.uint8)
    writer = MaskWriter(folder, plan)
    writer.create()
    for index in indices:
        region = plan.region(index)
        whole[region.box.slices] = labels()[region.box.slices]
        writer.write_region(region, whole[region.box.slices])
    return plan, whole


@pytest.fixture(params=["few regions a tile", "many regions a tile"])
def crowd(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param.startswith("many"):
        monkeypatch.setattr(live, "MOST_CELLS", 0)
    return str(request.param)


@pytest.mark.parametrize("region_px", [512, 1024])
def test_what_is_done_is_shown_as_it_will_stay_and_the_rest_is_no_data(
    tmp_path: Path, region_px: int, crowd: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "OVERVIEW_PX", 4096 if crowd.startswith("many") else 2048)
    plan, expected = written(tmp_path, region_px, range(0, Plan(SHAPE, 512, 2, region_px).region_count, 2))
    mask = LiveMask(tmp_path, SHAPE, region_px)
    for level in range(dzi_last_level(SHAPE) + 1):
        shape = level_shape(SHAPE, level)
        assert expected.shape == shape
        np.testing.assert_array_equal(mask.read(Box(0, 0, *shape), level), expected, f"level {level}")
        part = Box(shape[0] // 3, shape[1] // 3, shape[0] // 3 + max(1, shape[0] // 2), shape[1])
        np.testing.assert_array_equal(mask.read(part, level), expected[part.slices])
        expected = halve_mode(expected)
    assert plan.region_levels < plan.levels


def test_a_region_that_comes_later_is_seen(tmp_path: Path, crowd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "REFRESH_S", 0.0)
    monkeypatch.setattr(live, "REFRESH_SHARE", 0)
    plan, _ = written(tmp_path, 512, range(3))
    mask = LiveMask(tmp_path, SHAPE, 512)
    top = Box(0, 0, *level_shape(SHAPE, 4))
    cell = Box(0, 96, 32, 107)
    assert (mask.read(top, 4)[cell.slices] == 255).all()
    MaskWriter(tmp_path, plan).write_region(plan.region(3), labels()[plan.region(3).box.slices])
    assert (mask.read(top, 4)[cell.slices] != 255).all()


def test_between_the_overview_and_the_regions_a_crowd_of_regions_is_shown_coarser(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "MOST_CELLS", 0)
    monkeypatch.setattr(live, "OVERVIEW_PX", 350)
    _, expected = written(tmp_path, 512, range(20))
    for _ in range(3):
        expected = halve_mode(expected)
    shown = LiveMask(tmp_path, SHAPE, 512).read(Box(0, 0, *level_shape(SHAPE, 1)), 1)
    np.testing.assert_array_equal(shown, expected.repeat(4, 0).repeat(4, 1)[: shown.shape[0], : shown.shape[1]])


def test_an_image_of_less_than_a_chunk_has_every_level(tmp_path: Path) -> None:
    whole = labels()[:300, :200]
    plan = Plan((300, 200), 512, 2, 2048)
    writer = MaskWriter(tmp_path, plan)
    writer.create()
    writer.write_region(plan.region(0), whole)
    mask = LiveMask(tmp_path, (300, 200), 2048)
    for level in range(10):
        np.testing.assert_array_equal(mask.read(Box(0, 0, *whole.shape), level), whole)
        whole = halve_mode(whole)


def test_before_anything_was_begun_there_is_no_mask(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        LiveMask(tmp_path, SHAPE, 512)
