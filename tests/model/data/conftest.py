from __future__ import annotations

from pathlib import Path

import pytest

from model.data import converted, rasters, tiff_windows


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pictures are converted to in a test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv(converted.CACHE_VARIABLE, str(folder))
    return folder


@pytest.fixture
def nothing_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiny files are read as if they were too large to be decoded whole, or to be read by cells."""
    monkeypatch.setattr(rasters, "DECODED_PX", 0)
    monkeypatch.setattr(tiff_windows, "MAX_CELL_BYTES", 0)
