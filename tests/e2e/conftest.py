"""The whole service as a user starts it: `gigamask up` with its own Redis, and the files to send."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from cli.up import free_port
from gigamask.settings import SHIPPED_MODELS
from tests.models_for_tests import context_model, threshold_model

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
PATIENCE_S = 240


@dataclass(frozen=True, slots=True)
class Service:
    url: str
    store: Path
    models: Path
    process: subprocess.Popen[bytes]

    def submit(self, image: Path, model: str, **fields: str) -> dict[str, Any]:
        with image.open("rb") as stream:
            answer = httpx.post(
                f"{self.url}/segment", data={"model": model} | fields, files={"file": (image.name, stream)}, timeout=120
            )
        assert answer.status_code == 202, answer.text
        return dict(httpx.get(self.url + answer.headers["location"]).raise_for_status().json())

    def job(self, job_id: str) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/jobs/{job_id}").raise_for_status().json())

    def wait(self, job_id: str, until: Callable[[dict[str, Any]], bool] | None = None) -> dict[str, Any]:
        """The job at its end, or when `until` first holds."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            job = self.job(job_id)
            if job["state"] in ("succeeded", "failed", "cancelled") or (until and until(job)):
                return job
            assert time.monotonic() < deadline, job
            time.sleep(0.1)

    def segment(self, image: Path, model: str, **fields: str) -> dict[str, Any]:
        job = self.wait(self.submit(image, model, **fields)["id"])
        assert job["state"] == "succeeded", job
        return job

    def mask(self, job: dict[str, Any]) -> Path:
        """The published tree on the service's own disk."""
        return self.store / "jobs" / job["id"] / "mask.zarr"


@contextmanager
def serving(folder: Path, workers: int) -> Iterator[Service]:
    store, models, port = folder / "store", folder / "models", free_port("127.0.0.1")
    environment = os.environ | {"GIGAMASK_MODELS": f"{models}:{SHIPPED_MODELS}", "GIGAMASK_LEASE_S": "5"}
    command = [sys.executable, "-m", "cli.main", "up", "--port", str(port), "--workers", str(workers)]
    process = subprocess.Popen([*command, "--store", str(store)], env=environment, cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        yield Service(url, store, models, process)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(90) == 0, "`gigamask up` did not drain and stop"


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        assert process.poll() is None, "`gigamask up` ended early"
        try:
            if httpx.get(f"{url}/readyz").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError("the service did not become ready in 60 s")


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Three segment workers."""
    folder = tmp_path_factory.mktemp("service")
    threshold_model(folder / "models" / "threshold", tile_px=512, alpha=2)
    context_model(folder / "models" / "context", tile_px=512, alpha=2)
    with serving(folder, workers=3) as running:
        yield running


@pytest.fixture(scope="session")
def slide() -> Path:
    return _sample("slides/CMU-1-Small-Region.svs")


@pytest.fixture(scope="session")
def cog() -> Path:
    return _sample("geotiff/cog.tif")


@pytest.fixture(scope="session")
def mosaic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dubai's tile 1 (2391 x 1931), its nine parts joined, as a pyramidal JPEG BigTIFF."""
    import pyvips

    parts = sorted(_sample("dubai/Tile 1/images").glob("*.jpg"))
    images = [pyvips.Image.new_from_file(str(path)) for path in parts]
    joined = pyvips.Image.arrayjoin(images, across=3)
    width = sum(image.width for image in images[:3])
    height = sum(image.height for image in images[::3])
    path = tmp_path_factory.mktemp("mosaic") / "dubai-1.tif"
    joined.crop(0, 0, min(width, joined.width), min(height, joined.height)).tiffsave(
        str(path), bigtiff=True, pyramid=True, tile=True, tile_width=256, tile_height=256, compression="jpeg", Q=90
    )
    return path


@pytest.fixture(scope="session")
def rings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray[Any, np.dtype[np.uint8]]]:
    """A picture whose threshold mask is known in closed form: rings of red around its middle, odd-sized."""
    import pyvips

    y, x = np.mgrid[:1531, :2077]
    radius = np.hypot(y - 700.25, x - 1100.75)
    labels = ((radius.astype(np.int64) // 37) % 2).astype(np.uint8)
    red = np.where(labels == 1, 200, 60).astype(np.uint8)
    pixels = np.stack([red, 255 - red, np.full_like(red, 90)], axis=-1)
    path = tmp_path_factory.mktemp("rings") / "rings.png"
    pyvips.Image.new_from_array(pixels).pngsave(str(path))
    return path, labels


def _sample(name: str) -> Path:
    if not DATA.is_dir():
        pytest.skip("the sample files are not here (../shared/data)")
    return DATA / name
