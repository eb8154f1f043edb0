"""A pyramid read at any resolution: what a working pixel holds is a function of its place alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

from gigamask.geometry import Box, scaled_box, scaled_shape
from gigamask.plan import Plan
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.working import nearest, read_working, spread
from tests.pictures import picture, write_image

SHAPE = (701, 1033)
SCALES = [0.5, 0.8, 1.0, 1.5, 2.0, 2.9, 4.0, 7.3, 40.0]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> ImagePyramid:
    return ImagePyramid(write_image(tmp_path_factory.mktemp("image") / "image.zarr", picture(SHAPE)))


def whole(image: ImagePyramid, scale: float) -> NDArray[np.uint8]:
    return read_working(image, Box(0, 0, *scaled_shape(SHAPE, scale)), scale)


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from(SCALES))
def test_a_pixel_is_the_same_whichever_window_it_is_read_in(
    image: ImagePyramid, data: st.DataObject, scale: float
) -> None:
    height, width = scaled_shape(SHAPE, scale)
    y0, x0 = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    box = Box(y0, x0, data.draw(st.integers(y0 + 1, height)), data.draw(st.integers(x0 + 1, width)))
    assert np.array_equal(read_working(image, box, scale), whole(image, scale)[:, *box.slices])


@pytest.mark.parametrize(("scale", "level"), [(0.8, 0), (1.5, 0), (2.9, 1), (7.3, 2)])
def test_it_is_bilinear_between_the_pixels_of_a_level_at_the_place_of_its_centre(
    image: ImagePyramid, scale: float, level: int
) -> None:
    source = image.read(Box(0, 0, *(-(-n >> level) for n in SHAPE)), level)[0].astype(float)
    step = scale / 2**level
    places = np.meshgrid(*((np.arange(n) + 0.5) * step - 0.5 for n in scaled_shape(SHAPE, scale)), indexing="ij")
    expected = map_coordinates(source, places, order=1, mode="nearest")
    assert np.abs(whole(image, scale)[0] - expected).max() <= 2  # 8-bit weights


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_power_of_two_is_the_level_as_it_is(image: ImagePyramid, level: int) -> None:
    shape = scaled_shape(SHAPE, 2.0**level)
    assert np.array_equal(whole(image, 2.0**level), image.read(Box(0, 0, *shape), level))


@settings(max_examples=60, deadline=None)
@given(st.floats(0.13, 60), st.integers(1, 3000), st.integers(0, 2000), st.integers(1, 1000))
def test_every_pixel_has_a_working_pixel_inside_its_regions_and_the_image(
    scale: float, total: int, first: int, length: int
) -> None:
    box = Box(first, 0, first + length, total)
    work = scaled_box(box, scale)
    rows, cols = nearest(box.y0, box.y1, scale), nearest(box.x0, box.x1, scale)
    assert (rows[0], rows[-1] + 1, cols[0], cols[-1] + 1) == (work.y0, work.y1, work.x0, work.x1)
    assert cols[-1] < scaled_shape((total, total), scale)[0]


def test_labels_come_back_to_the_pixels_that_their_working_pixel_covers() -> None:
    region = Plan((6, 6), 32, 1, 512, scale=1.5).region(0)
    assert region.work == Box(0, 0, 4, 4)
    labels = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert spread(labels, region, 1.5)[0].tolist() == [0, 1, 1, 2, 3, 3]
    assert spread(labels[None], region, 1.5).shape == (1, 6, 6)
    finer = Plan((2, 2), 32, 1, 512, scale=0.5).region(0)
    assert finer.work == Box(1, 1, 4, 4)
