"""Grids of tiles: each covers its level exactly once, and nothing else is a tile."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigamask.errors import NotFound
from gigamask.geometry import Box, level_shape
from gigamask.tiles import grids
from gigamask.tiles.grids import Window, dzi_last_level, dzi_window, parse_index, xyz_last_zoom, xyz_window

SIDES = st.integers(1, 3000)
SHAPES = st.tuples(SIDES, SIDES)


@given(SHAPES)
def test_deep_zoom_levels_end_with_the_image_and_begin_with_one_pixel(shape: tuple[int, int]) -> None:
    last = dzi_last_level(shape)
    assert last == math.ceil(math.log2(max(shape)))
    assert level_shape(shape, last) == (1, 1)
    assert dzi_window(shape, 0, 0, 0).box.shape == (1, 1)


@settings(max_examples=40, deadline=None)
@given(SHAPES, st.integers(0, 12), st.sampled_from(["dzi", "xyz"]))
def test_tiles_cover_their_level_exactly_once(shape: tuple[int, int], number: int, kind: str) -> None:
    last = dzi_last_level(shape) if kind == "dzi" else xyz_last_zoom(shape)
    find = dzi_window if kind == "dzi" else xyz_window
    level = min(number, last)
    height, width = level_shape(shape, last - level)
    seen = np.zeros((height, width), int)
    for row in range(-(-height // 256)):
        for col in range(-(-width // 256)):
            window = find(shape, level, col, row)
            assert window.level == last - level
            assert 0 < window.box.height <= 256 >= window.box.width > 0
            part = seen[window.box.slices]
            assert part.shape == window.box.shape
            part += 1
    assert (seen == 1).all()


@pytest.mark.parametrize(("level", "col", "row"), [(12, 0, 0), (11, 8, 0), (11, 0, 6), (0, 1, 0), (10**8, 0, 0)])
def test_what_is_outside_is_no_tile(level: int, col: int, row: int) -> None:
    with pytest.raises(NotFound):
        dzi_window((1300, 1800), level, col, row)
    with pytest.raises(NotFound):
        xyz_window((1300, 1800), level, col, row)


def test_an_xyz_tile_is_always_a_whole_square() -> None:
    window = xyz_window((300, 600), 2, 2, 1)
    assert (window.box.shape, window.size) == ((44, 88), (256, 256))
    assert xyz_window((300, 600), 0, 0, 0) == Window(2, Box(0, 0, 75, 150), (256, 256))


@pytest.mark.parametrize("text", ["", "-1", "+1", "1.0", " 1", "1_0", "٣", "0x1", "9" * 10, "..", "a" * 5000, "\0"])
def test_what_is_no_plain_number_names_no_tile(text: str) -> None:
    with pytest.raises(NotFound) as caught:
        parse_index(text, "level")
    assert len(caught.value.message) < 250


def test_a_descriptor_is_deep_zoom_xml() -> None:
    from xml.etree import ElementTree

    root = ElementTree.fromstring(grids.dzi_descriptor((1300, 1800), "png").encode())
    space = "{http://schemas.microsoft.com/deepzoom/2008}"
    assert root.tag == f"{space}Image"
    assert root.attrib == {"TileSize": "256", "Overlap": "0", "Format": "png"}
    size = root.find(f"{space}Size")
    assert size is not None
    assert size.attrib == {"Width": "1800", "Height": "1300"}
