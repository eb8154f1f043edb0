"""GeoJSON as others read it: by QuPath's rules (as its reader has them), by shapely, by geopandas."""

from __future__ import annotations

import gzip
import json
import uuid
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pytest
import shapely
from rasterio.features import rasterize

from gigamask.exports import geojson
from gigamask.exports.catalog import ExportOptions, export
from gigamask.exports.polygons import trace_polygons
from gigamask.manifest import NO_DATA
from tests.exports.results_for_tests import NAMES, blobs, make_result

SHAPE = (600, 700)
LABELS = blobs(SHAPE, size_px=12)
UTM = {"epsg": 32640, "transform": (500000.0, 0.5, 0.0, 2800000.0, 0.0, -0.5)}
SLIDE = {"pixel_size": (0.5, 0.5), "unit": "micrometer", "offset_px": (1000, 2000)}
EARTH = {"pixel_size": (0.5, 0.5), "unit": "meter", "georeference": UTM}


def written(folder: Path, options: ExportOptions | None = None, name: str = "mask.geojson", **info: Any) -> Path:
    if not (folder / "a.zarr").exists():
        make_result(folder / "a.zarr", LABELS, **info)
    export(folder / "a.zarr", name, folder / name, options or ExportOptions())
    return folder / name


def test_a_slides_features_follow_qupaths_rules(tmp_path: Path) -> None:
    found = json.loads(written(tmp_path, **SLIDE).read_bytes())
    assert found["type"] == "FeatureCollection"
    ids = [feature["id"] for feature in found["features"]]
    assert len({uuid.UUID(text) for text in ids}) == len(ids) > 10
    for feature in found["features"]:
        own = feature["properties"]
        assert (feature["type"], own["objectType"], own["isLocked"]) == ("Feature", "annotation", False)
        kind = own["classification"]
        assert kind in [
            {"name": "ocean", "color": [31, 78, 156]},
            {"name": "land", "color": [185, 166, 107]},
            {"name": "lake", "color": [53, 201, 224]},
        ]
        area = shapely.geometry.shape(feature["geometry"]).area
        assert own["measurements"] == {"Area px": area, "Area um^2": area / 4}


def test_a_slides_polygons_lie_in_the_pixels_that_qupath_shows(tmp_path: Path) -> None:
    """From the corner of the scanner's bounds: burnt without any shift they are the mask. The file tells the shift."""
    found = json.loads(written(tmp_path, **SLIDE).read_bytes())
    labels = {name: label for label, name in enumerate(NAMES)}
    shapes = [(f["geometry"], labels[f["properties"]["classification"]["name"]]) for f in found["features"]]
    assert np.array_equal(rasterize(shapes, SHAPE, fill=NO_DATA, dtype="uint8"), LABELS)
    assert found["gigamask"]["offset_px"] == [1000, 2000]


def test_pixel_coordinates_are_whole_and_outer_rings_counter_clockwise(tmp_path: Path) -> None:
    text = written(tmp_path).read_text()
    assert ".0," not in text.split('"coordinates"', 1)[1].split('"type"', 1)[0]
    for feature in json.loads(text)["features"]:
        polygon = shapely.geometry.shape(feature["geometry"])
        assert polygon.exterior.is_ccw
        assert not any(ring.is_ccw for ring in polygon.interiors)


def test_without_a_pixel_size_there_is_no_area_but_pixels(tmp_path: Path) -> None:
    found = json.loads(written(tmp_path).read_bytes())
    assert set(found["features"][0]["properties"]["measurements"]) == {"Area px"}
    assert "offset_px" not in found["gigamask"]


def test_equal_masks_give_equal_files_and_other_options_other_ids(tmp_path: Path) -> None:
    once = written(tmp_path).read_bytes()
    assert written(tmp_path).read_bytes() == once
    coarse = written(tmp_path, ExportOptions(level=1)).read_bytes()
    ids = [{feature["id"] for feature in json.loads(text)["features"]} for text in (once, coarse)]
    assert not ids[0] & ids[1]


def test_the_gz_file_is_the_same_compressed_without_a_time(tmp_path: Path) -> None:
    plain = written(tmp_path).read_bytes()
    packed = written(tmp_path, name="mask.geojson.gz").read_bytes()
    assert gzip.decompress(packed) == plain
    assert packed[4:8] == bytes(4)
    assert len(packed) < len(plain) / 3


@pytest.mark.parametrize("limit", ["MANY_POLYGONS", "MANY_VERTICES"])
def test_many_objects_are_detections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    few = json.loads(written(tmp_path).read_bytes())["features"]
    count = len(few) if limit == "MANY_POLYGONS" else sum(_vertices(feature) for feature in few)
    monkeypatch.setattr(geojson, limit, count)
    assert json.loads(written(tmp_path).read_bytes())["features"] == few
    monkeypatch.setattr(geojson, limit, count - 1)
    many = json.loads(written(tmp_path).read_bytes())["features"]
    assert {feature["properties"]["objectType"] for feature in many} == {"detection"}
    assert [feature["geometry"] for feature in many] == [feature["geometry"] for feature in few]


def _vertices(feature: dict[str, Any]) -> int:
    return int(shapely.get_num_coordinates(shapely.geometry.shape(feature["geometry"])))


def test_colours_are_those_that_were_asked_for(tmp_path: Path) -> None:
    found = json.loads(written(tmp_path, ExportOptions(colors={1: "#ff8800"})).read_bytes())
    kinds = {f["properties"]["classification"]["name"]: f["properties"]["classification"] for f in found["features"]}
    assert kinds["land"]["color"] == [255, 136, 0]


def test_a_part_of_a_large_polygon_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smaller = {"block_px": 128, "max_vertices": 400}
    monkeypatch.setattr(trace_polygons, "__kwdefaults__", trace_polygons.__kwdefaults__ | smaller)
    found = json.loads(written(tmp_path).read_bytes())["features"]
    parts = [feature["properties"] for feature in found if "metadata" in feature["properties"]]
    assert 0 < len(parts) < len(found)
    assert all(isinstance(text, str) for own in parts for text in own["metadata"].values())


def test_on_the_earth_coordinates_are_in_the_images_crs(tmp_path: Path) -> None:
    path = written(tmp_path, **EARTH)
    found = geopandas.read_file(path)
    assert found.crs.to_epsg() == 32640
    assert list(found["class"].unique()) == [NAMES[label] for label in found["class_id"].unique()]
    assert found.is_valid.all()
    assert np.allclose(found.area, found["area_m2"])
    transform = (0.5, 0, 500000, 0, -0.5, 2800000)
    burnt = rasterize(
        zip(found.geometry, found["class_id"], strict=True), SHAPE, fill=255, transform=_affine(transform)
    )
    assert np.array_equal(burnt, LABELS)


def _affine(values: tuple[float, ...]) -> Any:
    from rasterio.transform import Affine

    return Affine(*values)


def test_longitude_comes_first_whatever_the_authority_says(tmp_path: Path) -> None:
    place = {"epsg": 4326, "transform": (-70.0, 1e-5, 0.0, 40.0, 0.0, -1e-5)}
    path = written(tmp_path, georeference=place)
    assert json.loads(path.read_bytes())["crs"]["properties"]["name"] == "urn:ogc:def:crs:OGC:1.3:CRS84"
    west, south, east, north = geopandas.read_file(path).total_bounds
    assert (west, north) == pytest.approx((-70.0, 40.0))
    assert (east, south) == pytest.approx((-70 + 700e-5, 40 - 600e-5), abs=1e-7)


def test_a_mask_of_no_data_alone_is_a_collection_without_features(tmp_path: Path) -> None:
    make_result(tmp_path / "a.zarr", np.full((50, 50), NO_DATA, np.uint8))
    assert json.loads(written(tmp_path).read_bytes())["features"] == []
