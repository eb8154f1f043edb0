"""From a file to a mask: uploads that survive, the queue as it moves, regions that appear as they finish."""

from __future__ import annotations

import re
import signal
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import Locator, Page, expect

from tests.e2e.conftest import Service
from tests.page.conftest import HOSTILE, Picture, Watch, bright_count, fingerprint, set_opacity, shoot, until

Job = dict[str, Any]
SLOW_BYTES_PER_S = 600 * 1024


def throttle(page: Page, upload_bytes_per_s: int = SLOW_BYTES_PER_S) -> None:
    page.context.new_cdp_session(page).send(
        "Network.emulateNetworkConditions",
        {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": upload_bytes_per_s},
    )


def begin(page: Page, path: Path, model: str) -> None:
    page.get_by_label("Drop an image").set_input_files(path)
    page.get_by_role("radio", name=model).check()
    page.get_by_role("button", name="Upload and segment").click()


def settled(page: Page) -> int:
    """The bright pixels shown, once they stay the same for a second."""
    counts = [bright_count(page)]
    while len(counts) < 3 or len({*counts[-3:]}) > 1:
        page.wait_for_timeout(500)
        counts.append(bright_count(page))
    return counts[-1]


def row(page: Page, name: str) -> Locator:
    return page.locator("#jobs .job", has_text=name).first


def sent_share(page: Page) -> float:
    bar = page.locator("#uploads [role=progressbar]")
    return float(bar.get_attribute("aria-valuenow") or 0) if bar.count() else 100.0


def jobs_of(service: Service, name: str) -> list[Job]:
    return [job for job in httpx.get(f"{service.url}/jobs").json()["jobs"] if job["file_name"] == name]


def test_a_slide_from_its_file_to_its_overlay(page: Page, slide: Path) -> None:
    begin(page, slide, "dubai-landcover")
    queued = row(page, slide.name)
    expect(queued.get_by_role("progressbar")).to_be_visible()
    expect(queued.locator(".chip")).to_have_text("Done", timeout=90_000)
    queued.get_by_role("link", name=slide.name).click()
    expect(page.get_by_role("heading", name=slide.name)).to_be_visible()
    expect(page.locator(".scale-text")).to_have_text(re.compile("µm|mm"))
    expect(page.locator(".legend")).to_contain_text("mm²")
    page.wait_for_load_state("networkidle")
    set_opacity(page, 0)
    page.wait_for_timeout(300)
    bare = fingerprint(page)
    set_opacity(page, 100)
    until(lambda: fingerprint(page) != bare, "the overlay is not to be seen")
    set_opacity(page, 60)
    shoot(page, "slide")


def test_regions_appear_as_they_finish_and_the_stream_tells_of_them(
    page: Page, service: Service, mosaic: Picture, watch: Watch
) -> None:
    begin(page, mosaic.path, "slow")
    expect(page.locator("#jobs")).to_contain_text(HOSTILE)
    assert page.locator("#jobs img[onerror]").count() == 0
    row(page, HOSTILE).get_by_role("link", name=HOSTILE).click()
    page.locator(".scale-bar").wait_for(state="visible")
    set_opacity(page, 100)
    shown, chip = [bright_count(page)], page.locator(".result .chip")
    while chip.inner_text() in ("Queued", "Running"):
        shown.append(bright_count(page))
        page.wait_for_timeout(150)
    assert len({*shown} - {0}) >= 2, f"nothing appeared while the job ran: {shown}"
    assert shown == sorted(shown), f"what had appeared went away: {shown}"
    expect(page.get_by_role("region", name="Downloads")).to_be_visible()
    seen = settled(page)
    assert seen >= shown[-1]
    polled = [r for r in watch.requests if re.search(r"/jobs/\w{32}$", r.url)]
    assert len(polled) <= 4, "the stream was not enough"
    page.reload()
    page.locator(".scale-bar").wait_for(state="visible")
    set_opacity(page, 100)
    near = 0.005 * seen  # a link rounds the view
    until(lambda: abs(bright_count(page) - seen) <= near, f"a fresh look shows other than {seen}")


def test_without_streams_the_queue_moves_by_asking(page: Page, service: Service, mosaic: Picture, watch: Watch) -> None:
    watch.expected.append("ERR_FAILED")
    page.route("**/events", lambda route: route.abort())
    page.reload()
    expect(page.locator("#feed-state")).to_have_text("Polling")
    job = service.submit(mosaic.path, "threshold")
    card = page.locator(".job", has=page.locator(f"a[href='#job={job['id']}']"))
    expect(card.locator(".chip")).to_have_text("Done", timeout=30_000)


def test_a_job_is_cancelled_from_its_row(page: Page, service: Service, mosaic: Picture) -> None:
    service.submit(mosaic.path, "slow")
    job = service.submit(mosaic.path, "slow")
    card = page.locator(".job", has=page.locator(f"a[href='#job={job['id']}']"))
    card.get_by_role("button", name="Cancel").click()
    expect(card.locator(".chip")).to_have_text("Cancelled")
    assert service.job(job["id"])["state"] == "cancelled"


def test_an_upload_goes_on_after_a_reload_when_the_file_is_chosen_again(
    page: Page, service: Service, slide: Path, watch: Watch
) -> None:
    throttle(page)
    begin(page, slide, "threshold")
    until(lambda: sent_share(page) >= 30, "the upload does not begin")
    before = len(jobs_of(service, slide.name))
    page.reload()
    throttle(page, -1)
    unfinished = page.locator(".upload", has_text="was interrupted")
    expect(unfinished).to_contain_text(slide.name)
    begin(page, slide, "threshold")
    expect(unfinished).to_have_count(0)
    until(lambda: len(jobs_of(service, slide.name)) > before, "no job came of the upload")
    page.wait_for_timeout(200)  # requests are heard of only while playwright listens
    offsets = [int(r.headers["upload-offset"]) for r in watch.requests if r.method == "PATCH"]
    assert offsets[0] == 0 and offsets[-1] > 0.2 * slide.stat().st_size, offsets
    size = (service.store / "images" / jobs_of(service, slide.name)[0]["image_id"]).rglob(slide.name)
    assert [path.read_bytes() for path in size] == [slide.read_bytes()]


def test_upload_and_stream_go_on_by_themselves_when_the_service_was_killed(
    page: Page, service: Service, slide: Path, job: Job, watch: Watch
) -> None:
    watch.expected += ["ERR_", "Failed to load", "503"]
    throttle(page)
    before = len(jobs_of(service, slide.name))
    begin(page, slide, "threshold")
    until(
        lambda: sent_share(page) >= 75, "the upload does not begin"
    )  # more than one block, which is what a kill costs
    server = next(c for c in psutil.Process(service.process.pid).children() if "serve" in c.cmdline())
    server.send_signal(signal.SIGKILL)
    expect(page.locator("#uploads")).to_contain_text("The connection was lost")
    throttle(page, -1)
    until(lambda: page.locator("#uploads .upload").count() == 0, "the upload did not go on", 60)
    assert len(jobs_of(service, slide.name)) == before + 1
    expect(page.locator("#feed-state")).to_have_text("Live")
    streams = [r.all_headers() for r in watch.requests if r.url.endswith("/events")]
    assert "last-event-id" in streams[-1], "the stream was not taken up where it was"
    offsets = [int(r.headers["upload-offset"]) for r in watch.requests if r.method == "PATCH"]
    assert offsets[-1] > 0, offsets


def test_an_upload_is_paused_and_resumed(page: Page, service: Service, slide: Path) -> None:
    throttle(page)
    before = len(jobs_of(service, slide.name))
    begin(page, slide, "threshold")
    until(lambda: sent_share(page) >= 20, "the upload does not begin")
    page.get_by_role("button", name=f"Pause the upload of {slide.name}").click()
    expect(page.locator("#uploads")).to_contain_text("Paused at")
    held = sent_share(page)
    page.wait_for_timeout(500)
    assert sent_share(page) == held
    throttle(page, -1)
    page.get_by_role("button", name=f"Resume the upload of {slide.name}").click()
    until(lambda: len(jobs_of(service, slide.name)) > before, "no job came of the upload")


def test_what_is_refused_is_told_where_it_was_asked(page: Page, service: Service, job: Job, watch: Watch) -> None:
    page.get_by_role("button", name="Segment", exact=True).click()
    expect(page.locator("#submission-problem")).to_contain_text("Choose an image first")
    watch.expected.append("422|404")
    page.get_by_label("or one that is already here").select_option(job["image_id"])
    page.get_by_text("Options").click()
    page.get_by_label("Pixel size", exact=True).fill("7")
    page.get_by_role("button", name="Segment", exact=True).click()
    expect(page.locator("#submission-problem code")).to_have_text("invalid_option")


def test_a_service_that_does_not_answer_is_told_and_found_again(page: Page, watch: Watch) -> None:
    watch.expected.append("ERR_FAILED|ERR_INTERNET")
    for path in ("**/jobs", "**/models", "**/events"):
        page.route(path, lambda route: route.abort())
    page.reload()
    expect(page.locator("#queue-problem")).to_contain_text("The service does not answer")
    expect(page.locator("#models")).to_contain_text("unreachable")
    expect(page.locator("#feed-state")).to_have_text("No connection")
    page.unroute_all()
    expect(page.locator("#models")).to_contain_text("threshold")
    expect(page.locator("#queue-problem")).to_be_empty()


def test_files_are_dropped_on_the_page(page: Page) -> None:
    files = page.evaluate_handle("""() => {
      const data = new DataTransfer();
      for (const name of ['one.tif', 'two.tif']) data.items.add(new File(['1234'], name));
      return data;
    }""")
    page.dispatch_event("body", "drop", {"dataTransfer": files})
    expect(page.locator("#drop")).to_contain_text("2 files")
    expect(page.get_by_role("button", name="Upload and segment")).to_be_visible()


def test_models_are_shown_with_their_classes_and_broken_ones_with_the_reason(page: Page, service: Service) -> None:
    models = page.locator("#models")
    expect(models.locator(".model", has_text="dubai-landcover")).to_contain_text("vegetation")
    expect(models.locator(".model", has_text="threshold")).to_contain_text("256 px")
    broken = httpx.get(f"{service.url}/models").json()["broken"][0]
    expect(models.locator(".broken")).to_contain_text(broken["detail"][:80])


@pytest.fixture
def drawn(page: Page, job: Job) -> Page:
    """The page with a box of about a third of the image's sides in the field of the region of interest."""
    page.get_by_label("or one that is already here").select_option(job["image_id"])
    page.get_by_text("Options").click()
    page.get_by_role("button", name="Draw a box on the image").click()
    stage = page.locator("#drawing-stage")
    page.wait_for_load_state("networkidle")
    frame = stage.bounding_box()
    assert frame
    x, y = frame["x"] + frame["width"] / 2, frame["y"] + frame["height"] / 2
    page.mouse.move(x - 60, y - 60)
    page.mouse.down()
    page.mouse.move(x + 20, y + 10, steps=4)
    page.mouse.up()
    return page


def use_box(page: Page) -> list[int]:
    """(x, y, width, height) of the box that was drawn."""
    page.get_by_role("button", name="Use this box").click()
    expect(page.locator("#roi")).to_have_value(re.compile(r"^\d+(,\d+){3}$"))
    return [int(n) for n in page.locator("#roi").input_value().split(",")]


def test_a_region_of_interest_is_drawn_on_an_image_that_is_here(drawn: Page, job: Job, mosaic: Picture) -> None:
    shoot(drawn, "drawing")
    x, y, width, height = use_box(drawn)
    assert 0 <= x < x + width <= mosaic.pixels.shape[1] and 0 <= y < y + height <= mosaic.pixels.shape[0]
    assert width / height == pytest.approx(80 / 70, rel=0.05)


def test_only_the_drawn_region_is_segmented(drawn: Page, service: Service, job: Job) -> None:
    _x, _y, width, height = use_box(drawn)
    drawn.get_by_role("radio", name="threshold").check()
    drawn.get_by_role("button", name="Segment", exact=True).click()
    expect(drawn.locator("#submission-problem")).to_be_empty()
    asked = httpx.get(f"{service.url}/jobs?limit=1").json()["jobs"][0]
    done = service.wait(asked["id"])
    assert done["state"] == "succeeded", done
    assert 0 < sum(entry["px"] for entry in done["areas"]) <= width * height
