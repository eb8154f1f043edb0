"""Cityscapes and CelebAMask-HQ: what is particular to each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from gigamask.geometry import Box
from model.data.datasets import find_dataset
from model.data.layouts.celebamask import SIDE_PX, enlarge, nearest
from model.data.pictures import IGNORE
from model.data.rasters import open_raster
from tests.model.data.fakes import save, write_celebamask, write_cityscapes
from tests.pictures import picture

MASK = "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png"


def test_cityscapes_34_label_ids_become_19_training_ids(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    save(tmp_path / MASK, np.resize(np.arange(34, dtype=np.uint8), (131, 97)))
    labels = find_dataset("cityscapes", tmp_path).pictures("train")[1].labels(Box(0, 0, 1, 34))[0].tolist()
    assert labels[7:9] == [0, 1] and labels[11:14] == [2, 3, 4] and labels[17] == 5
    assert labels[19:29] == [6, 7, 8, 9, 10, 11, 12, 13, 14, 15] and labels[31:34] == [16, 17, 18]
    assert labels.count(IGNORE) == 34 - 19


def test_cityscapes_is_judged_on_val_and_nothing_is_chosen_on_it(tmp_path: Path) -> None:
    write_cityscapes(tmp_path)
    pictures = find_dataset("cityscapes", tmp_path).pictures
    assert [p.name.split("_")[0] for p in pictures("test")] == ["lindau", "munster"]
    assert pictures("val") == []


def test_every_part_of_a_face_lies_over_those_before_it(tmp_path: Path) -> None:
    """All 18 masks cover everything: the last in the published order is seen. Without it, the one before."""
    write_celebamask(tmp_path)
    masks = tmp_path / "CelebAMask-HQ-mask-anno" / "14"
    for path in masks.glob("29999_*.png"):
        save(path, np.full((102, 102), 255, np.uint8))
    seen = []
    order = "cloth neck neck_l ear_r hat hair l_lip u_lip mouth r_ear l_ear r_brow l_brow r_eye l_eye eye_g nose skin"
    for part in order.split():
        (face,) = find_dataset("celebamask", tmp_path).pictures("test")
        seen.append(int(face.labels(Box(700, 700, 701, 701))[0, 0]))
        (masks / f"29999_{part}.png").unlink()
    assert seen == list(range(18, 0, -1))


def test_what_no_part_covers_is_background_and_a_part_may_be_missing(tmp_path: Path) -> None:
    write_celebamask(tmp_path)
    masks = tmp_path / "CelebAMask-HQ-mask-anno" / "14"
    for path in masks.glob("29999_*.png"):
        path.unlink()
    mask = np.zeros((102, 102, 3), np.uint8)  # some copies have their masks in three bands
    mask[:51] = 255
    save(masks / "29999_hat.png", mask)
    (face,) = find_dataset("celebamask", tmp_path).pictures("test")
    labels = face.labels(Box(0, 0, SIDE_PX, SIDE_PX))
    assert (labels[:1224] == 14).all() and (labels[1224:] == 0).all()


@pytest.mark.parametrize("side", [97, 204, 1024])
def test_a_window_of_an_enlarged_face_is_that_of_the_whole_and_what_torch_gives(tmp_path: Path, side: int) -> None:
    stored = picture((side, side), 3)
    save(tmp_path / "a.png", stored)
    raster = open_raster(tmp_path / "a.png", bands=3)
    floats = torch.from_numpy(stored.transpose(2, 0, 1).astype(np.float32))[None]
    expected = functional.interpolate(floats, (SIDE_PX, SIDE_PX), mode="bilinear", align_corners=False)[0].numpy()
    for box in (Box(0, 0, 70, 90), Box(1001, 777, 1300, 1010), Box(2400, 2401, SIDE_PX, SIDE_PX)):
        got = enlarge(raster, box, SIDE_PX).transpose(2, 0, 1)
        assert np.abs(got - expected[:, *box.slices]).max() <= 0.51


@pytest.mark.parametrize("side", [97, 153, 512])
def test_labels_of_an_enlarged_face_are_those_of_the_nearest_pixel(tmp_path: Path, side: int) -> None:
    """In whole numbers: pixel p of n lies in stored pixel floor((2 p + 1) m / 2 n)."""
    stored = picture((side, side), 1)[..., 0]
    save(tmp_path / "a.png", stored)
    at = [(2 * p + 1) * side // (2 * SIDE_PX) for p in range(SIDE_PX)]
    whole = stored[np.ix_(at, at)]
    for box in (Box(0, 0, 300, 200), Box(1001, 777, 1300, 1010), Box(2400, 2401, SIDE_PX, SIDE_PX)):
        assert np.array_equal(nearest(open_raster(tmp_path / "a.png"), box, SIDE_PX)[..., 0], whole[box.slices])


def test_a_face_that_is_not_there_or_has_no_masks_is_named(tmp_path: Path) -> None:
    write_celebamask(tmp_path)
    for path in (tmp_path / "CelebAMask-HQ-mask-anno").glob("1/02001_*.png"):
        path.unlink()
    with pytest.raises(FileNotFoundError, match=r"2001\.jpg: no mask of a part .*1.02001_skin\.png"):
        find_dataset("celebamask", tmp_path).pictures("val")
    (tmp_path / "CelebA-HQ-img" / "2001.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"2001\.jpg: expected there, named in .*mapping\.txt"):
        find_dataset("celebamask", tmp_path).pictures("val")


def test_a_part_that_nobody_knows_is_named(tmp_path: Path) -> None:
    write_celebamask(tmp_path)
    save(tmp_path / "CelebAMask-HQ-mask-anno" / "0" / "00000_beard.png", np.zeros((102, 102), np.uint8))
    with pytest.raises(ValueError, match=r"00000_beard\.png: expected NNNNN_PART\.png"):
        find_dataset("celebamask", tmp_path).pictures("train")


def test_a_part_of_another_size_is_named(tmp_path: Path) -> None:
    write_celebamask(tmp_path)
    save(tmp_path / "CelebAMask-HQ-mask-anno" / "14" / "29999_nose.png", np.zeros((102, 100), np.uint8))
    (face,) = find_dataset("celebamask", tmp_path).pictures("test")
    with pytest.raises(ValueError, match=r"29999_nose\.png: 102 x 100 .*expected 102 x 102"):
        face.labels(Box(0, 0, 9, 9))


def test_a_face_whose_original_is_in_no_split_is_named(tmp_path: Path) -> None:
    write_celebamask(tmp_path)
    (tmp_path / "list_eval_partition.txt").write_text("000101.jpg 0\n")
    with pytest.raises(ValueError, match=r"list_eval_partition\.txt: no line for 000102\.jpg"):
        find_dataset("celebamask", tmp_path).pictures("train")


def test_lists_of_faces_stand_instead_of_celebas_partition(tmp_path: Path) -> None:
    write_celebamask(tmp_path)
    (tmp_path / "train.txt").write_text("29999\n")
    (tmp_path / "test.txt").write_text("0.jpg\n1.jpg\n")
    pictures = find_dataset("celebamask", tmp_path).pictures
    assert [[p.name for p in pictures(s)] for s in ("train", "val", "test")] == [["29999.jpg"], [], ["0.jpg", "1.jpg"]]
