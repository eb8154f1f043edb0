from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import zarr
from numpy.typing import NDArray

from gigamask.errors import BadImage
from gigamask.geometry import Box, level_count
from gigamask.image_info import ImageInfo
from gigamask.pyramid import image as image_module
from gigamask.pyramid.halve import halve_mean
from gigamask.pyramid.image import ImagePyramid, ImageWriter
from tests.pictures import picture, tree, write_image

Pixels = NDArray[np.uint8]


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (2049, 1), (2048, 4096), (4099, 4501)])
@pytest.mark.parametrize("channels", [3, 4])
def test_every_level_is_the_halving_of_the_one_below(tmp_path: Path, shape: tuple[int, int], channels: int) -> None:
    pixels = picture(shape, channels)
    root = write_image(tmp_path / "image.zarr", pixels)
    pyramid = ImagePyramid(root)
    assert pyramid.levels == level_count(shape)
    expected = pixels.transpose(2, 0, 1)
    for level in range(pyramid.levels):
        assert np.array_equal(pyramid.read(Box(0, 0, *expected.shape[1:]), level), expected)
        expected = halve_mean(np.ascontiguousarray(expected))


@pytest.mark.parametrize("step", [1, 7, 129, 1000])
def test_the_pyramid_does_not_depend_on_how_rows_arrive(tmp_path: Path, step: int) -> None:
    pixels = picture((300, 530), 3)
    once = write_image(tmp_path / "once.zarr", pixels)
    assert tree(write_image(tmp_path / "step.zarr", pixels, step)) == tree(once)


def test_zarr_python_reads_what_was_written(tmp_path: Path) -> None:
    pixels = picture((2100, 700), 3)
    root = write_image(tmp_path / "image.zarr", pixels)
    array = zarr.open_group(root, mode="r")["0"]
    assert isinstance(array, zarr.Array)
    assert np.array_equal(array[...], pixels.transpose(2, 0, 1))
    assert array.chunks == (3, 512, 512)
    assert array.shards == (3, 2048, 2048)


def test_an_unclosed_image_is_no_image(tmp_path: Path) -> None:
    info = ImageInfo(height=600, width=600, channels=3, format="test")
    writer = ImageWriter(tmp_path / "image.zarr", info)
    writer.append(picture((600, 600), 3))
    with pytest.raises(FileNotFoundError):
        ImagePyramid(tmp_path / "image.zarr")
    writer.discard()


def test_missing_rows_are_an_error_and_leave_no_image(tmp_path: Path) -> None:
    info = ImageInfo(height=600, width=600, channels=3, format="test")
    with pytest.raises(BadImage, match="600 rows; only 10"), ImageWriter(tmp_path / "image.zarr", info) as writer:
        writer.append(picture((10, 600), 3))
    assert not (tmp_path / "image.zarr" / "zarr.json").exists()


@pytest.mark.parametrize("shape", [(10, 601, 3), (10, 600, 4), (601, 600, 3)])
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    info = ImageInfo(height=600, width=600, channels=3, format="test")
    writer = ImageWriter(tmp_path / "image.zarr", info)
    with pytest.raises(BadImage, match="rows"):
        writer.append(np.zeros(shape, np.uint8))
    writer.discard()


def test_a_window_outside_the_image_is_refused_and_not_clipped(tmp_path: Path) -> None:
    pyramid = ImagePyramid(write_image(tmp_path / "image.zarr", picture((100, 100), 3)))
    with pytest.raises(IndexError):
        pyramid.read(Box(50, 50, 101, 100))


def test_no_band_file_is_left_or_ever_has_a_name(tmp_path: Path) -> None:
    info = ImageInfo(height=600, width=600, channels=3, format="test")
    writer = ImageWriter(tmp_path / "image.zarr", info)
    writer.append(picture((300, 600), 3))
    assert {p.name for p in (tmp_path / "image.zarr").iterdir()} == {"0", "1", "2"}
    writer.discard()
    assert image_module.BLOCK_PX == 2 * image_module.PIECE_PX
