"""The main job through the whole house: HTTP or command line in, a published mask pyramid out."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import zarr

from gigamask.manifest import read_manifest
from gigamask.settings import SHIPPED_MODELS
from tests.e2e.conftest import ROOT, Service
from tests.pictures import tree

Rings = tuple[Path, "np.ndarray[Any, np.dtype[np.uint8]]"]


def labels_over_http(service: Service, job: dict[str, Any]) -> np.ndarray[Any, Any]:
    group = zarr.open_group(f"{service.url}/jobs/{job['id']}/mask.zarr", mode="r")
    return np.asarray(group[f"labels/{job['model']}/0"])


def segment_on_the_command_line(service: Service, image: Path, model: str, out: Path, *more: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "cli.main", "segment", str(image), "--model", model, "--out", str(out), "--json"]
    environment = os.environ | {"GIGAMASK_MODELS": f"{service.models}:{SHIPPED_MODELS}"}
    done = subprocess.run([*command, *more], env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout.splitlines()[-1]))


def chunks(root: Path) -> dict[str, bytes]:
    """The labels' shards, without metadata (which says when and by which options)."""
    return {name: content for name, content in tree(root / "labels").items() if "/c/" in name}


def test_a_threshold_model_gives_the_closed_form_mask_through_the_whole_service(service: Service, rings: Rings) -> None:
    image, expected = rings
    job = service.segment(image, "threshold")
    assert np.array_equal(labels_over_http(service, job), expected)
    areas = {area["name"]: area["px"] for area in job["areas"]}
    assert areas == {"dark": int((expected == 0).sum()), "bright": int((expected == 1).sum())}


@pytest.mark.parametrize("model", ["context", "earth-water"])
def test_http_with_three_workers_and_the_command_line_give_the_same_bytes(
    service: Service, rings: Rings, tmp_path: Path, model: str
) -> None:
    image, _ = rings
    job = service.segment(image, model, region_px="512")
    told = segment_on_the_command_line(service, image, model, tmp_path / "out.zarr", "--region-px", "512")
    assert chunks(tmp_path / "out.zarr") == chunks(service.mask(job))
    assert told["areas_px"] == {area["name"]: area["px"] for area in job["areas"]}
    assert (told["width"], told["height"], told["megapixels"]) == (2077, 1531, 3.18)


@pytest.mark.parametrize("model", ["context", "earth-water"])
def test_labels_do_not_depend_on_region_side_or_batch(
    service: Service, rings: Rings, tmp_path: Path, model: str
) -> None:
    image, _ = rings
    labels = []
    for side, batch in ((512, 1), (1024, 4), (2048, 4)):
        out = tmp_path / f"{side}.zarr"
        segment_on_the_command_line(service, image, model, out, "--region-px", str(side), "--batch", str(batch))
        labels.append(np.asarray(zarr.open_group(out, mode="r")[f"labels/{model}/0"]))
    assert np.array_equal(labels[0], labels[1])
    assert np.array_equal(labels[0], labels[2])


def test_a_real_slide_keeps_its_scale_and_gives_areas_in_um2(service: Service, slide: Path) -> None:
    job = service.segment(slide, "earth-water")
    assert (job["image"]["width"], job["image"]["height"]) == (2220, 2967)
    assert job["image"]["pixel_size"] == pytest.approx([0.499, 0.499])
    assert {area["unit"] for area in job["areas"]} == {"um^2"}
    assert sum(area["area"] for area in job["areas"]) == pytest.approx(2220 * 2967 * 0.499**2)
    group = zarr.open_group(f"{service.url}/jobs/{job['id']}/mask.zarr", mode="r")
    scale = group.attrs["ome"]["multiscales"][0]["datasets"][0]["coordinateTransformations"][0]["scale"]
    assert scale[-2:] == pytest.approx([0.499, 0.499])
    assert np.asarray(group["0"]).std() > 10, "the slide's image is not black"


def test_a_mosaic_written_as_a_pyramidal_jpeg_bigtiff_goes_through(service: Service, mosaic: Path) -> None:
    import tifffile

    job = service.segment(mosaic, "threshold")
    with tifffile.TiffFile(mosaic) as file:
        assert file.is_bigtiff
        expected = file.pages[0].asarray()
    image = np.asarray(zarr.open_group(f"{service.url}/jobs/{job['id']}/mask.zarr", mode="r")["0"])
    assert image.shape[1:] == expected.shape[:2]
    assert np.abs(image.transpose(1, 2, 0).astype(int) - expected).max() <= 3
    agree = (labels_over_http(service, job) == (image[0] > 127)).mean()
    assert agree == 1.0


def test_the_same_picture_tiled_and_stripped_gives_the_same_mask(service: Service, cog: Path) -> None:
    tiled, stripped = (service.segment(cog.with_name(name), "context") for name in ("cog.tif", "nocog.tif"))
    assert chunks(service.mask(tiled)) == chunks(service.mask(stripped))


def test_the_second_model_needs_no_second_upload(service: Service, rings: Rings) -> None:
    image, _ = rings
    first = service.segment(image, "threshold")
    answer = httpx.post(f"{service.url}/segment", json={"image": first["image_id"], "model": "context"})
    assert answer.status_code == 202
    second = service.wait(answer.json()["id"])
    assert second["state"] == "succeeded"
    assert not (service.mask(first) / "labels" / "context").exists()


def test_the_one_file_download_opens_as_the_same_pyramid(service: Service, rings: Rings, tmp_path: Path) -> None:
    image, expected = rings
    job = service.segment(image, "threshold")
    body = httpx.get(f"{service.url}/jobs/{job['id']}/mask.ozx").raise_for_status().content
    (tmp_path / "mask.zip").write_bytes(body)
    assert zipfile.ZipFile(io.BytesIO(body)).testzip() is None
    with zarr.storage.ZipStore(tmp_path / "mask.zip", mode="r") as store:
        assert np.array_equal(np.asarray(zarr.open_group(store, mode="r")["labels/threshold/0"]), expected)


def test_the_published_result_is_valid_ngff(service: Service, rings: Rings) -> None:
    from ome_zarr_models.v05 import Image, ImageLabel

    job = service.segment(rings[0], "threshold")
    Image.from_zarr(zarr.open_group(service.mask(job), mode="r"))
    ImageLabel.from_zarr(zarr.open_group(service.mask(job) / "labels" / "threshold", mode="r"))


def test_a_file_that_is_no_image_fails_with_its_reason_and_the_service_goes_on(
    service: Service, rings: Rings, tmp_path: Path
) -> None:
    broken = tmp_path / "slide.svs"
    broken.write_bytes(b"II*\0" + os.urandom(5000))
    job = service.wait(service.submit(broken, "threshold")["id"])
    assert job["state"] == "failed"
    assert job["error"]["code"] in ("bad_image", "unsupported_image")
    assert service.segment(rings[0], "threshold")["state"] == "succeeded"


def test_a_cancelled_job_ends_as_cancelled_and_leaves_no_mask(service: Service, rings: Rings) -> None:
    job = service.submit(rings[0], "earth-water", region_px="512")
    service.wait(job["id"], lambda job: job["regions"]["done"] >= 1)
    answer = httpx.delete(f"{service.url}/jobs/{job['id']}")
    assert answer.is_success, answer.text
    assert service.wait(job["id"])["state"] == "cancelled"
    assert httpx.get(f"{service.url}/jobs/{job['id']}/mask.zarr/zarr.json").status_code in (404, 409)
    assert httpx.delete(f"{service.url}/jobs/{job['id']}").status_code == 409


def test_submit_and_status_follow_a_job_on_the_command_line(service: Service, rings: Rings) -> None:
    base = [sys.executable, "-m", "cli.main"]
    sent = subprocess.run(
        [*base, "submit", str(rings[0]), "--model", "threshold", "--server", service.url, "--wait", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    job = json.loads(sent.stdout.splitlines()[-1])
    assert job["state"] == "succeeded"
    for arguments in (["status", job["id"]], ["status"]):
        told = subprocess.run(
            [*base, *arguments, "--server", service.url], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert told.returncode == 0, told.stderr
        assert "succeeded" in told.stdout


def test_the_shipped_model_is_offered_with_its_classes(service: Service) -> None:
    offered = {model["name"]: model for model in httpx.get(f"{service.url}/models").json()["models"]}
    manifest = read_manifest(SHIPPED_MODELS / "earth-water")
    assert [c["name"] for c in offered["earth-water"]["classes"]] == [c.name for c in manifest.classes]
