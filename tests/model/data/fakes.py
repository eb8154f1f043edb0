"""Tiny data sets in the published layouts, and what a reader must find in them.

Every class is in every picture that is large enough. The first picture of a split has a stripe that is ignored, where
the layout has such a thing; one picture has an odd size and one is smaller than a tile of 128.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from model.data.pictures import IGNORE

Bytes = NDArray[np.uint8]

PLAIN, ODD, SMALL = (256, 224), (131, 97), (96, 96)
JPEG_ERROR = 4


@dataclass(frozen=True)
class Sample:
    """What a picture must be: image (h, w, 3), labels (h, w). error: how far pixels may be off (JPEG)."""

    image: Bytes
    labels: Bytes
    error: int = 0


Splits = dict[str, dict[str, Sample]]  # split -> file name of the image -> sample


def sample(shape: tuple[int, int], classes: int, ignore: bool = False, error: int = 0) -> Sample:
    """Blocks of 8 px, each one class and one colour, so that JPEG is kind to them."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    labels = ((y // 8 * 5 + x // 8) % classes).astype(np.uint8)
    image = np.stack([y // 8 * 9 % 256, x // 8 * 7 % 256, (y // 8 + x // 8) * 11 % 256], axis=-1).astype(np.uint8)
    if ignore:
        labels[40:48] = IGNORE
    return Sample(image, labels, error)


def samples(classes: int, ignore: bool = False, error: int = 0) -> list[Sample]:
    """Four pictures: two to train, one to validate, one to test."""
    shapes = (PLAIN, ODD, SMALL, PLAIN)
    return [sample(shape, classes, ignore and i != 2, error) for i, shape in enumerate(shapes)]


def save(path: Path, pixels: Bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        Image.fromarray(pixels).save(path, quality=100, subsampling=0)
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack", rowsperstrip=10)
    else:
        Image.fromarray(pixels).save(path)


def encoded(labels: Bytes, values: list[int], ignored: int = 0) -> Bytes:
    """Class ids -> stored values."""
    table = np.full(256, ignored, np.uint8)
    table[: len(values)] = values
    return table[labels]


def write_lists(root: Path, train: list[str], val: list[str], test: list[str]) -> None:
    for name, lines in (("train", train), ("val", val), ("test", test)):
        (root / f"{name}.txt").write_text("".join(f"{line}\n" for line in lines))


def splits(names: list[str], written: list[Sample]) -> Splits:
    a, b, c, d = written
    return {"train": {names[0]: a, names[1]: b}, "val": {names[2]: c}, "test": {names[3]: d}}


DEEPGLOBE_COLOURS = ((0, 255, 255), (255, 255, 0), (255, 0, 255), (0, 255, 0), (0, 0, 255), (255, 255, 255))


def deepglobe_mask(labels: Bytes) -> Bytes:
    """The challenge's colours, some channels a little off, as its masks are said to be."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(DEEPGLOBE_COLOURS)] = DEEPGLOBE_COLOURS
    colours = table[labels]
    colours[::3] = np.where(colours[::3] == 255, 131, 124)
    return colours


def write_deepglobe(root: Path) -> Splits:
    written, ids = samples(6, ignore=True, error=JPEG_ERROR), ["119", "2334", "7", "950926"]
    for number, one in zip(ids, written, strict=True):
        save(root / "land-train" / f"{number}_sat.jpg", one.image)
        save(root / "land-train" / f"{number}_mask.png", deepglobe_mask(one.labels))
    write_lists(root, ["119_sat.jpg", "land-train/2334_sat.jpg"], ["7"], ["950926_sat", ""])
    return splits([f"{number}_sat.jpg" for number in ids], written)


def write_deepglobe_isdnet(root: Path) -> Splits:
    names = ["119_sat.jpg", "2334_sat.jpg", "7_sat.jpg", "950926_sat.jpg"]
    expected = splits(names, samples(6, ignore=True, error=JPEG_ERROR))
    for split, pictures in expected.items():
        for name, one in pictures.items():
            save(root / "img_dir" / split / name, one.image)
            mask = encoded(one.labels, [1, 2, 3, 4, 5, 6])
            save(root / "rgb2id" / split / name.replace("_sat.jpg", "_mask.png"), mask)
    return expected


def write_inria(root: Path) -> Splits:
    written, names = samples(2), ["austin1", "tyrol-w12", "kitsap36", "vienna5"]
    folder = root / "AerialImageDataset" / "train"
    for name, one in zip(names, written, strict=True):
        save(folder / "images" / f"{name}.tif", one.image)
        save(folder / "gt" / f"{name}.tif", encoded(one.labels, [0, 255]))
    write_lists(root, ["austin1_sat.tif", "tyrol-w12.tif"], ["kitsap36"], ["vienna5"])
    return splits([f"{name}.tif" for name in names], written)


def write_inria_isdnet(root: Path) -> Splits:
    names = ["austin1_sat.tif", "tyrol-w12_sat.tif", "kitsap36_sat.tif", "vienna5_sat.tif"]
    expected = splits(names, samples(2))
    for split, pictures in expected.items():
        for name, one in pictures.items():
            save(root / "imgs" / split / name, one.image)
            save(root / "labels" / split / name.replace("_sat.tif", "_mask.png"), one.labels)
    return expected


def write_fbp(root: Path) -> Splits:
    written = samples(24, ignore=True)
    names = [f"GF2_PMS1__L1A000{i}-MSS1" for i in range(len(written))]
    for name, one in zip(names, written, strict=True):
        infrared = np.full((*one.labels.shape, 1), 77, np.uint8)
        path = root / "Image__8bit_NirRGB" / f"{name}.tif"
        path.parent.mkdir(parents=True, exist_ok=True)
        four = np.concatenate([infrared, one.image], axis=2)
        tifffile.imwrite(path, four, photometric="minisblack", planarconfig="contig", tile=(64, 64))
        save(root / "Annotation__index" / f"{name}_24label.png", encoded(one.labels, list(range(1, 25))))
    write_lists(root, [f"{name}.tif" for name in names[:2]], names[2:3], names[3:])
    return splits([f"{name}.tif" for name in names], written)


def write_gleason(root: Path) -> Splits:
    """The first core has two raters who disagree about a corner: the lower-numbered is right."""
    written, names = samples(4, error=JPEG_ERROR), [f"slide00{i}_core10{i}" for i in range(4)]
    for name, one in zip(names, written, strict=True):
        save(root / "Train Imgs" / f"{name}.jpg", one.image)
        raw = encoded(one.labels, [1, 3, 4, 5])
        raw[:8] = np.where(one.labels[:8] == 0, 6, raw[:8])
        raw[8:16] = np.where(one.labels[8:16] == 0, 0, raw[8:16])
        save(root / "Maps2_T" / f"{name}_classimg_nonconvex.png", raw)
        if name == names[0]:
            raw[:32, :32] = 5 - raw[:32, :32] % 3
            save(root / "Maps5_T" / f"{name}_classimg_nonconvex.png", raw)
    write_lists(root, [f"{name}.jpg" for name in names[:2]], names[2:3], names[3:])
    return splits([f"{name}.jpg" for name in names], written)


CITYSCAPES_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def write_cityscapes(root: Path) -> Splits:
    written = samples(19, ignore=True)
    places = [("train", "aachen"), ("train", "ulm"), ("val", "lindau"), ("val", "munster")]
    names = []
    for i, ((folder, city), one) in enumerate(zip(places, written, strict=True)):
        stem = f"{city}_00000{i}_000019"
        names.append(f"{stem}_leftImg8bit.png")
        save(root / "leftImg8bit" / folder / city / names[-1], one.image)
        stored = encoded(one.labels, CITYSCAPES_IDS)
        untrained = np.array([i for i in range(34) if i not in CITYSCAPES_IDS], np.uint8)
        stored = np.where(one.labels == IGNORE, np.resize(untrained, stored.shape), stored)
        save(root / "gtFine" / folder / city / f"{stem}_gtFine_labelIds.png", stored)
    pictures = dict(zip(names, written, strict=True))
    return {
        "train": {name: pictures[name] for name in names[:2]},
        "val": {},
        "test": {name: pictures[name] for name in names[2:]},
    }


_UPPER_PARTS = ("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip")
CELEBA_PARTS = (*_UPPER_PARTS, "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth")


def write_celebamask(root: Path) -> Splits:
    """Masks of 102 and images of 204 are enlarged 24 and 12 times: a known answer without a resampler's help."""
    numbers, partition = ["0", "1", "2001", "29999"], ["0", "0", "1", "2"]
    expected: list[Sample] = []
    for number in numbers:
        small = sample((102, 102), 19)
        image = np.full((204, 204, 3), (200, 90, 40), np.uint8)
        save(root / "CelebA-HQ-img" / f"{number}.jpg", image)
        write_parts(root, int(number), small.labels)
        large = np.broadcast_to(image[0, 0], (2448, 2448, 3))
        expected.append(Sample(large, small.labels.repeat(24, axis=0).repeat(24, axis=1), JPEG_ERROR))
    lines = ["idx orig_idx orig_file", *(f"{n} {100 + i} {101 + i:06d}.jpg" for i, n in enumerate(numbers))]
    (root / "CelebA-HQ-to-CelebA-mapping.txt").write_text("\n".join(lines) + "\n")
    rows = [f"{101 + i:06d}.jpg {split}" for i, split in enumerate(partition)]
    (root / "list_eval_partition.txt").write_text("\n".join(["000001.jpg 0", *rows]) + "\n")
    return splits([f"{number}.jpg" for number in numbers], expected)


def write_parts(root: Path, number: int, labels: Bytes) -> None:
    """On the left every part also covers those that are laid over it later."""
    left = np.arange(labels.shape[1]) < labels.shape[1] // 2
    for part, name in enumerate(CELEBA_PARTS, 1):
        covered = (labels == part) | (left & (labels > part))
        folder = root / "CelebAMask-HQ-mask-anno" / str(number // 2000)
        save(folder / f"{number:05d}_{name}.png", np.where(covered, 255, 0).astype(np.uint8))


@dataclass(frozen=True)
class Fake:
    """mask: the truth of one picture of the training split, where that is one file."""

    dataset: str
    write: Callable[[Path], Splits]
    mask: str | None = None


FAKES = {
    "deepglobe": Fake("deepglobe", write_deepglobe, "land-train/2334_mask.png"),
    "deepglobe, ISDNet's": Fake("deepglobe", write_deepglobe_isdnet, "rgb2id/train/2334_mask.png"),
    "inria": Fake("inria", write_inria, "AerialImageDataset/train/gt/tyrol-w12.tif"),
    "inria, ISDNet's": Fake("inria", write_inria_isdnet, "labels/train/tyrol-w12_mask.png"),
    "fbp": Fake("fbp", write_fbp, "Annotation__index/GF2_PMS1__L1A0001-MSS1_24label.png"),
    "gleason": Fake("gleason", write_gleason),
    "cityscapes": Fake("cityscapes", write_cityscapes, "gtFine/train/ulm/ulm_000001_000019_gtFine_labelIds.png"),
    "celebamask": Fake("celebamask", write_celebamask),
}
ONE_MASK = {name: fake for name, fake in FAKES.items() if fake.mask}
