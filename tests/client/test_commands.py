"""`gigamask submit` and `gigamask status` against a service: what goes to stdout, and what becomes of failures."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from gigamask.queue.job_store import JobStore
from gigamask.store import Store
from tests.cutting_proxy import cutting
from tests.service.conftest import MODEL, Served


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a.tif"
    path.write_bytes(os.urandom(200_000))
    return path


def run(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return done.exit_code, done.stdout, done.stderr


def test_submit_uploads_once_and_makes_a_job_for_each_model(served: Served, image: Path, store: Store) -> None:
    before = len(list((store.root / "images").glob("*")))
    code, out, _err = run("submit", image, "-m", MODEL, "-m", MODEL, "--region-px", 1024, "-s", served.url, "--json")
    assert code == 0
    first, second = json.loads(out.splitlines()[-1])["jobs"]
    assert (first["image_id"], first["id"] != second["id"]) == (second["image_id"], True)
    assert first["options"]["region_px"] == 1024
    assert len(list((store.root / "images").glob("*"))) == before + 1


def test_json_is_the_job_as_the_service_tells_it(served: Served, image: Path) -> None:
    code, out, _err = run("submit", image, "-m", MODEL, "--server", served.url, "--json")
    assert code == 0
    job = json.loads(out.splitlines()[-1])
    assert (job["model"], job["state"]) == (MODEL, "queued")
    told = json.loads(run("status", job["id"], "-s", served.url, "--json")[1].splitlines()[-1])
    assert told["links"]["self"] == f"/jobs/{job['id']}"
    listed = json.loads(run("status", "-s", served.url, "--json")[1].splitlines()[-1])
    assert listed[0]["id"] == job["id"]
    assert job["id"] in run("status", "-s", served.url)[1]
    assert f"{served.url}/jobs/{job['id']}" in run("status", job["id"], "-s", served.url + "/")[1].replace("\n", "")


def test_submit_goes_on_through_connections_that_are_cut(served: Served, image: Path, store: Store) -> None:
    cuts: Iterator[int] = iter([60_000, 50_000, 900])
    with cutting(served.port, cuts) as proxy:
        code, out, err = run("submit", image, "-m", MODEL, "-s", proxy.url, "--json")
        assert code == 0, err
        assert proxy.cut >= 2
    job = json.loads(out.splitlines()[-1])
    assert store.image_source(job["image_id"]).read_bytes() == image.read_bytes()


def test_wait_follows_the_job_to_its_end(served: Served, image: Path, jobs: JobStore) -> None:
    def end() -> None:
        while not (found := [job for job in jobs.list() if job.state == "queued" and job.file_name == "mine.tif"]):
            time.sleep(0.02)
        jobs.cancel(found[0].id)

    mine = image.rename(image.with_name("mine.tif"))
    ending = threading.Thread(target=end)
    ending.start()
    code, out, _err = run("submit", mine, "-m", MODEL, "-s", served.url, "--wait", "--json")
    ending.join()
    assert code == 1
    assert json.loads(out.splitlines()[-1])["state"] == "cancelled"


def test_what_is_refused_is_told_with_its_code(served: Served, image: Path, tmp_path: Path) -> None:
    code, out, err = run("submit", image, "-m", "nobody", "-s", served.url, "--json")
    assert code == 1
    assert json.loads(out.splitlines()[-1])["error"]["code"] == "unknown_model"
    assert "there are" in err
    code, out, _err = run("submit", tmp_path / "none.tif", "-m", MODEL, "-s", served.url, "--json")
    assert (code, json.loads(out.splitlines()[-1])["error"]["code"]) == (1, "bad_upload")
