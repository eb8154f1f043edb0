"""What is true of every published layout: what was written is read, by any window, and trains a crop."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from gigamask.geometry import Box
from model.data.crops import CropRules, CropSampler
from model.data.datasets import LAYOUTS, Split, find_dataset
from model.data.layouts.layout import bare_name, shuffled
from model.data.pictures import IGNORE, Picture
from tests.model.data.fakes import FAKES, ONE_MASK, Fake, Sample, save, write_deepglobe, write_lists

fakes = pytest.mark.parametrize("fake", FAKES.values(), ids=FAKES.keys())
with_one_mask = pytest.mark.parametrize("fake", ONE_MASK.values(), ids=ONE_MASK.keys())
SPLITS: tuple[Split, ...] = ("train", "val", "test")


def check(picture: Picture, written: Sample, box: Box) -> None:
    assert np.array_equal(picture.labels(box), written.labels[box.slices])
    off = np.abs(picture.pixels(box).astype(int) - written.image[box.slices])
    assert off.max() <= written.error, f"{picture.name}: pixels are off by {off.max()}"


def windows(shape: tuple[int, int]) -> list[Box]:
    """The whole of a small picture or a corner of a large one, the last pixel, and a strip from nowhere round."""
    height, width = shape
    whole = Box(0, 0, min(height, 300), min(width, 300))
    return [whole, Box(height - 1, width - 1, height, width), Box(height - 61, 13, height - 11, width - 7)]


@fakes
def test_every_window_holds_what_was_written(fake: Fake, tmp_path: Path) -> None:
    expected = fake.write(tmp_path)
    dataset = find_dataset(fake.dataset, tmp_path)
    for split in SPLITS:
        pictures = dataset.pictures(split)
        assert [p.name for p in pictures] == list(expected[split])
        for picture in pictures:
            written = expected[split][picture.name]
            assert picture.shape == written.labels.shape
            for box in windows(picture.shape):
                check(picture, written, box)


@fakes
@pytest.mark.usefixtures("nothing_is_small")
def test_pictures_too_large_to_be_decoded_whole_read_the_same(fake: Fake, tmp_path: Path, cache: Path) -> None:
    expected = fake.write(tmp_path)["train"]
    for picture in find_dataset(fake.dataset, tmp_path).pictures("train"):
        for box in windows(picture.shape):
            check(picture, expected[picture.name], box)
    assert len(list(cache.iterdir())) >= 2 * len(expected)


@fakes
def test_every_layout_trains_a_crop(fake: Fake, tmp_path: Path) -> None:
    """One step of one convolution: its labels are classes or ignored, and it learns from more than one."""
    fake.write(tmp_path)
    dataset = find_dataset(fake.dataset, tmp_path)
    crop = CropSampler(dataset.pictures("train"), 128, 2, CropRules(), seed=1).crop(0)
    assert crop.image.shape == (256, 256, 3)
    assert len(set(np.unique(crop.labels).tolist()) - {IGNORE}) >= 2
    network = torch.nn.Conv2d(3, len(dataset.classes), 1)
    pixels = torch.from_numpy(crop.image.transpose(2, 0, 1).copy())[None] / 255
    labels = torch.from_numpy(crop.labels.astype(np.int64))[None]
    loss = functional.cross_entropy(network(pixels), labels, ignore_index=IGNORE)
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss) and network.weight.grad is not None and network.weight.grad.abs().sum() > 0


@fakes
def test_the_labels_of_a_crop_are_those_of_its_pixels(fake: Fake, tmp_path: Path) -> None:
    """No scale, no turn, no light: a crop that lies inside is a window of the picture."""
    plain = CropRules(scale_share=0, flip=False, turn=False, brightness=0, contrast=0, saturation=0)
    fake.write(tmp_path)
    picture = find_dataset(fake.dataset, tmp_path).pictures("train")[0]
    sampler = CropSampler([picture], 32, 2, plain, seed=1)
    for i in range(3):
        window = sampler._balanced_place(np.random.default_rng((1, i))).window
        crop = sampler.crop(i)
        assert np.array_equal(crop.image, picture.pixels(window))
        assert np.array_equal(crop.labels, picture.labels(window))


@fakes
def test_every_class_is_in_the_fake_and_none_is_beyond(fake: Fake, tmp_path: Path) -> None:
    fake.write(tmp_path)
    dataset = find_dataset(fake.dataset, tmp_path)
    picture = dataset.pictures("train")[0]
    found = np.unique(picture.labels(Box(0, 0, *picture.shape))).tolist()
    assert set(found) - {IGNORE} == {c.id for c in dataset.classes}


@with_one_mask
def test_a_missing_mask_is_named(fake: Fake, tmp_path: Path) -> None:
    fake.write(tmp_path)
    mask = tmp_path / str(fake.mask)
    mask.unlink()
    with pytest.raises(FileNotFoundError, match=re.escape(f"{mask}: expected there")):
        find_dataset(fake.dataset, tmp_path).pictures("train")


@with_one_mask
def test_a_stored_value_that_is_no_class_is_told_with_its_file(fake: Fake, tmp_path: Path) -> None:
    fake.write(tmp_path)
    mask = tmp_path / str(fake.mask)
    shape, wrong = (131, 97, 3), (255, 0, 0)
    save(mask, np.full(shape, wrong, np.uint8) if "land-train" in str(mask) else np.full(shape[:2], 99, np.uint8))
    picture = find_dataset(fake.dataset, tmp_path).pictures("train")[1]
    told = r"(class id 99 is unknown|colour \(255, 0, 0\) is no class), expected one of"
    with pytest.raises(ValueError, match=re.escape(str(mask)) + ": " + told):
        picture.labels(Box(0, 0, 8, 8))


@with_one_mask
def test_a_mask_of_another_size_is_told_with_both_files_and_sizes(fake: Fake, tmp_path: Path) -> None:
    fake.write(tmp_path)
    mask = tmp_path / str(fake.mask)
    save(mask, np.zeros((131, 96, 3) if "land-train" in str(mask) else (131, 96), np.uint8))
    with pytest.raises(ValueError, match=re.escape(str(mask)) + r": 131 x 96 .*expected 131 x 97 .* as in "):
        find_dataset(fake.dataset, tmp_path).pictures("train")


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_folder_of_another_layout_is_refused_and_what_is_expected_is_told(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="expected"):
        find_dataset(name, tmp_path).pictures("train")


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_data_set_says_what_it_is_and_on_what_terms(name: str, tmp_path: Path) -> None:
    dataset = find_dataset(name, tmp_path)
    assert [c.id for c in dataset.classes] == list(range(len(dataset.classes)))
    assert len({c.color for c in dataset.classes}) == len({c.name for c in dataset.classes}) == len(dataset.classes)
    assert "not shipped" in dataset.provenance["data"]
    assert any(word in dataset.license for word in ("Research only", "Non-commercial", "non-commercial"))


def test_a_name_that_is_not_in_the_folder_is_told_with_its_list_and_line(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    write_lists(tmp_path, ["119_sat.jpg", "", "nobody_sat.jpg"], ["7"], ["950926"])
    with pytest.raises(FileNotFoundError, match=r"train\.txt, line 3, .*land-train.nobody_sat\.jpg"):
        find_dataset("deepglobe", tmp_path).pictures("train")


def test_a_picture_in_two_lists_is_refused_however_it_is_written(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    write_lists(tmp_path, ["119_sat.jpg"], ["7"], ["950926", "land-train/119_sat.jpg"])
    for split in ("train", "test"):
        with pytest.raises(ValueError, match=r"line 1, and .* line 2, name the same|line 2, and .* line 1, name the"):
            find_dataset("deepglobe", tmp_path).pictures(split)


def test_a_picture_twice_in_a_list_is_refused(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    write_lists(tmp_path, ["119_sat.jpg", "119"], ["7"], ["950926"])
    with pytest.raises(ValueError, match=r"train\.txt, line 2: 119 is there already, in .* line 1"):
        find_dataset("deepglobe", tmp_path).pictures("train")


def test_a_list_is_asked_for_by_name_and_an_empty_one_refused(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    (tmp_path / "val.txt").unlink()
    (tmp_path / "test.txt").write_text("\n\n")
    assert find_dataset("deepglobe", tmp_path).pictures("val") == []
    with pytest.raises(ValueError, match=r"test\.txt: no image is named"):
        find_dataset("deepglobe", tmp_path).pictures("test")
    (tmp_path / "train.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"train\.txt: expected there, a list"):
        find_dataset("deepglobe", tmp_path).pictures("train")


def test_a_grey_image_is_told_with_its_bands(tmp_path: Path) -> None:
    write_deepglobe(tmp_path)
    save(tmp_path / "land-train" / "7_sat.jpg", np.zeros((96, 96), np.uint8))
    with pytest.raises(ValueError, match=r"7_sat\.jpg: 1 bands, expected 3"):
        find_dataset("deepglobe", tmp_path).pictures("val")


def test_an_order_of_names_depends_on_the_seed_and_on_nothing_else() -> None:
    names = [Path(f"{i}.tif") for i in range(50)]
    assert shuffled(names, 0) == shuffled(names[::-1], 0) != shuffled(names, 1)
    assert shuffled([Path("elsewhere") / p for p in names], 0) == [Path("elsewhere") / p for p in shuffled(names, 0)]


def test_a_line_of_a_list_may_have_a_folder_and_an_ending() -> None:
    for line in ("119", "119_sat", "119_sat.jpg", "land-train/119_sat.jpg", r"land-train\119_mask.png"):
        assert bare_name(line, "_sat.jpg", "_mask.png", "_sat") == "119"
