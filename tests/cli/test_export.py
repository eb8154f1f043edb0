"""`gigamask export`: files here, kept when they are there; and the same of a job on a service."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import httpx
import numpy as np
import pytest
import tifffile
import zarr
from typer.testing import CliRunner, Result

from cli.main import app
from gigamask.exports.catalog import FORMATS
from gigamask.geometry import Box
from gigamask.job import Job
from gigamask.pyramid.result import open_result
from gigamask.queue.job_store import JobStore
from gigamask.store import Store
from tests.exports.results_for_tests import blobs, make_result
from tests.redis_for_tests import connection, jobs, redis_url, settings
from tests.service.conftest import MODEL, Served, publish_job, served, store

__all__ = ["connection", "jobs", "redis_url", "served", "settings", "store"]

SHAPE = (600, 900)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_result(tmp_path_factory.mktemp("here") / "slide.zarr", blobs(SHAPE)).root


@pytest.fixture
def job(jobs: JobStore, store: Store, root: Path) -> Job:
    job = publish_job(jobs, store)
    shutil.rmtree(store.mask_zarr(job.id))
    shutil.copytree(root, store.mask_zarr(job.id))
    return job


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def told(result: Result) -> dict[str, object]:
    found: dict[str, object] = json.loads(result.stdout.splitlines()[-1])
    return found


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_files_are_made_under_names_of_the_result(root: Path, tmp_path: Path) -> None:
    done = run(root, "--format", "ome-tiff", "-f", "zarr2", "-f", "mask.ome.tif", "--out", tmp_path / "files")
    assert done.exit_code == 0, done.output
    assert names_in(tmp_path / "files") == {"slide.ome.tif", "slide-0.4.zarr"}
    labels = open_result(root).labels(Box(0, 0, *SHAPE))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "files" / "slide.ome.tif"), labels)
    old = zarr.open_group(tmp_path / "files" / "slide-0.4.zarr", mode="r", zarr_format=2)
    np.testing.assert_array_equal(old["labels/patches/0"][:], labels)


def test_what_is_there_is_kept_unless_asked_otherwise(root: Path, tmp_path: Path) -> None:
    arguments = (root, "-f", "cog", "-f", "zarr2", "-o", tmp_path, "--json")
    first = told(run(*arguments))
    assert [entry["kept"] for entry in first["files"]] == [False, False]
    before = (tmp_path / "slide.tif").stat().st_ino
    assert [entry["kept"] for entry in told(run(*arguments))["files"]] == [True, True]
    assert (tmp_path / "slide.tif").stat().st_ino == before
    again = told(run(*arguments, "--overwrite"))
    assert [entry["kept"] for entry in again["files"]] == [False, False]
    assert (tmp_path / "slide.tif").stat().st_ino != before
    assert names_in(tmp_path) == {"slide.tif", "slide-0.4.zarr"}


def test_colours_reach_the_file(root: Path, tmp_path: Path) -> None:
    assert run(root, "-f", "cog", "-o", tmp_path, "--colors", "1:102030").exit_code == 0
    with tifffile.TiffFile(tmp_path / "slide.tif") as tiff:
        assert (tiff.pages.first.colormap[:, 1] // 257).tolist() == [0x10, 0x20, 0x30]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("-f", "bmp"), "not_found"),
        ((), "invalid_option"),
        (("-f", "cog", "--colors", "red"), "invalid_option"),
        (("-f", "cog", "--colors", "9:ffffff"), "invalid_option"),
        (("-f", "cog", "--label", "nonesuch"), "not_found"),
        (("-f", "cog", "--roi", "absent.geojson"), "invalid_option"),
        (("-f", "cog", "-f", "gpkg"), "conflict"),  # no geo-reference
    ],
)
def test_what_is_wrong_is_told_before_anything_is_made(
    root: Path, tmp_path: Path, arguments: tuple[str, ...], code: str
) -> None:
    done = run(root, *arguments, "-o", tmp_path / "files", "--json")
    assert (done.exit_code, told(done)["error"]["code"]) == (1, code)
    assert not (tmp_path / "files").exists()


def test_a_folder_that_is_no_result_is_told(tmp_path: Path) -> None:
    done = run(tmp_path, "-f", "cog", "--json")
    assert (done.exit_code, told(done)["error"]["code"]) == (1, "not_found")


def test_the_list_shows_every_format_and_why_a_result_cannot_be_had_so(root: Path) -> None:
    plain = run("--list")
    assert plain.exit_code == 0
    assert all(entry.short in plain.stdout for entry in FORMATS)
    rows = {row["format"]: row["not_offered"] for row in json.loads(run(root, "--list", "--json").stdout)}
    assert set(rows) == {entry.short for entry in FORMATS}
    assert rows["cog"] is None
    assert rows["gpkg"]


def test_a_job_on_a_service_is_fetched_and_kept(served: Served, job: Job, root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "files"
    arguments = (job.id, "--server", served.url, "-f", "cog", "-f", "ome-tiff", "-o", folder, "--json")
    done = run(*arguments)
    assert done.exit_code == 0, done.output
    assert names_in(folder) == {f"a slide-{MODEL}.tif", f"a slide-{MODEL}.ome.tif"}
    labels = open_result(root).labels(Box(0, 0, *SHAPE))
    np.testing.assert_array_equal(tifffile.imread(folder / f"a slide-{MODEL}.ome.tif"), labels)
    assert [entry["kept"] for entry in told(run(*arguments))["files"]] == [True, True]


def test_a_download_that_was_cut_goes_on_where_it_was(served: Served, job: Job, tmp_path: Path) -> None:
    whole = httpx.get(f"{served.url}/jobs/{job.id}/files/mask.tif")
    part = tmp_path / f"a slide-{MODEL}.tif.part"
    part.write_bytes(b"seen before" + whole.content[11:1000])
    part.with_name(f"{part.name}.json").write_text(json.dumps({"etag": whole.headers["ETag"]}))
    assert run(job.id, "--server", served.url, "-f", "cog", "-o", tmp_path).exit_code == 0
    assert (tmp_path / f"a slide-{MODEL}.tif").read_bytes() == b"seen before" + whole.content[11:]
    assert not part.exists()


def test_what_a_service_refuses_is_told(served: Served, job: Job, tmp_path: Path) -> None:
    for arguments, code in (
        (("0" * 32, "-f", "cog"), "unknown_job"),
        ((job.id, "-f", "zarr2"), "invalid_option"),
        ((job.id, "-f", "gpkg"), "conflict"),
    ):
        done = run(*arguments, "--server", served.url, "-o", tmp_path, "--json")
        assert (done.exit_code, told(done)["error"]["code"]) == (1, code)
    rows = {
        row["format"]: row["not_offered"]
        for row in json.loads(run(job.id, "-s", served.url, "--list", "--json").stdout)
    }
    assert rows["gpkg"]
