"""A real service, a real browser, real pictures: `gigamask up` and Debian's Chromium, once for all of the page."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request, sync_playwright

from tests import slow_and_broken_models
from tests.e2e.conftest import DATA, ROOT, Service, serving
from tests.models_for_tests import THRESHOLD, offset_model, threshold_model
from tests.slow_and_broken_models import broken_model, slow_model

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SCREENSHOTS = ROOT / "build" / "screenshots"
PATIENCE_MS = 20_000
DARK, BRIGHT = (0, 0, 0), (0, 0x9E, 0x37)  # of the threshold model's classes
HOSTILE = "tile 2 <img src=x onerror=alert(1)>.tif"
NO_DATA_FROM = 1024  # the mosaic has no valid pixel below and right of here

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.skip("no Chromium is installed here (Debian's package `chromium`)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    folder = tmp_path_factory.mktemp("page")
    threshold_model(folder / "models" / "threshold", tile_px=256)
    with pytest.MonkeyPatch.context() as patch:  # so slow that some regions are seen before others are done
        patch.setattr(slow_and_broken_models, "CHANNELS", 512)
        slow_model(folder / "models" / "slow", tile_px=128)
    offset_model(folder / "models" / "offset", tile_px=256)
    broken_model(folder / "models" / "broken", tile_px=256)
    (folder / "models" / "torn").mkdir()
    (folder / "models" / "torn" / "model.json").write_text('{"format": 1, "name": ')
    with serving(folder, workers=1) as running:
        yield running


# -- pictures and their jobs


@dataclass(frozen=True, slots=True)
class Picture:
    """pixels: (h, w, 4) RGBA; its mask by the threshold model is known in closed form."""

    path: Path
    pixels: Pixels

    @property
    def labels(self) -> Pixels:
        """(h, w): 0 dark, 1 bright, 255 no data."""
        bright = (self.pixels[..., 0] > THRESHOLD).astype(np.uint8)
        return np.where(self.pixels[..., 3] == 0, np.uint8(255), bright)

    def plain_spot(self, label: int, radius: int = 12) -> tuple[int, int]:
        """(x, y) amid `label` alone, found in a known order."""
        fits = self.labels == label
        for y in range(radius, fits.shape[0] - radius, 7):
            for x in range(radius, fits.shape[1] - radius, 7):
                if fits[y - radius : y + radius + 1, x - radius : x + radius + 1].all():
                    return x, y
        raise AssertionError(f"no spot of label {label}")


@pytest.fixture(scope="package")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Picture:
    """Dubai's tile 2 (1528 x 1632), its nine parts joined, without data in one corner; under a name that bites."""
    import tifffile
    from PIL import Image

    parts = [np.asarray(Image.open(path).convert("RGB")) for path in sorted(_sample("dubai/Tile 2/images").glob("*"))]
    rows = [np.concatenate([part[: _least(parts[i : i + 3])] for part in parts[i : i + 3]], 1) for i in (0, 3, 6)]
    joined = np.concatenate([row[:, : min(r.shape[1] for r in rows)] for row in rows])
    valid = np.full((*joined.shape[:2], 1), 255, np.uint8)
    valid[NO_DATA_FROM:, NO_DATA_FROM:] = 0
    path = tmp_path_factory.mktemp("mosaic") / HOSTILE
    pixels = np.concatenate([joined, valid], 2)
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", extrasamples=["unassalpha"])
    return Picture(path, pixels)


@pytest.fixture(scope="package")
def slide() -> Path:
    return _sample("slides/CMU-1-Small-Region.svs")


@pytest.fixture(scope="package")
def broken_job(service: Service, mosaic: Picture) -> str:
    """The id of a job that will have failed after its last attempt."""
    return str(service.submit(mosaic.path, "broken")["id"])


@pytest.fixture(scope="package")
def job(service: Service, mosaic: Picture, broken_job: str) -> dict[str, Any]:
    """The mosaic by the threshold model. broken_job is begun before, since its attempts take a while."""
    return service.segment(mosaic.path, "threshold", region_px="512")


@pytest.fixture(scope="package")
def second_job(service: Service, job: dict[str, Any]) -> dict[str, Any]:
    """The same image by another model."""
    request = {"image": job["image_id"], "model": "offset"}
    return service.wait(httpx.post(f"{service.url}/segment", json=request).raise_for_status().json()["id"])


def _least(parts: list[Pixels]) -> int:
    return min(part.shape[0] for part in parts)


def _sample(name: str) -> Path:
    if not DATA.is_dir():
        pytest.skip("the sample files are not here (../shared/data)")
    return DATA / name


# -- a page, and what it must not do


@dataclass  # no slots: playwright marks the owners of its listeners
class Watch:
    """What a page complained of, and whom it asked. expected: complaints that a test provokes."""

    service: Service
    # the tests' own looking; and OpenSeadragon's word that a tile came after its class was hidden
    expected: list[str] = field(default_factory=lambda: ["willReadFrequently", "Ignoring tile .* before reset"])
    complaints: list[str] = field(default_factory=list)
    strangers: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def listen(self, page: Page) -> None:
        page.on("console", self._hear)
        page.on("pageerror", lambda error: self.complaints.append(f"uncaught: {error}"))
        page.on("request", self._see)
        page.on("dialog", lambda dialog: dialog.accept() if dialog.type == "beforeunload" else self._alarm(dialog))

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text} {message.location.get('url', '')}")

    def _see(self, request: Request) -> None:
        self.requests.append(request)
        if not request.url.startswith((self.service.url, "blob:", "data:")):
            self.strangers.append(request.url)

    def _alarm(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def check(self) -> None:
        unexpected = [c for c in self.complaints if not any(re.search(e, c) for e in self.expected)]
        assert not unexpected
        assert not self.strangers


@pytest.fixture
def open_context(browser: Browser, service: Service) -> Iterator[Callable[..., BrowserContext]]:
    opened: list[BrowserContext] = []

    def open_one(**options: Any) -> BrowserContext:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        context.set_default_timeout(PATIENCE_MS)
        opened.append(context)
        return context

    yield open_one
    for context in opened:
        context.close()


@pytest.fixture
def watch(service: Service) -> Watch:
    return Watch(service)


@pytest.fixture
def page(open_context: Callable[..., BrowserContext], watch: Watch, service: Service) -> Iterator[Page]:
    """The page, opened at its start. No complaint in the console and no other host, or the test fails."""
    page = open_context().new_page()
    watch.listen(page)
    page.goto(service.url)
    yield page
    watch.check()


# -- what tests do with it


def open_job(page: Page, service: Service, job: dict[str, Any], **view: str | float) -> None:
    """By its link, and wait until the picture is there."""
    page.goto("about:blank")
    page.goto(f"{service.url}/#job={job['id']}" + "".join(f"&{name}={value}" for name, value in view.items()))
    page.locator(".scale-bar").first.wait_for(state="visible")
    page.wait_for_load_state("networkidle") if job["state"] == "succeeded" else None


def until(true: Callable[[], Any], what: str, patience_s: float = PATIENCE_MS / 1000) -> Any:
    deadline = time.monotonic() + patience_s
    while not (found := true()):
        assert time.monotonic() < deadline, what
        time.sleep(0.05)
    return found


def address(page: Page) -> str:
    """The page's own word: `page.url` learns of it only while playwright listens."""
    return str(page.evaluate("location.href"))


CENTRE = """pane => {
  const canvas = document.querySelectorAll('.pane .openseadragon-canvas > canvas')[pane];
  const { width, height } = canvas;
  return [...canvas.getContext('2d').getImageData(width >> 1, height >> 1, 1, 1).data].slice(0, 3);
}"""
SUM = """pane => {
  const canvas = document.querySelectorAll('.pane .openseadragon-canvas > canvas')[pane];
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 0;
  for (let i = 0; i < pixels.length; i += 4) sum = (sum * 31 + pixels[i] * 65536 + pixels[i + 1] * 256 + pixels[i + 2]) % 2147483647;
  return sum;
}"""  # noqa: E501


BRIGHT_COUNT = """() => {
  const canvas = document.querySelector('.pane .openseadragon-canvas > canvas');
  const pixels = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data;
  let count = 0;
  for (let i = 0; i < pixels.length; i += 4) count += pixels[i] === 0 && pixels[i + 1] === 158 && pixels[i + 2] === 55;
  return count;
}"""


def bright_count(page: Page) -> int:
    """Pixels of the first pane in the very colour of `bright`; at full opacity none of the image's own has it."""
    return int(page.evaluate(BRIGHT_COUNT))


def centre_color(page: Page, pane: int = 0) -> tuple[int, int, int]:
    red, green, blue = page.evaluate(CENTRE, pane)
    return red, green, blue


def fingerprint(page: Page, pane: int = 0) -> int:
    """Of every pixel of a pane."""
    return int(page.evaluate(SUM, pane))


def near(color: tuple[int, int, int], wanted: tuple[int, int, int], within: int = 2) -> bool:
    return all(abs(a - b) <= within for a, b in zip(color, wanted, strict=True))


def set_opacity(page: Page, percent: int) -> None:
    page.get_by_label("Mask opacity").fill(str(percent))


def shoot(page: Page, name: str, full_page: bool = False) -> None:
    """Kept for whoever wants to look (`build/screenshots`)."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=full_page)
