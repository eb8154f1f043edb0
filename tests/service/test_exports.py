"""Files of a published result over HTTP: listed, made once, sent by ranges; and the old Zarr, key by key."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
import rasterio
import zarr
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader

from gigamask.errors import Busy, ExportFailed, InsufficientStorage
from gigamask.exports.building import fraction_of, hold
from gigamask.exports.catalog import DEFAULTS, FORMATS, write_options
from gigamask.geometry import Box, level_shape
from gigamask.job import Job, JobOptions
from gigamask.manifest import NO_DATA, ModelShelf
from gigamask.pyramid.result import open_result
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store, new_id
from service import builds as making
from service import exports
from service.app import create_app
from service.builds import Build, Builds, Task
from service.files import send_file
from service.parts import Parts
from tests.exports.results_for_tests import NAMES, blobs, make_result
from tests.service.conftest import MODEL, Served, client_of, publish_job

NAME = "patches"
SHAPE = (700, 1100)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    labels = blobs(SHAPE)
    labels[:512, :512] = NO_DATA
    root = tmp_path_factory.mktemp("made") / "mask.zarr"
    return make_result(root, labels, pixel_size=(0.5, 0.5), unit="micrometer").root


@pytest.fixture
def job(jobs: JobStore, store: Store, made_once: Path) -> Job:
    """A job that has succeeded, with a result as assemble writes it."""
    job = publish_job(jobs, store)
    root = store.mask_zarr(job.id)
    shutil.rmtree(root)
    shutil.copytree(made_once, root)
    return job


def url(job: Job, name: str = "") -> str:
    return f"/jobs/{job.id}/files{'/' if name else ''}{name}"


async def listed(client: httpx.AsyncClient, job: Job) -> dict[str, dict[str, object]]:
    answer = await client.get(url(job))
    assert answer.status_code == 200
    return {entry["name"]: entry for entry in answer.json()["files"]}


async def test_the_list_tells_what_there_is_and_where(client: httpx.AsyncClient, job: Job, store: Store) -> None:
    before = await listed(client, job)
    assert set(before) == {"mask.zarr"} | {entry.name for entry in FORMATS}
    cog = before["mask.tif"]
    assert (cog["state"], cog["bytes"], cog["options"]) == ("absent", None, ["colors"])
    await client.get(cog["link"])
    after = (await listed(client, job))["mask.tif"]
    assert after["state"] == "ready"
    assert after["bytes"] == (store.exports(job.id) / "mask.tif").stat().st_size


async def test_every_listed_link_leads_somewhere(client: httpx.AsyncClient, job: Job) -> None:
    found = await listed(client, job)
    for name, key in (("mask.zarr", "/zarr.json"), ("mask-0.4.zarr", "/.zgroup"), ("mask.ozx", ""), ("mask.tif", "")):
        assert (await client.get(f"{found[name]['link']}{key}")).status_code == 200, name


async def test_a_store_is_no_file(client: httpx.AsyncClient, job: Job) -> None:
    answer = await client.get(url(job, "mask-0.4.zarr"))
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert f"/jobs/{job.id}/mask-0.4.zarr" in answer.json()["detail"]


async def test_the_one_file_is_resumed_where_the_stream_cannot_be(client: httpx.AsyncClient, job: Job) -> None:
    streamed = await client.get(f"/jobs/{job.id}/mask.ozx")
    half = await client.get(url(job, "mask.ozx"), headers={"Range": "bytes=1000-"})
    assert (half.status_code, half.content) == (206, streamed.content[1000:])


async def test_a_result_with_probabilities_lists_where_they_are(
    client: httpx.AsyncClient, job: Job, store: Store
) -> None:
    (store.mask_zarr(job.id) / "probabilities").mkdir()
    (store.mask_zarr(job.id) / "probabilities" / "zarr.json").write_text("{}")
    link = (await listed(client, job))["probabilities.zarr"]["link"]
    assert (await client.get(f"{link}/zarr.json")).content == b"{}"


async def test_a_file_is_made_when_asked_for_and_sent_with_a_name(
    client: httpx.AsyncClient, job: Job, store: Store, tmp_path: Path
) -> None:
    answer = await client.get(url(job, "mask.tif"))
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"].startswith(f'attachment; filename="a slide-{MODEL}.tif"')
    assert answer.headers["Content-Type"].startswith("image/tiff")
    assert [path.name for path in store.exports(job.id).iterdir()] == ["mask.tif"]
    (tmp_path / "got.tif").write_bytes(answer.content)
    with pytest.warns(rasterio.errors.NotGeoreferencedWarning), rasterio.open(tmp_path / "got.tif") as image:
        labels = open_result(store.mask_zarr(job.id)).labels(Box(0, 0, *SHAPE))
        np.testing.assert_array_equal(image.read(1), labels)


async def test_a_made_file_is_sent_by_ranges_and_not_twice(client: httpx.AsyncClient, job: Job) -> None:
    whole = await client.get(url(job, "mask.tif"))
    etag = whole.headers["ETag"]
    part = await client.get(url(job, "mask.tif"), headers={"Range": "bytes=100-", "If-Range": etag})
    assert (part.status_code, part.content, part.headers["ETag"]) == (206, whole.content[100:], etag)
    again = await client.get(url(job, "mask.tif"), headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    told = await client.head(url(job, "mask.tif"))
    assert (told.content, told.headers["Content-Length"]) == (b"", str(len(whole.content)))


async def test_options_make_another_file_and_their_order_does_not(
    client: httpx.AsyncClient, job: Job, store: Store
) -> None:
    plain = await client.get(url(job, "mask.tif"))
    red = await client.get(url(job, "mask.tif"), params={"colors": "0:ff0000,1:00ff00"})
    same = await client.get(url(job, "mask.tif"), params={"colors": "1:#00FF00,0:ff0000", "simplify": 3})
    blue = await client.get(url(job, "mask.tif"), params={"colors": "0:0000ff"})
    assert len({plain.content, red.content, blue.content}) == 3
    assert same.headers["ETag"] == red.headers["ETag"]
    assert len(list(store.exports(job.id).iterdir())) == 3


async def test_only_so_many_files_with_options_are_kept(
    client: httpx.AsyncClient, job: Job, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "MAX_VARIANTS", 2)
    for color in ("", "0:000001", "0:000002", "0:000003"):
        assert (await client.get(url(job, "mask.tif"), params={"colors": color})).status_code == 200
    assert sum("-mask.tif" in path.name for path in store.exports(job.id).iterdir()) == 2
    assert (store.exports(job.id) / "mask.tif").is_file()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("colour=0:ff0000", "invalid_request"),
        ("colors=red", "invalid_option"),
        ("colors=9:ff0000", "invalid_option"),
        ("simplify=-1", "invalid_request"),
        ("simplify=nan", "invalid_request"),
        ("roi=nonsense", "invalid_option"),
        ("min_area=x", "invalid_request"),
    ],
)
async def test_a_wrong_option_is_refused_and_nothing_is_made(
    client: httpx.AsyncClient, job: Job, store: Store, query: str, code: str
) -> None:
    answer = await client.get(f"{url(job, 'mask.tif')}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert not store.exports(job.id).exists()


async def test_what_is_not_there_is_told(client: httpx.AsyncClient, job: Job) -> None:
    unknown = await client.get(url(job, "mask.bmp"))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "not_found")
    assert "mask.ome.tif" in unknown.json()["detail"]
    assert (await client.get(f"/jobs/{new_id()}/files")).json()["code"] == "unknown_job"
    assert (await client.get(f"/jobs/{new_id()}/files/mask.tif")).json()["code"] == "unknown_job"


async def test_a_job_that_has_not_succeeded_has_no_files_yet(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    job = jobs.submit(new_id(), "a.tif", MODEL, JobOptions())
    for path in ("files", "files/mask.tif", "mask-0.4.zarr/.zgroup", "mask-0.4.zarr/0/0/0/0"):
        answer = await client.get(f"/jobs/{job.id}/{path}")
        assert (answer.status_code, answer.json()["code"]) == (409, "conflict"), path


# -- while it is made


async def test_who_does_not_wait_long_enough_is_told_to_come_back(
    client: httpx.AsyncClient, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exports, "WAIT_S", 0.0)
    answer = await client.get(url(job, "mask.tif"))
    assert answer.status_code == 202
    assert int(answer.headers["Retry-After"]) > 0
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.json() == {"name": "mask.tif", "state": "building", "fraction": 0.0}
    assert (await listed(client, job))["mask.tif"]["state"] == "building"
    for _ in range(100):
        answer = await client.get(url(job, "mask.tif"))
        if answer.status_code != 202:
            break
        await asyncio.sleep(0.1)
    assert answer.status_code == 200


async def test_many_who_ask_at_once_get_one_file(client: httpx.AsyncClient, job: Job, store: Store) -> None:
    answers = await asyncio.gather(*(client.get(url(job, "mask.tif")) for _ in range(8)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["ETag"] for answer in answers}) == 1
    assert [path.name for path in store.exports(job.id).iterdir()] == ["mask.tif"]


async def test_what_another_replica_makes_is_not_made_twice(
    client: httpx.AsyncClient, app: FastAPI, job: Job, store: Store
) -> None:
    with hold(store.exports(job.id) / "mask.tif") as tell:
        assert tell is not None
        tell(0.5)
        answer = await client.get(url(job, "mask.tif"))
        assert (answer.status_code, answer.json()["fraction"]) == (202, 0.5)
        assert (await listed(client, job))["mask.tif"]["fraction"] == 0.5
    assert (await client.get(url(job, "mask.tif"))).status_code == 200


async def test_a_build_that_fails_says_why_and_may_be_tried_again(
    client: httpx.AsyncClient, app: FastAPI, job: Job
) -> None:
    parts: Parts = app.state.parts
    bounded = parts.settings.model_copy(update={"export_memory_bytes": 30 * 1024**2})
    app.state.parts = replace(parts, settings=bounded)
    answer = await client.get(url(job, "mask.tif"))
    assert (answer.status_code, answer.json()["code"]) == (500, "export_failed")
    app.state.parts = parts
    assert (await client.get(url(job, "mask.tif"))).status_code == 200


async def test_a_build_that_failed_meanwhile_is_told_once(
    client: httpx.AsyncClient, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Task.command
    monkeypatch.setattr(exports, "WAIT_S", 0.0)
    monkeypatch.setattr(Task, "command", lambda task: [sys.executable, "-c", "raise SystemExit(3)"])
    assert (await client.get(url(job, "mask.tif"))).status_code == 202
    for _ in range(100):
        await asyncio.sleep(0.05)
        answer = await client.get(url(job, "mask.tif"))
        if answer.status_code != 202:
            break
    assert (answer.status_code, answer.json()["code"]) == (500, "export_failed")
    assert "status 3" in answer.json()["detail"]
    monkeypatch.setattr(Task, "command", broken)
    monkeypatch.setattr(exports, "WAIT_S", 8.0)
    assert (await client.get(url(job, "mask.tif"))).status_code == 200


async def test_without_space_nothing_is_begun(
    client: httpx.AsyncClient, job: Job, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise InsufficientStorage("full")

    monkeypatch.setattr(Store, "require_free", refuse)
    answer = await client.get(url(job, "mask.tif"))
    assert (answer.status_code, answer.json()["code"]) == (507, "insufficient_storage")
    assert not store.exports(job.id).exists()


def sleeping_task(folder: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> Task:
    code = "import sys, time, pathlib; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    monkeypatch.setattr(Task, "command", lambda task: [sys.executable, "-c", code, str(task.target)])
    return Task(folder, "mask.tif", folder / str(number), "{}", 10**9)


async def test_two_are_made_at_a_time_and_others_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = set(psutil.Process().children())
    held = Builds()
    begun = [held.begin(sleeping_task(tmp_path, number, monkeypatch)) for number in range(4)]
    for _ in range(100):
        await asyncio.sleep(0.05)
        if len(list(tmp_path.iterdir())) >= 2:
            break
    await asyncio.sleep(0.3)
    assert len(list(tmp_path.iterdir())) == 2
    assert held.begin(begun[0].task) is begun[0]
    for _ in range(4):
        for child in set(psutil.Process().children()) - before:
            child.kill()
        await asyncio.sleep(0.2)
    assert all(build.ended.wait(10) for build in begun)
    assert isinstance(begun[0].problem, ExportFailed)


def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "MAX_HELD", 3)
    monkeypatch.setattr(Build, "run", lambda build, turn: None)
    held = Builds()
    for number in range(3):
        held.begin(sleeping_task(tmp_path, number, monkeypatch))
    with pytest.raises(Busy, match="ask again later"):
        held.begin(sleeping_task(tmp_path, 3, monkeypatch))


def test_options_may_be_longer_than_an_argument(made_once: Path, tmp_path: Path) -> None:
    """Linux takes 128 KiB for one; regions of interest are long."""
    target, options = tmp_path / "statistics.csv", write_options(DEFAULTS) + " " * 200_000
    build = Builds().begin(Task(made_once, "statistics.csv", target, options, 10**9))
    assert build.ended.wait(30)
    assert (build.problem, target.is_file()) == (None, True)


async def test_a_file_that_lies_there_needs_no_redis(
    settings: Settings, client: httpx.AsyncClient, job: Job, store: Store
) -> None:
    here = await client.get(url(job, "statistics.csv"))
    away = JobStore(Connection("unix:///absent/redis.sock"), store, settings)
    async with client_of(create_app(settings, store, away, ModelShelf(settings.models))) as alone:
        again = await alone.get(url(job, "statistics.csv"))
        streamed = await alone.get(f"/jobs/{job.id}/mask.ozx")
    assert (again.status_code, again.content, streamed.status_code) == (200, here.content, 200)
    assert again.headers["Content-Disposition"] == here.headers["Content-Disposition"]


async def test_a_file_that_goes_while_it_is_sent_is_sent_to_its_end(tmp_path: Path) -> None:
    """As when room is made for another: what was told of its length and version stays true."""
    target, whole = tmp_path / "mask.tif", bytes(range(256)) * 2**14
    target.write_bytes(whole)
    request = Request({"type": "http", "method": "GET", "headers": []})
    answer = send_file(request, target, {}, "application/zip")
    target.unlink()
    target.write_bytes(b"another")
    assert isinstance(answer, StreamingResponse)
    assert b"".join([block async for block in answer.body_iterator if isinstance(block, bytes)]) == whole


BEGIN = """
import json, sys, time
from pathlib import Path
from service.builds import Builds, Task
task = json.loads(sys.argv[1])
build = Builds().begin(Task(Path(task["root"]), "mask.tif", Path(task["target"]), "{}", 10**9))
while build.fraction == 0:
    time.sleep(0.01)
print("begun", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells children of their parent's death on Linux alone")
def test_what_is_being_made_ends_with_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.exports.results_for_tests.picture", lambda shape: np.zeros((*shape, 3), np.uint8))
    root = make_result(tmp_path / "large.zarr", np.tile(blobs((512, 4096)), (8, 1))).root
    target = tmp_path / "exports" / "mask.tif"
    task = json.dumps({"root": str(root), "target": str(target)})
    with subprocess.Popen([sys.executable, "-c", BEGIN, task], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"begun\n"
        (child,) = psutil.Process(parent.pid).children()
        child.suspend()  # it cannot find out by itself
        parent.kill()
    assert not psutil.wait_procs([child], timeout=10)[1]
    assert fraction_of(target) is None
    assert not target.exists()


# -- the service as a process


def test_a_download_goes_on_where_it_was(served: Served, job: Job) -> None:
    with httpx.Client(base_url=served.url, timeout=30) as client:
        whole = client.get(url(job, "mask.ome.tif"))
        assert whole.status_code == 200
        half = len(whole.content) // 2
        with client.stream("GET", url(job, "mask.ome.tif"), headers={"Range": f"bytes=0-{half - 1}"}) as begun:
            first = begun.read()
        rest = client.get(
            url(job, "mask.ome.tif"), headers={"Range": f"bytes={half}-", "If-Range": whole.headers["ETag"]}
        )
        assert rest.status_code == 206
        assert first + rest.content == whole.content


# -- Zarr v2


async def test_a_key_of_the_old_zarr_has_an_etag_and_is_not_sent_twice(client: httpx.AsyncClient, job: Job) -> None:
    here = f"/jobs/{job.id}/mask-0.4.zarr"
    chunk = await client.get(f"{here}/labels/{NAME}/0/1/1")
    assert (chunk.status_code, chunk.headers["Content-Type"]) == (200, "application/octet-stream")
    again = await client.get(f"{here}/labels/{NAME}/0/1/1", headers={"If-None-Match": chunk.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")
    told = await client.head(f"{here}/labels/{NAME}/0/1/1")
    assert (told.content, told.headers["Content-Length"]) == (b"", str(len(chunk.content)))
    for key in (".zgroup", ".zattrs", f"labels/{NAME}/0/.zarray"):
        answer = await client.get(f"{here}/{key}")
        assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
        assert answer.json()
    for key in (f"labels/{NAME}/0/0/0", "zarr.json", "nothing/.zgroup", "..%2f..%2fjob.json"):
        assert (await client.get(f"{here}/{key}")).status_code == 404


def test_zarr_reads_the_old_store_over_http(served: Served, job: Job, made_once: Path) -> None:
    result = open_result(made_once)
    group = zarr.open_group(f"{served.url}/jobs/{job.id}/mask-0.4.zarr", mode="r", zarr_format=2)
    assert group.attrs["multiscales"][0]["version"] == "0.4"
    for k in range(result.mask.levels):
        box = Box(0, 0, *level_shape(SHAPE, k))
        np.testing.assert_array_equal(group[f"labels/{NAME}/{k}"][:], result.labels(box, k))
    np.testing.assert_array_equal(group["1"][:], result.pixels(Box(0, 0, *level_shape(SHAPE, 1)), 1))


def test_ome_zarr_py_reads_the_old_store_over_http(served: Served, job: Job) -> None:
    nodes = list(Reader(parse_url(f"{served.url}/jobs/{job.id}/mask-0.4.zarr", mode="r"))())
    assert len(nodes[0].data) == len(nodes[-1].data) == 4
    assert nodes[-1].metadata["properties"][1]["name"] == NAMES[1]
