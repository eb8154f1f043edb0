"""The page as a browser has it, and what hostile names do to it: nothing."""

from __future__ import annotations

import base64
import re
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from gigamask.exports import figures
from gigamask.exports.catalog import ExportOptions, export
from gigamask.image_info import ImageInfo
from gigamask.pyramid import ngff
from gigamask.roi import parse_roi
from tests.exports.results_for_tests import blobs, make_result

CHROMIUM = shutil.which("chromium")
LABELS = blobs((700, 900), size_px=14)
SLIDE = {"pixel_size": (0.5, 0.5), "unit": "micrometer"}
HOSTILE = ("<script>document.title='run'</script>", '"><img src=x onerror=alert(1)>', "{{ 7 * 7 }}", "a&b")


@pytest.fixture(scope="module")
def browser_page() -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no chromium on this machine")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser.new_page()
        browser.close()


def written(
    folder: Path, names: Any = ("ocean", "land", "lake"), options: ExportOptions | None = None, **info: Any
) -> str:
    make_result(folder / "slide 7.zarr", LABELS, names, **info)
    export(folder / "slide 7.zarr", "report", folder / "report.html", options or ExportOptions())
    return (folder / "report.html").read_text(encoding="utf-8")


def test_it_shows_the_classes_with_their_areas_and_where_the_mask_came_from(tmp_path: Path, browser_page: Page) -> None:
    written(tmp_path, **SLIDE)
    browser_page.goto((tmp_path / "report.html").as_uri())
    assert browser_page.title() == "slide 7 · Gigamask"
    counts = np.bincount(LABELS.ravel(), minlength=256)
    rows = browser_page.locator("tbody tr").all_inner_texts()
    largest = int(counts[:3].argmax())
    share = f"{counts[largest] / counts[:3].sum() * 100:.1f} %"
    assert len(rows) == 3
    assert rows[0].split("\t")[0] == ("ocean", "land", "lake")[largest]
    assert share in rows[0]
    text = browser_page.locator("body").inner_text()
    for told in ("900 × 700 px", "450 × 350 µm", "patches 1.2.0", "Apache-2.0", "ab" * 32, "512 px", "gigamask"):
        assert told in text


def test_beside_a_jobs_record_it_is_called_what_the_upload_was(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text('{"id": "x", "file_name": "<i>biopsy</i>.svs"}')
    assert "<h1>&lt;i&gt;biopsy&lt;/i&gt;.svs</h1>" in written(tmp_path)


def test_hostile_names_are_text_and_nothing_runs(tmp_path: Path, browser_page: Page) -> None:
    roi = parse_roi({"type": "Feature", "properties": {"name": "<script>alert(1)</script>"}, "geometry": _square()})
    asked: list[str] = []
    browser_page.on("request", lambda request: asked.append(request.url))
    written(tmp_path, HOSTILE, ExportOptions(roi=roi))
    browser_page.goto((tmp_path / "report.html").as_uri())
    assert browser_page.title() == "slide 7 · Gigamask"
    shown = [row.split("\t")[0].strip() for row in browser_page.locator("tbody tr").all_inner_texts()]
    assert sorted(shown) == sorted(HOSTILE)
    assert "<script>alert(1)</script>" in browser_page.locator(".region").inner_text()
    assert browser_page.locator("script").count() == 0
    assert all(url.startswith(("data:", "file:")) and not url.endswith("/x") for url in asked)


def _square() -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[[0, 0], [200, 0], [200, 200], [0, 200], [0, 0]]]}


def test_it_asks_for_nothing_outside_itself(tmp_path: Path) -> None:
    text = written(tmp_path)
    assert not re.search(r"(src|href|url\(|@import)\s*=?\s*[\"']?(https?:|//|file:)", text)
    assert "<script" not in text
    assert "default-src 'none'" in text


def test_its_pictures_are_bounded_whatever_the_image(tmp_path: Path) -> None:
    make_result(tmp_path / "a.zarr", blobs((300, 3100)))
    export(tmp_path / "a.zarr", "report", tmp_path / "report.html")
    pictures = re.findall(r"data:image/jpeg;base64,([^\"]+)", (tmp_path / "report.html").read_text())
    sizes = [Image.open(BytesIO(base64.b64decode(text))).size for text in pictures]
    assert sizes == [(775, 75), (775, 75)]


def test_it_fits_a_phone_and_follows_dark_and_light(tmp_path: Path, browser_page: Page) -> None:
    written(tmp_path, ("a class with a rather long name", "b" * 80, "lake"), **SLIDE)
    browser_page.set_viewport_size({"width": 360, "height": 700})
    grounds = []
    for scheme in ("light", "dark"):
        browser_page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        browser_page.goto((tmp_path / "report.html").as_uri())
        assert browser_page.evaluate("document.documentElement.scrollWidth") <= 360
        grounds.append(browser_page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(243, 245, 244)", "rgb(16, 22, 21)"]


def test_what_was_skipped_is_told_with_its_threshold(tmp_path: Path) -> None:
    result = make_result(tmp_path / "a.zarr", LABELS, **SLIDE)
    told = {"method": "otsu-chroma", "threshold": 21.0, "tissue_share": 0.25, "tiles_total": 40, "tiles_selected": 10}
    own = result.attributes["gigamask"] | {"selection": told, "skipped_regions": [0, 3]}
    ngff.write_group(result.mask.root, result.attributes | {"gigamask": own})
    export(tmp_path / "a.zarr", "report", tmp_path / "report.html")
    text = re.sub(r"<[^>]+>", " ", (tmp_path / "report.html").read_text())
    words = " ".join(text.split())
    assert "Tiles run 10 of 40 Tissue told by otsu-chroma, threshold 21 Tissue 25.0 % of the image" in words
    assert "Regions skipped 2" in words
    assert "Of tissue" in words


def test_colours_are_those_that_were_asked_for(tmp_path: Path) -> None:
    text = written(tmp_path, options=ExportOptions(colors={1: "#ff8800"}))
    assert "background: #ff8800" in text
    assert "background: #b9a66b" not in text


def test_notes_of_how_the_file_was_read_are_told(tmp_path: Path) -> None:
    assert "<li>first of 15 planes</li>" in written(tmp_path, notes=("first of 15 planes",))


@pytest.mark.parametrize(
    ("share", "text"), [(None, "–"), (0.0, "0.0 %"), (1e-6, "< 0.1 %"), (0.1234, "12.3 %"), (1.0, "100.0 %")]
)
def test_a_share_in_words(share: float | None, text: str) -> None:
    assert figures.share_text(share) == text


@pytest.mark.parametrize(
    ("unit", "side", "pixels", "text"),
    [
        ("micrometer", 0.5, 1000, "250 µm²"),
        ("micrometer", 0.5, 40_000_000, "10 mm²"),
        ("micrometer", 0.25, 10**11, "6\N{NARROW NO-BREAK SPACE}250 mm²"),
        ("meter", 0.3, 10_000, "900 m²"),
        ("meter", 10.0, 5_000, "50 ha"),
        ("meter", 10.0, 10**7, "1\N{NARROW NO-BREAK SPACE}000 km²"),
        (None, None, 2_500_000, "2.5 MP"),
    ],
)
def test_an_area_in_words(unit: str | None, side: float | None, pixels: int, text: str) -> None:
    size = (side, side) if side else None
    info = ImageInfo.model_validate(
        {"height": 10, "width": 10, "channels": 3, "format": "t", "pixel_size": size, "unit": unit}
    )
    assert figures.area_text(pixels, info) == text


def test_areas_that_are_read_together_have_one_unit() -> None:
    info = ImageInfo(height=9, width=9, channels=3, format="t", pixel_size=(0.5, 0.5), unit="micrometer")
    assert figures.area_text(88_000, info, beside=3_000_000) == "0.022 mm²"


@pytest.mark.parametrize(("width", "text"), [(2220, "200 µm"), (100_000, "10 mm"), (7, "0.5 µm")])
def test_a_scale_bar_is_round_and_at_most_so_wide(width: int, text: str) -> None:
    info = ImageInfo(height=9, width=width, channels=3, format="t", pixel_size=(0.5, 0.5), unit="micrometer")
    bar = figures.scale_bar(info)
    assert bar is not None
    assert 0.09 < bar.share <= 0.28
    assert bar.text == text
