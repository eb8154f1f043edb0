from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
import zarr

from gigamask.pyramid.ozx import ozx_order, ozx_stream
from tests.pictures import picture, write_image


@pytest.fixture
def image(tmp_path: Path) -> Path:
    root = write_image(tmp_path / "image.zarr", picture((700, 2500), 3))
    (root / "0" / "c" / "0" / "0" / "0.__lock").touch()
    return root


@pytest.fixture
def archive(image: Path, tmp_path: Path) -> Path:
    path = tmp_path / "image.ozx"
    with path.open("wb") as stream:
        stream.writelines(ozx_stream(image))
    return path


def test_metadata_comes_first_breadth_first_then_the_shards(image: Path) -> None:
    names = [p.relative_to(image).as_posix() for p in ozx_order(image)]
    levels = [f"{k}/zarr.json" for k in range(5)]
    assert names[:6] == ["zarr.json", *levels]
    assert names[6:8] == ["0/c/0/0/0", "0/c/0/0/1"]


def test_the_archive_is_stored_and_named_as_rfc_9_asks(archive: Path, image: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        assert opened.comment == b'{"ome": {"version": "0.5"}}'
        assert opened.namelist()[0] == "zarr.json"
        assert {entry.compress_type for entry in opened.infolist()} == {zipfile.ZIP_STORED}
        assert not [name for name in opened.namelist() if name.endswith("__lock")]
        assert opened.testzip() is None
        assert len(opened.namelist()) == len(ozx_order(image))


def test_its_size_is_known_before_the_first_byte(archive: Path, image: Path) -> None:
    assert len(ozx_stream(image)) == archive.stat().st_size


def test_zarr_python_opens_the_archive(archive: Path) -> None:
    with zarr.storage.ZipStore(archive, mode="r") as store:
        array = zarr.open_group(store, mode="r")["0"]
        assert isinstance(array, zarr.Array)
        assert np.array_equal(array[...], picture((700, 2500), 3).transpose(2, 0, 1))
