"""Gleason 2019 (Nir et al., 2018; MICCAI challenge): 244 cores of prostate tissue, about 5000 x 5000, six pathologists.

`Train Imgs/slideNNN_coreNNN.jpg` and `Maps1_T` to `Maps6_T/slideNNN_coreNNN_classimg_nonconvex.png`, grey ids; not
every core was seen by every rater. 0 background, 1 benign, 3 to 5 Gleason patterns, 6 and above benign.

A pixel's label is what most raters say, after their ids became classes; where classes tie, the one of them that the
lowest-numbered rater says. Four classes as in the challenge (background is benign), or five with background apart.
Merged maps (STAPLE and the like) can be given as a `Maps1_T` of their own.

Without lists the split is random, 195 of 244 for training and the rest for test, `SEED`; the paper's is not known, so
its figures cannot be reproduced to the digit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gigamask.geometry import Box
from model.data.files import FilePicture, IdMap, IdTable, id_table, open_id_map, told
from model.data.layouts.layout import (
    SPLITS,
    Layout,
    bare_name,
    folder_images,
    has_list,
    listed_images,
    make_classes,
    shuffled,
)
from model.data.rasters import open_raster

Bytes = NDArray[np.uint8]

RATERS = 6
SEED = 0
TRAIN_SHARE = 195 / 244
_IMAGES, _ENDING = "Train Imgs", "_classimg_nonconvex.png"
_PATTERNS = {"Gleason 3": (240, 228, 66), "Gleason 4": (230, 159, 0), "Gleason 5": (213, 94, 0)}
CLASSES4 = make_classes({"benign": (0, 158, 115), **_PATTERNS})
CLASSES5 = make_classes({"background": (255, 255, 255), "benign": (0, 158, 115), **_PATTERNS})
_BENIGN = range(6, 256)
TABLE4 = id_table({0: 0, 1: 0, 3: 1, 4: 2, 5: 3} | dict.fromkeys(_BENIGN, 0))
TABLE5 = id_table({0: 0, 1: 1, 3: 2, 4: 3, 5: 4} | dict.fromkeys(_BENIGN, 1))


@dataclass(frozen=True, slots=True)
class Vote:
    """Several raters' maps of one core, in the order of the raters' numbers. Raises ValueError where sizes differ."""

    maps: tuple[IdMap, ...]

    def __post_init__(self) -> None:
        for other in self.maps[1:]:
            if other.shape != self.shape:
                raise ValueError(f"{other.path}: {told(other.shape)}, expected {told(self.shape)} as in {self.path}")

    @property
    def path(self) -> Path:
        return self.maps[0].path

    @property
    def shape(self) -> tuple[int, int]:
        return self.maps[0].shape

    def read(self, box: Box) -> Bytes:
        return majority([rater.read(box) for rater in self.maps])


def majority(votes: list[Bytes]) -> Bytes:
    """(h, w) per rater -> (h, w): the class with most votes; of those that tie, the first rater's who says one."""
    winner, most = votes[0].copy(), np.zeros(votes[0].shape, np.uint8)
    for vote in votes:
        agreeing = np.stack([vote == other for other in votes]).sum(axis=0, dtype=np.uint8)
        better = agreeing > most
        winner[better], most[better] = vote[better], agreeing[better]
    return winner


def gleason_pictures(root: Path, split: str, table: IdTable = TABLE4) -> list[FilePicture]:
    return [open_core(root, image, table) for image in _images(root, split)]


def gleason5_pictures(root: Path, split: str) -> list[FilePicture]:
    return gleason_pictures(root, split, TABLE5)


def _images(root: Path, split: str) -> list[Path]:
    if any(has_list(root, name) for name in SPLITS):
        return listed_images(root, split, lambda line: root / _IMAGES / f"{bare_name(line, _ENDING, '.jpg')}.jpg")
    return random_split(root)[split]


def random_split(root: Path) -> dict[str, list[Path]]:
    """Train and test of the cores that at least one rater saw; nothing to validate on."""
    seen = [
        image for image in folder_images(root / _IMAGES, "*.jpg") if any(p.is_file() for p in map_paths(root, image))
    ]
    cores = shuffled(seen, SEED)
    trained = round(len(cores) * TRAIN_SHARE)
    return {"train": sorted(cores[:trained]), "val": [], "test": sorted(cores[trained:])}


def map_paths(root: Path, image: Path) -> list[Path]:
    """Where each rater's map of a core would be."""
    return [root / f"Maps{rater}_T" / f"{image.stem}{_ENDING}" for rater in range(1, RATERS + 1)]


def open_core(root: Path, image: Path, table: IdTable) -> FilePicture:
    paths = map_paths(root, image)
    maps = tuple(open_id_map(path, table) for path in paths if path.is_file())
    if not maps:
        raise FileNotFoundError(f"{image}: no rater's map is there, expected at least one such as {paths[0]}")
    return FilePicture(image.name, open_raster(image, bands=3), Vote(maps))


_LICENSE = "CC BY-NC-SA 4.0: Gleason 2019 is for non-commercial use, under the same terms"
_PROVENANCE = {
    "data": "Gleason 2019 challenge, gleason2019.grand-challenge.org; by registration, not shipped",
    "labels": "majority vote of the raters of each core; classes that tie: the lowest-numbered rater's",
    "split": f"train.txt, val.txt and test.txt beside the data, or 195/49 at random, seed {SEED}",
}
LAYOUT4 = Layout("Gleason patterns in prostate cores", CLASSES4, gleason_pictures, _LICENSE, _PROVENANCE)
LAYOUT5 = Layout(
    "Gleason patterns in prostate cores, background apart", CLASSES5, gleason5_pictures, _LICENSE, _PROVENANCE
)
