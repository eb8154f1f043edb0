"""Figures against a recount of the labels that made them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gigamask.errors import InvalidOption
from gigamask.exports import statistics
from gigamask.exports.catalog import ExportOptions, export
from gigamask.exports.statistics import measure
from gigamask.geometry import Box
from gigamask.manifest import NO_DATA
from gigamask.pyramid import ngff
from gigamask.pyramid.result import Result, open_result
from gigamask.roi import inside, parse_roi
from gigamask.tissue import find_tissue
from tests.exports.results_for_tests import NAMES, blobs, make_result

SHAPE = (900, 1100)
WHOLE = Box(0, 0, *SHAPE)
LABELS = blobs(SHAPE, size_px=12)
SLIDE = {"pixel_size": (0.5, 0.25), "unit": "micrometer"}
TRIANGLE = {
    "type": "Feature",
    "properties": {"name": "tumour bed"},
    "geometry": {"type": "Polygon", "coordinates": [[[50, 40], [900, 100], [300, 800], [50, 40]]]},
}
BOX = {
    "type": "Feature",
    "properties": {"name": "=margin"},
    "geometry": {"type": "Polygon", "coordinates": [[[0, 0], [100, 0], [100, 300], [0, 300], [0, 0]]]},
}
ROI = parse_roi({"type": "FeatureCollection", "features": [TRIANGLE, BOX]})


def read_json(result: Result, options: ExportOptions | None = None) -> dict[str, Any]:
    target = result.root.with_name("statistics.json")
    export(result.root, "statistics.json", target, options or ExportOptions())
    return json.loads(target.read_bytes())  # type: ignore[no-any-return]


def read_csv(result: Result, options: ExportOptions | None = None) -> list[dict[str, str]]:
    target = result.root.with_name("statistics.csv")
    export(result.root, "statistics.csv", target, options or ExportOptions())
    with target.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_figures_of_the_whole_image_equal_a_recount(tmp_path: Path) -> None:
    found = read_json(make_result(tmp_path / "a.zarr", LABELS, **SLIDE))
    (whole,) = found["areas"]
    counts = np.bincount(LABELS.ravel(), minlength=256)
    labelled = int(counts[:NO_DATA].sum())
    assert (whole["name"], whole["kind"]) == ("whole image", "image")
    assert (whole["labelled_px"], whole["no_data_px"]) == (labelled, counts[NO_DATA])
    assert whole["labelled_um2"] == pytest.approx(labelled / 8)
    for entry, name in zip(whole["classes"], NAMES, strict=True):
        assert (entry["name"], entry["area_px"]) == (name, counts[entry["id"]])
        assert entry["area_um2"] == pytest.approx(counts[entry["id"]] / 8)
        assert entry["share_of_labelled"] == pytest.approx(counts[entry["id"]] / labelled)
        assert entry["share_of_tissue"] is None
    assert sum(entry["share_of_labelled"] for entry in whole["classes"]) == pytest.approx(1)


@pytest.mark.parametrize("block_px", [128, 2048])
def test_each_area_is_counted_pixel_by_pixel_in_any_blocks(
    tmp_path: Path, block_px: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(statistics, "BLOCK_PX", block_px)
    found = read_json(make_result(tmp_path / "a.zarr", LABELS), ExportOptions(roi=ROI))
    assert [area["name"] for area in found["areas"]] == ["whole image", "tumour bed", "=margin"]
    for area, feature in zip(found["areas"][1:], (TRIANGLE, BOX), strict=True):
        chosen = LABELS[inside(parse_roi(feature, "pixel"), WHOLE)]
        counts = np.bincount(chosen, minlength=256)
        assert [entry["area_px"] for entry in area["classes"]] == counts[:4].tolist()
        assert area["no_data_px"] == counts[NO_DATA]
        assert area["labelled_px"] == counts[:4].sum() > 0


def test_the_jobs_own_region_of_interest_is_measured_unless_another_is_asked_for(tmp_path: Path) -> None:
    job = {"region_px": 512, "roi": ROI.model_dump(mode="json")}
    result = make_result(tmp_path / "a.zarr", LABELS, options=job)
    assert [area.name for area in measure(result).areas] == ["whole image", "tumour bed", "=margin"]
    assert [area.name for area in measure(result, parse_roi("0,0,50,50")).areas] == ["whole image", "area 1"]


def test_a_region_of_interest_on_the_earth_is_measured_in_metres(tmp_path: Path) -> None:
    place = {"epsg": 32640, "transform": (500000.0, 2.0, 0.0, 2800000.0, 0.0, -2.0)}
    info = {"pixel_size": (2.0, 2.0), "unit": "meter", "georeference": place}
    result = make_result(tmp_path / "a.zarr", LABELS, **info)
    ring = [[500000, 2800000], [500200, 2800000], [500200, 2799400], [500000, 2799400], [500000, 2800000]]
    area = measure(result, parse_roi({"type": "Polygon", "coordinates": [ring]}, "crs")).areas[1]
    assert [share.area_px for share in area.classes] == np.bincount(LABELS[:300, :100].ravel(), minlength=4).tolist()[
        :4
    ]
    assert area.physical == {"area_m2": area.labelled_px * 4}


def test_the_csv_says_the_same_in_rows_with_units_in_its_columns(tmp_path: Path) -> None:
    result = make_result(tmp_path / "a.zarr", LABELS, **SLIDE)
    found, rows = read_json(result, ExportOptions(roi=ROI)), read_csv(result, ExportOptions(roi=ROI))
    assert list(rows[0]) == ["area", "class_id", "class", "area_px", "area_um2", "share_of_labelled"]
    flat = [(area, entry) for area in found["areas"] for entry in area["classes"]]
    assert len(rows) == len(flat) == 12
    for row, (area, entry) in zip(rows, flat, strict=True):
        assert row["area"].removeprefix("'") == area["name"]
        assert (int(row["class_id"]), row["class"], int(row["area_px"])) == (
            entry["id"],
            entry["name"],
            entry["area_px"],
        )
        assert float(row["area_um2"]) == entry["area_um2"]
        assert float(row["share_of_labelled"]) == entry["share_of_labelled"]


def test_names_that_a_spreadsheet_would_run_are_quoted(tmp_path: Path) -> None:
    result = make_result(tmp_path / "a.zarr", LABELS, names=("=1+1", "@x", 'a,"b"', "d"))
    rows = read_csv(result, ExportOptions(roi=ROI))
    assert [row["class"] for row in rows[:4]] == ["'=1+1", "'@x", 'a,"b"', "d"]
    assert rows[-1]["area"] == "'=margin"


def test_where_nothing_is_labelled_there_is_no_share(tmp_path: Path) -> None:
    result = make_result(tmp_path / "a.zarr", np.full((60, 70), NO_DATA, np.uint8))
    assert {entry["share_of_labelled"] for entry in read_json(result)["areas"][0]["classes"]} == {None}
    assert {row["share_of_labelled"] for row in read_csv(result)} == {""}


def with_tissue(root: Path) -> Result:
    """A result whose job skipped the background."""
    result = make_result(root, LABELS, **SLIDE)
    told = {"method": "otsu-chroma", "threshold": 20, "tissue_share": 0.5, "tiles_total": 9, "tiles_selected": 9}
    changed = result.attributes | {"gigamask": result.attributes["gigamask"] | {"selection": told}}
    ngff.write_group(result.mask.root, changed)
    return open_result(root)


def test_where_tissue_was_told_from_glass_shares_are_of_tissue_too(tmp_path: Path) -> None:
    result = with_tissue(tmp_path / "a.zarr")
    tissue = find_tissue(result.image)
    assert tissue.level == 0
    found = read_json(result, ExportOptions(roi=ROI))
    assert found["tissue"] == {
        "method": tissue.method,
        "threshold": tissue.threshold,
        "share": tissue.share,
        "level": 0,
    }
    for area, roi in zip(found["areas"], (None, TRIANGLE, BOX), strict=True):
        mask = tissue.mask & (inside(parse_roi(roi, "pixel"), WHOLE) if roi else True)
        for entry in area["classes"]:
            expected = np.count_nonzero((entry["id"] == LABELS) & mask) / np.count_nonzero(mask)
            assert entry["share_of_tissue"] == pytest.approx(expected)
    assert float(read_csv(result)[0]["share_of_tissue"]) == found["areas"][0]["classes"][0]["share_of_tissue"]


def test_progress_rises_to_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "BLOCK_PX", 256)
    seen: list[float] = []
    measure(make_result(tmp_path / "a.zarr", LABELS), ROI, seen.append)
    assert seen == sorted(seen)
    assert len(set(seen)) > 10
    assert seen[-1] == 1.0


def test_a_region_of_interest_outside_the_image_is_refused(tmp_path: Path) -> None:
    result = make_result(tmp_path / "a.zarr", LABELS)
    with pytest.raises(InvalidOption, match="no pixel of the image"):
        measure(result, parse_roi("5000,5000,10,10"))
