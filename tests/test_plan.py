from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigamask.errors import InvalidOption
from gigamask.geometry import Box, level_shape
from gigamask.manifest import Context
from gigamask.plan import CHUNK_PX, REGION_SIDES_PX, Plan, Region, choose_region_px, plan_regions
from tests.model.test_tiles import manifest

sides = st.integers(1, 2600)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    region_px = draw(st.sampled_from(REGION_SIDES_PX))
    tile_px = draw(st.sampled_from([128, 256, 512]))
    return Plan((draw(sides), draw(sides)), tile_px, draw(st.integers(1, 3)), region_px)


def lies_in(inner: Box, outer: Box) -> bool:
    return outer.y0 <= inner.y0 < inner.y1 <= outer.y1 and outer.x0 <= inner.x0 < inner.x1 <= outer.x1


def at_level(box: Box, level: int) -> Box:
    """The pixels of `level` that halving the box again and again gives."""
    return Box(box.y0 >> level, box.x0 >> level, -(-box.y1 >> level), -(-box.x1 >> level))


@settings(max_examples=100, deadline=None)
@given(plans())
def test_regions_and_their_kept_boxes_cover_the_image_exactly_once(plan: Plan) -> None:
    in_regions, in_tiles = np.zeros(plan.shape, np.uint8), np.zeros(plan.shape, np.uint8)
    for region in plan.regions():
        assert lies_in(region.box, Box(0, 0, *plan.shape))
        in_regions[region.box.slices] += 1
        for tile in region.tiles:
            assert lies_in(tile.keep, region.box)
            in_tiles[tile.keep.slices] += 1
    assert (in_regions == 1).all()
    assert (in_tiles == 1).all()


@settings(max_examples=100, deadline=None)
@given(plans())
def test_a_region_is_one_shard_of_each_level_that_it_writes_and_no_other_region_touches_it(plan: Plan) -> None:
    for level in range(plan.region_levels):
        side, shape = plan.shard_px(level), level_shape(plan.shape, level)
        shards = set()
        for region in plan.regions():
            box = at_level(region.box, level)
            row, col = box.y0 // side, box.x0 // side
            assert box == Box(row * side, col * side, (row + 1) * side, (col + 1) * side).clip(shape)
            shards.add((row, col))
        assert len(shards) == plan.region_count


@settings(max_examples=100, deadline=None)
@given(plans())
def test_shards_are_whole_chunks_at_every_level(plan: Plan) -> None:
    for level in range(plan.levels):
        assert plan.shard_px(level) % CHUNK_PX == 0
    assert plan.region_levels == plan.levels or plan.shard_px(plan.region_levels - 1) == CHUNK_PX


@settings(max_examples=100, deadline=None)
@given(plans())
def test_a_region_reads_all_that_its_tiles_see_of_the_image_and_no_more(plan: Plan) -> None:
    for region in plan.regions():
        seen = [box.clip(plan.shape) for tile in region.tiles for box in (tile.local, tile.surround)]
        assert all(lies_in(box, region.window) for box in seen)
        assert lies_in(region.window, Box(0, 0, *plan.shape))
        for edge in ("y0", "x0"):
            assert getattr(region.window, edge) == min(getattr(box, edge) for box in seen)
        for edge in ("y1", "x1"):
            assert getattr(region.window, edge) == max(getattr(box, edge) for box in seen)


@settings(max_examples=25, deadline=None)
@given(sides, sides, st.sampled_from([128, 512]), st.integers(1, 3))
def test_tiles_do_not_depend_on_the_size_of_regions(height: int, width: int, tile_px: int, alpha: int) -> None:
    def tiles(region_px: int) -> set[object]:
        regions = Plan((height, width), tile_px, alpha, region_px).regions()
        return {tile for region in regions for tile in region.tiles}

    assert tiles(512) == tiles(1024) == tiles(4096)


def test_an_index_outside_the_plan_is_refused() -> None:
    plan = Plan((1000, 1000), 512, 2, 512)
    assert isinstance(plan.region(3), Region)
    for index in (-1, 4):
        with pytest.raises(IndexError, match=r"\[0, 4\)"):
            plan.region(index)


@pytest.mark.parametrize(
    ("shape", "tile_px", "region_px"), [((9, 9), 512, 500), ((9, 9), 300, 512), ((0, 9), 512, 512)]
)
def test_an_impossible_plan_is_refused(shape: tuple[int, int], tile_px: int, region_px: int) -> None:
    with pytest.raises(InvalidOption):
        Plan(shape, tile_px, 2, region_px)


def test_large_images_get_large_regions() -> None:
    assert choose_region_px((100, 100), 512) == 512
    assert choose_region_px((4096, 4096), 512) == 1024
    assert choose_region_px((16_000, 16_000), 512) == choose_region_px((65_536, 65_536), 512) == 2048
    assert choose_region_px((200_000, 100_000), 512) == 4096
    assert choose_region_px((100, 100), 1024) == 1024
    with pytest.raises(InvalidOption, match="tile side divides"):
        choose_region_px((100, 100), 300)


def test_a_region_whose_window_goes_through_the_branch_at_once_stays_small_unless_it_is_asked_for() -> None:
    shape = 200_000, 100_000
    alone = manifest(2).model_copy(update={"tile_px": 512})
    shared = alone.model_copy(update={"context": Context(mode="neighbourhood", lattice_px=64, halo_px=400)})
    assert plan_regions(shape, alone).region_px == 4096
    assert plan_regions(shape, shared).region_px == 2048
    assert plan_regions(shape, shared, 4096).region_px == 4096
