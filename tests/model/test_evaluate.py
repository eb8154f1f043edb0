"""The evaluation, on a picture and a predictor whose score is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from gigamask.manifest import ModelManifest
from gigamask.plan import Region
from model.data.datasets import find_dataset
from model.evaluate import measure
from tests.model.test_tiles import manifest


class Threshold:
    """Land where red is above 100, else ocean."""

    manifest: ModelManifest = manifest(2)

    def predict(self, window: NDArray[np.uint8], region: Region) -> NDArray[np.uint8]:
        return (window[0][region.box.within(region.window).slices] > 100).astype(np.uint8)


def test_only_the_test_columns_count(tmp_path: Path) -> None:
    image = np.zeros((300, 1100, 3), np.uint8)
    image[:, 50:] = 200
    Image.fromarray(image).save(tmp_path / "earth.png")
    truth = np.zeros((300, 1100), np.uint8)
    truth[:, 100:600] = 1  # right of column 600 all is wrong, and does not count
    dataset = replace(
        find_dataset("earth"),
        test_file=lambda: tmp_path / "earth.png",
        test_labels=lambda: truth,
        test_columns=slice(0, 600),
    )
    report = measure(dataset, Threshold(), 512)
    assert report["iou"] == {
        "ocean": 0.5,
        "land": pytest.approx(500 / 550, abs=1e-4),
        "lake": pytest.approx(np.nan, nan_ok=True),
    }
    assert np.sum(report["confusion"]) == 300 * 600  # type: ignore[arg-type]
