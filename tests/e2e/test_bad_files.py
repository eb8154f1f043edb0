"""Files of every kind over HTTP: each ends soon, in a result or in a problem that says why, and the service goes on."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import zarr

from tests.e2e.conftest import DATA, Service

MALFORMED = sorted(path.name for path in (DATA / "malformed").glob("*"))
SOUND = [path for folder in ("tiff", "geotiff") for path in sorted((DATA / folder).glob("*"))]
PROBLEMS = {"bad_image", "unsupported_image", "image_too_large"}
BOUND_S = 20

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the sample files are not here (../shared/data)")


def require_well(service: Service) -> None:
    for path in ("healthz", "readyz"):
        assert httpx.get(f"{service.url}/{path}", timeout=5).status_code == 200, path


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_ends_soon_and_does_no_harm(service: Service, name: str) -> None:
    started = time.monotonic()
    job = service.wait(service.submit(DATA / "malformed" / name, "threshold")["id"])
    assert time.monotonic() - started < BOUND_S
    if name == "looks-like-svg.webp":  # a sound file
        assert job["state"] == "succeeded", job
    else:
        assert job["state"] == "failed"
        assert job["error"]["code"] in PROBLEMS, job["error"]
        assert "died" not in job["error"]["detail"]
        assert not (service.store / "images" / job["image_id"]).exists(), "something is left behind"
    require_well(service)


def test_every_odd_tiff_and_geotiff_succeeds_and_none_comes_out_black(service: Service) -> None:
    """None of them is black itself."""
    jobs = {path: service.submit(path, "threshold") for path in SOUND}
    for path, job in jobs.items():
        done = service.wait(job["id"])
        assert done["state"] == "succeeded", (path.name, done)
        assert smallest_level(service.mask(done))[:3].any(), path.name
    require_well(service)


def smallest_level(root: Path) -> np.ndarray:
    """(channels, h, w) of the image's pyramid."""
    group = zarr.open_group(root, mode="r")
    return np.asarray(group[max((name for name in group.array_keys()), key=int)])
