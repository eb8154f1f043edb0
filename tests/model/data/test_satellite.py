"""DeepGlobe, Inria and Five-Billion-Pixels: what is particular to each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from gigamask.geometry import Box
from model.data.datasets import find_dataset
from model.data.layouts import fbp
from model.data.pictures import IGNORE
from tests.model.data.fakes import save, write_deepglobe, write_fbp, write_inria, write_inria_isdnet, write_lists


def test_deepglobes_colours_are_thresholded_and_black_is_ignored(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    colours = [(0, 255, 255), (128, 200, 127), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255), (127, 0, 0)]
    mask = np.zeros((96, 96, 3), np.uint8)
    mask[0, :7] = colours
    save(tmp_path / "land-train" / "7_mask.png", mask)
    (picture,) = find_dataset("deepglobe", tmp_path).pictures("val")
    assert picture.labels(Box(0, 0, 1, 8)).tolist() == [[0, 1, 2, 3, 4, 5, IGNORE, IGNORE]]


def test_without_lists_inria_takes_the_benchmarks_own_split(tmp_path: Path) -> None:
    write_inria(tmp_path)
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.txt").unlink()
    pictures = find_dataset("inria", tmp_path / "AerialImageDataset").pictures
    assert [p.name for p in pictures("val")] == ["austin1.tif", "vienna5.tif"]
    assert [p.name for p in pictures("train")] == ["kitsap36.tif", "tyrol-w12.tif"]
    assert pictures("test") == []


def test_a_layout_with_folders_may_do_without_one_to_validate_on(tmp_path: Path) -> None:
    write_inria_isdnet(tmp_path)
    for split in ("val", "test"):
        (tmp_path / "imgs" / split).rename(tmp_path / "imgs" / f"no-{split}")
    pictures = find_dataset("inria", tmp_path).pictures
    assert pictures("val") == []
    with pytest.raises(FileNotFoundError, match=r"imgs.test: expected there, a folder of \*_sat\.tif"):
        pictures("test")


def test_fbp_shifts_ids_by_one_and_takes_the_last_three_of_four_bands(tmp_path: Path) -> None:
    write_fbp(tmp_path)
    path = tmp_path / "Image__8bit_NirRGB" / "GF2_PMS1__L1A0002-MSS1.tif"
    tifffile.imwrite(
        path, np.full((96, 96, 4), (9, 1, 2, 3), np.uint8), photometric="minisblack", planarconfig="contig"
    )
    ids = np.resize(np.arange(25, dtype=np.uint8), (96, 96))
    save(tmp_path / "Annotation__index" / "GF2_PMS1__L1A0002-MSS1_24label.png", ids)
    (picture,) = find_dataset("fbp", tmp_path).pictures("val")
    assert (picture.pixels(Box(5, 5, 9, 9)) == (1, 2, 3)).all()
    assert picture.labels(Box(0, 0, 1, 25)).tolist() == [[IGNORE, *range(24)]]


def test_fbps_sixteen_bit_images_and_pictures_without_infrared_are_refused(tmp_path: Path) -> None:
    write_fbp(tmp_path)
    path = tmp_path / "Image__8bit_NirRGB" / "GF2_PMS1__L1A0002-MSS1.tif"
    for shape, dtype, told in (((96, 96, 3), np.uint8, "3 bands, expected 4"), ((96, 96, 4), np.uint16, "uint16")):
        tifffile.imwrite(path, np.zeros(shape, dtype), photometric="minisblack", planarconfig="contig")
        with pytest.raises(ValueError, match=told):
            find_dataset("fbp", tmp_path).pictures("val")


def test_what_fbps_test_list_leaves_is_split_three_to_one_and_the_same_every_time(tmp_path: Path) -> None:
    folder = tmp_path / "Image__8bit_NirRGB"
    folder.mkdir()
    names = [f"GF2_{i:03d}" for i in range(150)]
    for name in names:
        (folder / f"{name}.tif").touch()
    write_lists(tmp_path, [], [], names[::5])
    for name in ("train", "val"):
        (tmp_path / f"{name}.txt").unlink()
    split = fbp.random_split(tmp_path)
    assert (len(split["train"]), len(split["val"])) == (90, 30)
    left = {folder / f"{name}.tif" for name in set(names) - set(names[::5])}
    assert {*split["train"]} | {*split["val"]} == left
    assert fbp.random_split(tmp_path) == split


def test_fbp_without_its_test_list_asks_for_it(tmp_path: Path) -> None:
    write_fbp(tmp_path)
    for name in ("train", "val", "test"):
        (tmp_path / f"{name}.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"test\.txt: expected there"):
        find_dataset("fbp", tmp_path).pictures("train")
