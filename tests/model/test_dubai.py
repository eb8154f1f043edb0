"""Dubai: nine parts become one mosaic, colours become ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from model.data.datasets import find_dataset
from model.data.dubai import CLASSES, class_ids, join, read_tile
from model.data.pictures import IGNORE, ArrayPicture

DUBAI = (Path(__file__).parents[2] / "../shared/data/dubai").resolve()
real = pytest.mark.skipif(not DUBAI.is_dir(), reason="needs ../shared/data/dubai")


def test_parts_join_row_major_and_a_pixel_too_many_is_cropped() -> None:
    parts = [np.full((4 + (n == 4), 5 + (n == 2)), n, np.uint8) for n in range(9)]
    mosaic = join(parts)
    assert mosaic.shape == (12, 15)
    assert np.array_equal(mosaic[::4, ::5], np.arange(9).reshape(3, 3))


def test_a_colour_that_is_no_class_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"mask\.png: colour #010203 is no class"):
        class_ids(np.full((2, 2, 3), (1, 2, 3), np.uint8), Path("mask.png"))


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"Tile 9.images.image_part_001\.jpg"):
        read_tile(tmp_path / "Tile 9")


def test_a_folder_that_nobody_named_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GIGAMASK_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"where is dubai\? .*--root"):
        find_dataset("dubai").pictures("train")


@real
def test_the_mosaics_have_their_sizes_and_every_class() -> None:
    (picture,) = find_dataset("dubai", DUBAI).pictures("val")
    assert picture.shape == (3174, 3378)
    assert isinstance(picture, ArrayPicture)
    assert set(np.unique(picture.ids)) == {*range(len(CLASSES)), IGNORE}
    assert picture.image.shape == (3174, 3378, 3)
