from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from model.data.crops import CropRules, CropSampler
from model.data.pictures import ArrayPicture
from model.recipe import Network, Recipe, Schedule
from model.sgnet import Surround


@pytest.fixture(scope="session")
def earth_water() -> Path:
    return Path(__file__).parents[2] / "models" / "earth-water"


@pytest.fixture
def coordinates() -> NDArray[np.uint8]:
    """(200, 240, 3): red is the row, green the column, blue 7."""
    image = np.full((200, 240, 3), 7, np.uint8)
    image[..., 0] = np.arange(200)[:, None]
    image[..., 1] = np.arange(240)
    return image


@pytest.fixture
def tiny_recipe() -> Recipe:
    """Seconds on one core: tile 64, surround 128."""
    return Recipe(
        name="tiny",
        version="0",
        dataset="earth",
        seed=3,
        network=Network("mobilenet_v2", 64, imagenet=False, surround=Surround(alpha=2, width=0.25, blocks=1)),
        schedule=Schedule(iterations=4, batch=2, learning_rate=1e-3, checkpoint_every=2),
    )


@pytest.fixture
def tiny_sampler(coordinates: NDArray[np.uint8]) -> CropSampler:
    labels = ((coordinates[..., 0] // 40 + coordinates[..., 1] // 60) % 3).astype(np.uint8)
    return CropSampler([ArrayPicture("coordinates", coordinates, labels)], 64, 2, CropRules(), seed=3)
