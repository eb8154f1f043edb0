"""A result as Zarr v2, read by zarr-python, numcodecs, ome-zarr-py and ome-zarr-models."""

from __future__ import annotations

import json
from pathlib import Path

import numcodecs
import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.v04 import Image, ImageLabel

from gigamask.exports.catalog import export
from gigamask.exports.zarr2 import list_keys, read_key
from gigamask.geometry import Box, level_shape
from gigamask.manifest import NO_DATA
from gigamask.pyramid.result import Result
from tests.exports.results_for_tests import NAMES, blobs, make_result

SHAPE = (1100, 1300)
NAME = "patches"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The chunk at (0, 0) is all no data."""
    labels = blobs(SHAPE)
    labels[:512, :512] = NO_DATA
    root = tmp_path_factory.mktemp("result") / "a.zarr"
    return make_result(root, labels, pixel_size=(0.25, 0.5), unit="micrometer", offset_px=(10, 20))


@pytest.fixture(scope="module")
def old(result: Result) -> Path:
    target = result.root.parent / "mask-0.4.zarr"
    export(result.root, "mask-0.4.zarr", target)
    return target


def test_zarr_reads_the_same_pixels_on_every_level_of_image_and_mask(old: Path, result: Result) -> None:
    group = zarr.open_group(old, mode="r", zarr_format=2)
    assert result.mask.levels == 4
    for k in range(result.mask.levels):
        box = Box(0, 0, *level_shape(SHAPE, k))
        np.testing.assert_array_equal(group[f"labels/{NAME}/{k}"][:], result.labels(box, k))
        np.testing.assert_array_equal(group[str(k)][:], result.pixels(box, k))


def test_an_array_says_how_its_chunks_are_named_and_packed(result: Result) -> None:
    array = json.loads(read_key(result.root, f"labels/{NAME}/0/.zarray") or b"")
    assert array == {
        "zarr_format": 2, "shape": list(SHAPE), "chunks": [512, 512], "dtype": "|u1", "fill_value": NO_DATA,
        "order": "C", "filters": None, "dimension_separator": "/",
        "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1, "blocksize": 0},
    }  # fmt: skip


def test_a_chunk_at_the_end_is_whole_and_filled_up(result: Result) -> None:
    value = read_key(result.root, f"labels/{NAME}/0/2/2")
    chunk = np.frombuffer(numcodecs.Blosc().decode(value), np.uint8).reshape(512, 512)
    inside = chunk[: SHAPE[0] - 1024, : SHAPE[1] - 1024]
    np.testing.assert_array_equal(inside, result.labels(Box(1024, 1024, *SHAPE)))
    assert (chunk[inside.shape[0] :] == NO_DATA).all()
    assert (chunk[:, inside.shape[1] :] == NO_DATA).all()


def test_the_old_metadata_is_valid_and_tells_what_the_new_one_told(old: Path, result: Result) -> None:
    group = zarr.open_group(old, mode="r", zarr_format=2)
    image, label = Image.from_zarr(group), ImageLabel.from_zarr(group[f"labels/{NAME}"])
    assert image.attributes.multiscales[0].version == "0.4"
    assert [entry.label_value for entry in label.attributes.image_label.colors] == [0, 1, 2, 3, NO_DATA]
    scale, shift = label.attributes.multiscales[0].datasets[1].coordinateTransformations
    assert scale.scale == [0.5, 1.0]
    assert shift.translation == [(10 + 0.5) * 0.25, (20 + 0.5) * 0.5]
    assert dict(group["labels"].attrs) == {"labels": [NAME]}
    assert "ome" not in dict(group.attrs)
    assert group.attrs["gigamask"] == json.loads((result.root / "zarr.json").read_bytes())["attributes"]["gigamask"]


def test_ome_zarr_py_finds_the_image_and_the_label_with_its_names(old: Path) -> None:
    nodes = list(Reader(parse_url(old, mode="r"))())
    image, label = nodes[0], nodes[-1]
    assert len(image.data) == len(label.data) == 4
    assert label.metadata["properties"][1]["name"] == NAMES[1]


def test_what_holds_no_data_and_what_is_not_there_has_no_value(result: Result) -> None:
    mask = f"labels/{NAME}"
    absent = (
        "", "0", ".zarray", "0/.zgroup", "0/.zattrs", f"{mask}/0/0/0", f"{mask}/0/3/0", f"{mask}/0/0", f"{mask}/0/00/1",
        f"{mask}/0/1/1/0", f"{mask}/9/0/0", "../a.zarr/.zgroup", f"{mask}/../.zgroup", "zarr.json", "labels/.zarray",
        f"{mask}/0/-1/0", "0/0/0", f"{mask}/0/1.0", f"/{mask}/.zgroup", "a" * 300 + "/.zgroup", "\0/.zgroup",
        f"{mask}/0/{10**12}/0", "labels\\.zattrs", "nothing/.zattrs",
    )  # fmt: skip
    assert {key: read_key(result.root, key) for key in absent} == dict.fromkeys(absent)


def test_no_key_leads_out_of_the_result(result: Result, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(result.root)
    assert read_key(tmp_path, "out/.zgroup") is None
    assert read_key(tmp_path, f"out/labels/{NAME}/0/1/1") is None


def test_the_folder_holds_the_keys_that_have_a_value_and_no_other(old: Path, result: Result) -> None:
    files = {p.relative_to(old).as_posix(): p.read_bytes() for p in old.rglob("*") if p.is_file()}
    assert files == {key: value for key in list_keys(result.root) if (value := read_key(result.root, key)) is not None}
    assert f"labels/{NAME}/0/0/0" not in files
    assert f"labels/{NAME}/0/0/1" in files
