"""The Earth's labels, and the line that training does not cross."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from gigamask.geometry import Box
from model.data import earth
from model.data.datasets import find_dataset
from model.data.pictures import IGNORE, ArrayPicture

TORCHLESS = """
import sys
sys.modules["torch"] = None
import model.data.earth, model.data.datasets, model.evaluate, model.predictors.onnx, model.predictors.tiles
"""


def test_majority_is_that_of_the_area_each_class_covers() -> None:
    cells = np.random.default_rng(0).integers(0, 3, (32, 48)).astype(np.uint8)
    fine = cells.repeat(5, axis=0).repeat(5, axis=1)  # 16 x 16 of these are one pixel
    blocks = fine.reshape(10, 16, 15, 16).transpose(0, 2, 1, 3).reshape(10, 15, -1)
    area = np.stack([(blocks == c).sum(axis=-1) for c in range(3)])
    assert np.array_equal(earth.majority(cells, 3), area.argmax(axis=0))


def test_labels_are_the_earths() -> None:
    labels = earth.earth_labels()
    assert labels.shape == earth.SHAPE
    places = {
        "Pacific": (1350, 300, 0),
        "Sahara": (1000, 2800, 1),
        "Lake Superior": (636, 1395, 2),
        "Caspian": (700, 3468, 2),
    }
    for name, (y, x, label) in places.items():
        assert labels[y, x] == label, name
    assert np.bincount(labels.ravel()) / labels.size == pytest.approx([0.659, 0.338, 0.003], abs=2e-3)


def test_training_is_handed_the_eastern_half_and_nothing_else() -> None:
    (picture,) = find_dataset("earth").pictures("train")
    assert isinstance(picture, ArrayPicture)
    whole = earth.earth_pixels(slice(None))
    assert np.array_equal(picture.image, whole[:, 2700:])
    assert np.array_equal(picture.ids, earth.earth_labels()[:, 2700:])
    assert picture.image.base is None or picture.image.base.shape == picture.image.shape
    (judged,) = find_dataset("earth").pictures("test")
    assert (judged.labels(Box(0, 2700, 2700, 5400)) == IGNORE).all()
    assert np.array_equal(judged.labels(Box(0, 0, 2700, 2700)), earth.earth_labels()[:, :2700])
    assert (earth.TEST_COLUMNS.start, earth.TEST_COLUMNS.stop) == (0, earth.TRAIN_COLUMNS.start)


def test_labels_predictor_and_evaluation_need_no_torch() -> None:
    subprocess.run([sys.executable, "-c", TORCHLESS], check=True)


def test_an_unknown_dataset_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"unknown dataset 'mars'.*earth"):
        find_dataset("mars")
