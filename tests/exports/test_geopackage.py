"""GeoPackage as geopandas (pyogrio, GDAL) reads it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import geopandas
import numpy as np
import pyogrio
import pytest
import shapely
from rasterio.features import rasterize
from rasterio.transform import Affine

from gigamask.errors import Conflict
from gigamask.exports import geopackage
from gigamask.exports.catalog import ExportOptions, export
from gigamask.manifest import NO_DATA
from tests.exports.results_for_tests import COLORS, NAMES, blobs, make_result

SHAPE = (500, 650)
LABELS = blobs(SHAPE, size_px=10)
UTM = {"epsg": 32640, "transform": (500000.0, 0.5, 0.0, 2800000.0, 0.0, -0.5)}
EARTH = {"pixel_size": (0.5, 0.5), "unit": "meter", "georeference": UTM}


def written(folder: Path, labels: np.ndarray = LABELS, options: ExportOptions | None = None, **info: Any) -> Path:
    make_result(folder / "a.zarr", labels, **info)
    export(folder / "a.zarr", "gpkg", folder / "mask.gpkg", options or ExportOptions())
    return folder / "mask.gpkg"


def test_the_layer_is_the_mask_in_its_crs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(geopackage, "CHUNK", 7)
    found = geopandas.read_file(written(tmp_path, **EARTH), layer="patches")
    assert len(found) > 14
    assert found.crs.to_epsg() == 32640
    burnt = rasterize(
        zip(found.geometry, found["class_id"], strict=True), SHAPE, fill=NO_DATA, transform=Affine.from_gdal(*_gdal())
    )
    assert np.array_equal(burnt, LABELS)


def _gdal() -> tuple[float, ...]:
    x0, dx, rx, y0, ry, dy = UTM["transform"]  # type: ignore[misc]
    return x0, dx, rx, y0, ry, dy


def test_each_polygon_has_its_class_and_area(tmp_path: Path) -> None:
    found = geopandas.read_file(written(tmp_path, options=ExportOptions(colors={0: "#112233"}), **EARTH))
    assert list(found.columns) == ["class_id", "class", "color", "area", "unit", "part", "geometry"]
    assert np.allclose(found["area"], found.area)
    assert set(found["unit"]) == {"m^2"}
    assert not found["part"].any()
    seen = found.groupby("class_id").agg({"class": "first", "color": "first"})
    assert list(seen["class"]) == list(NAMES[:3])
    assert list(seen["color"]) == ["#112233", *COLORS[1:3]]


def test_simplified_neighbours_are_a_valid_coverage_in_the_file_too(tmp_path: Path) -> None:
    found = geopandas.read_file(written(tmp_path, options=ExportOptions(simplify_px=2.0), **EARTH))
    assert found.is_valid.all()
    assert shapely.coverage_is_valid(np.array(found.geometry.array, object))


def test_a_transform_without_a_crs_is_a_layer_without_one(tmp_path: Path) -> None:
    path = written(tmp_path, georeference={"transform": UTM["transform"]})
    assert pyogrio.read_info(path)["crs"] is None or "Undefined" in pyogrio.read_info(path)["crs"]
    assert set(geopandas.read_file(path)["unit"]) == {"px"}


def test_where_it_comes_from_is_in_the_layers_metadata(tmp_path: Path) -> None:
    told = json.loads(pyogrio.read_info(written(tmp_path, **EARTH))["layer_metadata"]["gigamask"])
    assert told["provenance"]["model"]["name"] == "patches"


def test_a_mask_of_no_data_alone_is_an_empty_layer(tmp_path: Path) -> None:
    path = written(tmp_path, np.full((50, 60), NO_DATA, np.uint8), **EARTH)
    assert len(geopandas.read_file(path)) == 0
    assert pyogrio.list_layers(path).tolist() == [["patches", "MultiPolygon"]]


def test_an_image_without_a_place_has_none_and_is_told_why(tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="no geo-reference"):
        written(tmp_path)
    assert not (tmp_path / "mask.gpkg").exists()
