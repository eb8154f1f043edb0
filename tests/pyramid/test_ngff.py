"""Strict readers of the format judge the metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
from ome_zarr_models.common.omero import Omero
from ome_zarr_models.v05 import Image
from ome_zarr_models.v05.image_label import ImageLabel
from ome_zarr_models.v05.labels import Labels

from gigamask.image_info import ImageInfo
from gigamask.manifest import NO_DATA, ModelManifest, read_manifest
from gigamask.plan import Plan
from gigamask.pyramid import ngff
from gigamask.pyramid.mask import MaskWriter, mask_folder
from tests.models_for_tests import threshold_model
from tests.pictures import picture, write_image

SHAPE = (700, 1100)
AREAS = {0: 500_000, 1: 270_000}


@pytest.fixture
def manifest(tmp_path: Path) -> ModelManifest:
    return read_manifest(threshold_model(tmp_path / "threshold", tile_px=64, alpha=1))


@pytest.fixture(params=[3, 4])
def root(tmp_path: Path, manifest: ModelManifest, request: pytest.FixtureRequest) -> Path:
    """An image of 0.5 x 0.25 um pixels, cropped at (10, 20), with a mask."""
    pixels = picture(SHAPE, request.param)
    root = tmp_path / "image.zarr"
    write_image(root, pixels, pixel_size=(0.5, 0.25), unit="micrometer", offset_px=(10, 20))
    folder = mask_folder(root, manifest.name)
    plan = Plan(SHAPE, 64, 1, 512)
    writer = MaskWriter(folder, plan)
    writer.create()
    for region in plan.regions():
        writer.write_region(region, (pixels[..., 0] > 127).astype(np.uint8)[region.box.slices])
    writer.build_upper_levels()
    info = ImageInfo.model_validate(ngff.read_attributes(root)["gigamask"]["image"])
    made_by = ngff.provenance(manifest, {"region_px": 512})
    ngff.write_group(folder, ngff.label_attributes(info, plan.levels, manifest, AREAS, made_by))
    ngff.write_group(root / "labels", ngff.labels_attributes([manifest.name]))
    return root


def group(path: Path) -> zarr.Group:
    return zarr.open_group(path, mode="r")


def test_the_image_passes_strict_validation(root: Path) -> None:
    image = Image.from_zarr(group(root))
    axes = image.attributes.ome.multiscales[0].axes
    assert [(axis.name, axis.type, axis.unit) for axis in axes] == [
        ("c", "channel", None),
        ("y", "space", "micrometer"),
        ("x", "space", "micrometer"),
    ]
    omero = Omero.model_validate(attributes(root)["ome"]["omero"])
    assert len(omero.channels) == image.members["0"].shape[0]


def test_the_labels_pass_strict_validation(root: Path, manifest: ModelManifest) -> None:
    assert Labels.from_zarr(group(root / "labels")).attributes.ome.labels == [manifest.name]
    label = ImageLabel.from_zarr(group(mask_folder(root, manifest.name))).attributes.ome.image_label
    assert {color.label_value: tuple(color.rgba) for color in label.colors} == {
        0: manifest.classes[0].rgba,
        1: manifest.classes[1].rgba,
        NO_DATA: (0, 0, 0, 0),
    }


@pytest.mark.filterwarnings("ignore")
def test_ome_zarr_py_reads_image_and_labels(root: Path, manifest: ModelManifest) -> None:
    location = parse_url(root)
    assert location is not None
    nodes = list(Reader(location)())
    assert [node.zarr.basename() for node in nodes] == ["image.zarr", "labels", manifest.name]
    image, label = nodes[0], nodes[2]
    assert len(image.data) == len(label.data) == 4
    for pixels, labels in zip(image.data, label.data, strict=True):
        assert pixels.shape[1:] == labels.shape[-2:]
    assert label.metadata["properties"][1]["name"] == "bright"


def test_levels_are_named_scaled_and_shifted_by_half_pixels(root: Path) -> None:
    dataset = attributes(root)["ome"]["multiscales"][0]["datasets"][2]
    assert dataset["path"] == "2"
    assert dataset["coordinateTransformations"] == [
        {"type": "scale", "scale": [1.0, 2.0, 1.0]},
        {"type": "translation", "translation": [0.0, (10 + 1.5) * 0.5, (20 + 1.5) * 0.25]},
    ]


def test_an_image_without_pixel_size_is_in_pixels_without_unit(tmp_path: Path) -> None:
    root = write_image(tmp_path / "plain.zarr", picture((300, 300), 3))
    Image.from_zarr(group(root))
    multiscale = attributes(root)["ome"]["multiscales"][0]
    assert multiscale["axes"][1] == {"name": "y", "type": "space"}
    assert multiscale["datasets"][1]["coordinateTransformations"][0]["scale"] == [1.0, 2.0, 2.0]


def test_every_array_names_its_dimensions(root: Path, manifest: ModelManifest) -> None:
    image, label = zarr.open_array(root / "1"), zarr.open_array(mask_folder(root, manifest.name) / "1")
    assert image.metadata.dimension_names == ("c", "y", "x")
    assert label.metadata.dimension_names == ("y", "x")


def test_properties_give_each_class_its_name_and_area(root: Path, manifest: ModelManifest) -> None:
    properties = attributes(mask_folder(root, manifest.name))["ome"]["image-label"]["properties"]
    assert properties == [
        {"label-value": 0, "name": "dark", "area_px": 500_000, "area_um2": 62_500.0},
        {"label-value": 1, "name": "bright", "area_px": 270_000, "area_um2": 33_750.0},
        {"label-value": 255, "name": "no data", "area_px": 0, "area_um2": 0.0},
    ]


def test_what_made_the_labels_is_kept_beside_them(root: Path, manifest: ModelManifest) -> None:
    made_by = attributes(mask_folder(root, manifest.name))["gigamask"]["provenance"]
    assert made_by["model"]["name"] == manifest.name
    assert made_by["model"]["sha256"] == {"onnx": manifest.files["onnx"].sha256}
    assert made_by["options"] == {"region_px": 512}


def attributes(folder: Path) -> dict[str, Any]:
    return ngff.read_attributes(folder)
