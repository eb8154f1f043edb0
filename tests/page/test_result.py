"""A result, opened: what is seen is what the mask says, and the link brings it back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import BrowserContext, Page, expect

from tests.e2e.conftest import Service
from tests.page.conftest import (
    BRIGHT,
    DARK,
    NO_DATA_FROM,
    Picture,
    Watch,
    address,
    centre_color,
    fingerprint,
    near,
    open_job,
    set_opacity,
    shoot,
    until,
)

Job = dict[str, Any]


def at_spot(mosaic: Picture, label: int) -> dict[str, float]:
    x, y = mosaic.plain_spot(label)
    return {"x": x + 0.5, "y": y + 0.5, "z": 4}


def test_the_mask_lies_on_the_image_pixel_by_pixel(page: Page, service: Service, job: Job, mosaic: Picture) -> None:
    for label, color in ((0, DARK), (1, BRIGHT)):
        spot = at_spot(mosaic, label)
        open_job(page, service, job, **spot, o=1)
        until(lambda color=color: near(centre_color(page), color), f"label {label} is not {color} there")
        set_opacity(page, 0)
        here = mosaic.pixels[int(spot["y"]), int(spot["x"]), :3]
        image = (int(here[0]), int(here[1]), int(here[2]))
        until(lambda image=image: near(centre_color(page), image, 16), f"the image is not {image} there")


def test_opacity_blends_mask_and_image(page: Page, service: Service, job: Job, mosaic: Picture) -> None:
    open_job(page, service, job, **at_spot(mosaic, 1), o=0)
    image = until(lambda: centre_color(page), "no picture")
    set_opacity(page, 50)
    half = tuple(round((a + b) / 2) for a, b in zip(image, BRIGHT, strict=True))
    until(lambda: near(centre_color(page), half, 3), f"not {half} at 50 %")  # type: ignore[arg-type]


def test_a_class_is_hidden_and_recoloured_by_its_legend(
    page: Page, service: Service, job: Job, mosaic: Picture
) -> None:
    open_job(page, service, job, **at_spot(mosaic, 1), o=1)
    until(lambda: near(centre_color(page), BRIGHT), "not the model's colour")
    page.get_by_label("Colour of bright").fill("#ff8800")
    until(lambda: near(centre_color(page), (255, 136, 0)), "not the colour that was picked")
    expect(page.get_by_role("region", name="Downloads")).to_contain_text("in your colours")
    page.get_by_role("checkbox", name="bright").uncheck()
    until(lambda: not near(centre_color(page), (255, 136, 0), 40), "the class is still shown")
    expect(page).to_have_url(re.compile(r"hide=1&colors=1:ff8800"))
    page.get_by_role("button", name="Reset").click()
    until(lambda: near(centre_color(page), BRIGHT), "not the model's colour again")


def test_the_legend_counts_the_pixels_of_each_class(page: Page, service: Service, job: Job, mosaic: Picture) -> None:
    open_job(page, service, job)
    counts = {name: int(np.count_nonzero(mosaic.labels == label)) for label, name in ((0, "dark"), (1, "bright"))}
    for name, count in counts.items():
        row = page.locator(".legend li", has=page.get_by_role("checkbox", name=name))
        expect(row).to_contain_text(f"{count:,} px")
        expect(page.locator(".legend")).to_contain_text(f"No data: {np.count_nonzero(mosaic.labels == 255):,} px")
        expect(row).to_contain_text(f"{100 * count / sum(counts.values()):.1f}%")


def test_the_class_under_the_cursor_is_told(page: Page, service: Service, job: Job, mosaic: Picture) -> None:
    x, y = mosaic.plain_spot(1)
    open_job(page, service, job, x=x + 0.5, y=y + 0.5, z=4)
    stage = page.locator(".pane-stage").bounding_box()
    assert stage
    page.mouse.move(stage["x"] + stage["width"] / 2, stage["y"] + stage["height"] / 2)
    expect(page.locator("#probe")).to_contain_text("bright")
    told = [int(n.replace(",", "")) for n in re.findall(r"[xy] ([\d,]+)", page.locator("#probe").inner_text())]
    assert abs(told[0] - x) <= 1 and abs(told[1] - y) <= 1


def test_a_link_brings_the_view_back(
    page: Page, service: Service, job: Job, open_context: Callable[..., BrowserContext]
) -> None:
    open_job(page, service, job, x=700, y=400, z=1.5, o=0.4, hide=0)
    page.get_by_role("application").press("ArrowRight")
    page.get_by_role("application").press("+")
    until(lambda: "x=700&" not in address(page) and "z=2.25" in address(page), "the link does not follow the view")
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(400)
    shown, link = fingerprint(page), address(page)
    other = open_context().new_page()
    other.goto(link)
    other.locator(".scale-bar").wait_for()
    until(lambda: fingerprint(other) == shown, "another browser shows another view at the same link")
    expect(other.get_by_label("Mask opacity")).to_have_value("40")
    expect(other.get_by_role("checkbox", name="dark")).not_to_be_checked()


def test_a_skipped_region_is_listed_with_its_reason_and_leads_there(page: Page, service: Service, job: Job) -> None:
    open_job(page, service, job)
    regions = page.get_by_role("region", name="Regions")
    expect(regions).to_contain_text("2 skipped")
    regions.get_by_role("button").first.click()
    expect(page.locator(".box-mark")).to_be_visible()

    def centre() -> list[float]:
        return [float(n) for n in re.findall(r"[xy]=([\d.]+)", address(page))]

    until(lambda: len(centre()) == 2 and min(centre()) > NO_DATA_FROM, "the view did not go to the region")


def test_two_results_move_together(page: Page, service: Service, job: Job, second_job: Job) -> None:
    open_job(page, service, job, x=500, y=500, z=1, o=0)
    page.get_by_label("Compare with").select_option(second_job["id"])
    expect(page.locator(".pane")).to_have_count(2)
    same = lambda: fingerprint(page, 0) == fingerprint(page, 1)  # noqa: E731
    until(same, "the panes show different places")
    for pane, keys in ((0, ("ArrowRight", "ArrowDown", "+")), (1, ("ArrowLeft", "-"))):
        before = fingerprint(page, 0)
        for key in keys:
            page.get_by_role("application").nth(pane).press(key)
        until(lambda before=before: fingerprint(page, 0) != before, "the first pane did not move")
        page.wait_for_load_state("networkidle")
        until(same, f"pane {1 - pane} did not follow pane {pane}")
    expect(page).to_have_url(re.compile(f"with={second_job['id']}"))
    set_opacity(page, 70)
    shoot(page, "compare")
    page.get_by_label("Compare with").select_option("")
    expect(page.locator(".pane")).to_have_count(1)


def test_a_file_is_made_when_asked_for_and_then_fetched(page: Page, service: Service, job: Job, tmp_path: Path) -> None:
    open_job(page, service, job)
    files = page.get_by_role("region", name="Downloads")
    with page.expect_download(timeout=60_000) as fetched:
        files.get_by_role("button", name="Prepare statistics.json", exact=True).click()
    fetched.value.save_as(tmp_path / "statistics.json")
    assert "bright" in str(json.loads((tmp_path / "statistics.json").read_text()))
    expect(files.get_by_role("link", name=re.compile(r"Download statistics.json,"))).to_be_visible()


def test_a_failed_job_says_why_in_the_services_words(page: Page, service: Service, broken_job: str) -> None:
    job = service.wait(broken_job)
    assert job["state"] == "failed"
    page.goto(f"{service.url}/#job={job['id']}")
    alert = page.locator(".result > [role=alert]")
    expect(alert).to_contain_text(job["error"]["detail"][:60])
    expect(alert).to_contain_text(job["error"]["code"])
    expect(page.get_by_role("region", name="Regions").get_by_role("button").first).to_contain_text("Failed")


def test_a_job_that_is_not_there_is_told(page: Page, service: Service, watch: Watch) -> None:
    watch.expected.append("404")
    page.goto(f"{service.url}/#job={'0' * 32}")
    expect(page.get_by_role("alert").filter(has_text="unknown_job")).to_be_visible()
    page.get_by_role("link", name="Back to the jobs").click()
    expect(page.get_by_role("heading", name="New segmentation")).to_be_visible()
