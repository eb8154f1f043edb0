"""How the tests of sources read: `pixels(path)` is the whole upright image."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from gigamask.image_info import ReadOptions
from gigamask.settings import Settings
from gigamask.sources.source import open_source

SAMPLES = (Path(__file__).parents[2] / "../shared/data").resolve()

Read = Callable[..., NDArray[np.uint8]]


@pytest.fixture(scope="session")
def samples() -> Path:
    if not SAMPLES.is_dir():
        pytest.skip("../shared/data is absent")
    return SAMPLES


@pytest.fixture(scope="session")
def settings() -> Settings:
    return Settings(_env_file=None)


@pytest.fixture(scope="session")
def pixels(settings: Settings) -> Read:
    def read(path: Path, **options: Any) -> NDArray[np.uint8]:
        source = open_source(path, ReadOptions(**options), settings)
        blocks = list(source.rows())
        assert all(block.nbytes <= 9 * 1024**2 or len(block) == 1 for block in blocks)
        image = np.concatenate(blocks)
        assert image.shape == (source.info.height, source.info.width, source.info.channels)
        return image

    return read
