from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from gigamask.geometry import Box, Tile, level_count, level_shape, tile_at

sides = st.integers(1, 700)
shapes = st.tuples(sides, sides)
tile_sides = st.sampled_from([32, 64, 100, 256])
alphas = st.integers(1, 4)


def tiles_of(shape: tuple[int, int], tile_px: int, alpha: int) -> list[Tile]:
    rows, cols = (-(-n // tile_px) for n in shape)
    return [tile_at(row, col, shape, tile_px, alpha) for row in range(rows) for col in range(cols)]


def lies_in(inner: Box, outer: Box) -> bool:
    return outer.y0 <= inner.y0 < inner.y1 <= outer.y1 and outer.x0 <= inner.x0 < inner.x1 <= outer.x1


@given(shapes, tile_sides)
def test_kept_boxes_cover_the_image_exactly_once(shape: tuple[int, int], tile_px: int) -> None:
    times_kept = np.zeros(shape, int)
    for tile in tiles_of(shape, tile_px, 2):
        assert lies_in(tile.keep, Box(0, 0, *shape))  # numpy would clip a slice that overruns, and count right
        times_kept[tile.keep.slices] += 1
    assert (times_kept == 1).all()


@given(shapes, tile_sides, alphas)
def test_a_tile_keeps_what_it_reads_and_reads_it_inside_its_surround(
    shape: tuple[int, int], tile_px: int, alpha: int
) -> None:
    for tile in tiles_of(shape, tile_px, alpha):
        assert lies_in(tile.keep, tile.local)
        assert lies_in(tile.local, tile.surround)
        assert tile.local.shape == (tile_px, tile_px)
        assert tile.surround.shape == (alpha * tile_px, alpha * tile_px)


@given(shapes, tile_sides, alphas)
def test_windows_are_shifted_into_the_image_as_in_training(shape: tuple[int, int], tile_px: int, alpha: int) -> None:
    """Training cuts a surround from the image, and the local patch anywhere inside it."""
    for tile in tiles_of(shape, tile_px, alpha):
        offset = tile.local.within(tile.surround)
        assert 0 <= offset.y0 <= (alpha - 1) * tile_px
        assert 0 <= offset.x0 <= (alpha - 1) * tile_px
        for window in (tile.local, tile.surround):
            assert window.y0 == 0 or (window.y0 > 0 and window.y1 <= shape[0])
            assert window.x0 == 0 or (window.x0 > 0 and window.x1 <= shape[1])


def test_away_from_the_border_a_surround_has_the_centre_of_its_tile() -> None:
    tile = tile_at(4, 5, (2000, 2000), 100, 3)
    assert (tile.local, tile.surround) == (Box(400, 500, 500, 600), Box(300, 400, 600, 700))


def test_at_the_border_a_surround_is_clamped() -> None:
    first, last = tile_at(0, 0, (1000, 1000), 256, 2), tile_at(3, 3, (1000, 1000), 256, 2)
    assert first.surround == Box(0, 0, 512, 512)
    assert (last.keep, last.local) == (Box(768, 768, 1000, 1000), Box(744, 744, 1000, 1000))
    assert last.surround == Box(488, 488, 1000, 1000)


@given(shapes)
def test_levels_halve_until_one_chunk_holds_them(shape: tuple[int, int]) -> None:
    count = level_count(shape)
    assert max(level_shape(shape, count - 1)) <= 256
    assert count == 1 or max(level_shape(shape, count - 2)) > 256
    for level in range(1, count):
        assert level_shape(shape, level) == tuple(-(-n // 2) for n in level_shape(shape, level - 1))
