"""Both clients against the service behind a real socket, through connections that are cut."""

from __future__ import annotations

import asyncio
import inspect
import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gigamask.client import AsyncClient, Client, FileChanged, Refused, Unreachable
from gigamask.job import Job
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store
from tests.cutting_proxy import cutting
from tests.exports.results_for_tests import blobs, make_result
from tests.service.conftest import MODEL, Served, expected_labels, publish_job, serving

MIB = 2**20

Build = Callable[..., Any]


class Awaited:
    """An AsyncClient whose methods are awaited here, so that one test holds for both."""

    def __init__(self, server: str, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._client = AsyncClient(server, **options)

    def __getattr__(self, name: str) -> Any:
        def call(*words: Any, **named: Any) -> Any:
            result = getattr(self._client, name)(*words, **named)
            return self._runner.run(result if inspect.iscoroutine(result) else _listed(result))

        return call

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


async def _listed(found: Any) -> list[Any]:
    return [item async for item in found]


@pytest.fixture(params=[Client, Awaited], ids=["blocking", "async"])
def build(request: pytest.FixtureRequest) -> Iterator[Build]:
    made: list[Any] = []

    def make(server: str, **options: Any) -> Any:
        made.append(request.param(server, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "a slide \u00fc.tif"
    path.write_bytes(os.urandom(3 * MIB + 17))
    return path


def sent(served: Served, job: Any) -> bytes:
    return served.store.image_source(job.image_id).read_bytes()


def uploads_of(served: Served) -> set[str]:
    return {path.name for path in (served.store.root / "uploads").glob("*")}


# -- submit


def test_a_file_becomes_a_job(build: Build, served: Served, image: Path, cache: Path) -> None:
    told: list[tuple[int, int]] = []
    client = build(served.url, piece_bytes=MIB)
    job = client.submit(image, model=MODEL, region_px=1024, progress=lambda *seen: told.append(seen))
    assert (job.state, job.model, job.file_name) == ("queued", MODEL, image.name)
    assert job.options["region_px"] == 1024
    assert sent(served, job) == image.read_bytes()
    assert told[-1] == (image.stat().st_size,) * 2
    assert [there for there, _ in told] == sorted(there for there, _ in told)
    assert not list(cache.iterdir()), "what is done is forgotten"
    second = client.submit(image=job, model=MODEL)
    assert (second.image_id, second.id != job.id) == (job.image_id, True)
    assert [found.id for found in client.jobs(2)] == [second.id, job.id]
    assert client.job(second).created_at.tzinfo is not None
    assert [model.name for model in client.models()] == [MODEL]
    assert client.cancel(second).state == "cancelled"


@pytest.mark.parametrize("seed", [1])
def test_an_upload_goes_on_through_connections_that_are_cut(
    build: Build, served: Served, image: Path, seed: int
) -> None:
    """tests/cutting_proxy.py resets each of the first twelve connections after so many random bytes."""
    random_ = random.Random(seed)
    cuts = itertools.chain([10**4], (random_.randrange(2000, MIB) for _ in range(11)))
    with cutting(served.port, cuts) as proxy:
        client = build(proxy.url, piece_bytes=MIB)
        job = client.submit(image, model=MODEL)
        assert proxy.cut >= 4
        client.close() if isinstance(client, Client) else None
    assert sent(served, job) == image.read_bytes()


def test_an_upload_outlasts_a_service_that_is_started_again(settings: Settings, store: Store, image: Path) -> None:
    with serving(settings) as served:
        port, killed = served.port, threading.Event()
        client = Client(served.url, piece_bytes=MIB // 2)

        def kill_in_the_middle(there: int, total: int) -> None:
            if there > total // 2 and not killed.is_set():
                served.process.kill()
                killed.set()

        jobs: list[Any] = []
        sending = threading.Thread(
            target=lambda: jobs.append(client.submit(image, model=MODEL, progress=kill_in_the_middle))
        )
        sending.start()
        assert killed.wait(20)
        served.process.wait(20)
    with serving(settings, port=port):
        sending.join(30)
        assert store.image_source(jobs[0].image_id).read_bytes() == image.read_bytes()
        client.close()


def test_an_upload_goes_on_in_another_process(build: Build, served: Served, image: Path, cache: Path) -> None:
    """The first process is killed; the second one sends only what is missing."""
    code = f"""
import os, signal
from gigamask.client import Client
def die(there, total):
    if there > total // 2: os.kill(os.getpid(), signal.SIGKILL)
Client({served.url!r}, piece_bytes={MIB // 4}).submit({str(image)!r}, model={MODEL!r}, progress=die)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -9
    assert len(list(cache.iterdir())) == 1
    time.sleep(0.3)
    told: list[int] = []
    job = build(served.url).submit(image, model=MODEL, progress=lambda there, _total: told.append(there))
    assert told[0] >= image.stat().st_size // 4
    assert sent(served, job) == image.read_bytes()
    assert not list(cache.iterdir())


def test_what_a_submission_is_refused_for(
    build: Build, served: Served, image: Path, tmp_path: Path, cache: Path
) -> None:
    client, before = build(served.url), uploads_of(served)
    with pytest.raises(Refused) as unknown:
        client.submit(image, model="nobody")
    assert (unknown.value.code, unknown.value.status) == ("unknown_model", 404)
    with pytest.raises(Refused) as wrong:
        client.submit(image, model=MODEL, region_px=3)
    assert wrong.value.code == "invalid_option"
    with pytest.raises(FileNotFoundError, match="no file at"):
        client.submit(tmp_path / "none.tif", model=MODEL)
    with pytest.raises(ValueError, match="either"):
        client.submit(model=MODEL)
    (tmp_path / "empty.tif").touch()
    with pytest.raises(Refused, match="empty"):
        client.submit(tmp_path / "empty.tif", model=MODEL)
    with pytest.raises(Refused, match="no job"):
        client.job("0" * 32)
    assert uploads_of(served) == before, "what was refused is given up"
    assert not list(cache.iterdir())


def test_a_file_that_is_changed_while_it_is_sent_is_told(build: Build, served: Served, image: Path) -> None:
    def change(there: int, total: int) -> None:
        if there > total // 2:
            os.utime(image, (0, 0))

    with pytest.raises(FileChanged):
        build(served.url, piece_bytes=MIB).submit(image, model=MODEL, progress=change)


def test_a_service_that_is_not_there_is_told_at_once(build: Build, image: Path) -> None:
    client, began = build("http://127.0.0.1:9"), time.monotonic()
    for call in (client.jobs, lambda: client.submit(image, model=MODEL), lambda: client.wait("0" * 32)):
        with pytest.raises(Unreachable, match="gigamask up"):
            call()
    assert time.monotonic() - began < 3


def test_what_is_no_url_is_told(build: Build) -> None:
    with pytest.raises(Unreachable, match="no URL of a service"):
        build("http://127.0.0.1:bad")


def test_a_service_that_leads_in_circles_is_told(build: Build) -> None:
    class Circle(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()

        def log_message(self, *_words: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Circle) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with pytest.raises(Unreachable, match="redirects"):
            build(f"http://127.0.0.1:{server.server_port}").jobs()
        server.shutdown()


def test_the_memory_of_a_client_does_not_grow_with_the_file(served: Served, tmp_path: Path) -> None:
    peaks = []
    for mib in (8, 150):
        path = tmp_path / f"{mib}.tif"
        with path.open("wb") as stream:
            stream.truncate(mib * MIB)
        code = (
            "from gigamask.client import Client; from pathlib import Path\n"
            f"Client({served.url!r}).submit({str(path)!r}, model={MODEL!r})\n"
            "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
        )
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 10 * MIB
    assert peaks[1] < 80 * MIB


# -- follow


def test_a_job_is_followed_to_its_end(build: Build, served: Served, jobs: JobStore, image: Path) -> None:
    client = build(served.url)
    job = client.submit(image, model=MODEL)
    ending = threading.Timer(0.8, lambda: jobs.cancel(job.id))
    ending.start()
    seen: list[str] = []
    assert client.wait(job, progress=lambda found: seen.append(found.state)).state == "cancelled"
    assert seen == ["queued", "cancelled"]
    assert [found.state for found in client.iter_events(job)] == ["cancelled"]
    ending.join()
    with pytest.raises(Refused, match="no job"):
        client.wait("0" * 32)


def test_a_job_is_followed_through_connections_that_are_cut(
    build: Build, served: Served, jobs: JobStore, image: Path
) -> None:
    job = build(served.url).submit(image, model=MODEL)
    ending = threading.Timer(1.5, lambda: jobs.cancel(job.id))
    ending.start()
    with cutting(served.port, iter([10_000, 700, 900, 400, 1200])) as proxy:
        client = build(proxy.url)
        assert client.job(job).state == "queued"
        assert client.wait(job).state == "cancelled"
        client.close() if isinstance(client, Client) else None
    ending.join()


# -- results


def publish_result(jobs: JobStore, store: Store) -> Job:
    """A job that has succeeded, with a result as assemble writes it."""
    job = publish_job(jobs, store)
    root = store.mask_zarr(job.id)
    shutil.rmtree(root)
    make_result(root, blobs((512, 700)))
    return job


def test_a_mask_is_an_array(served: Served, jobs: JobStore, store: Store) -> None:
    """Whole shards, shard indices by suffix, absent chunks as no data: known labels."""
    job = publish_job(jobs, store)
    labels = expected_labels()
    with Client(served.url) as client:
        mask = client.open_mask(job.id)
        assert (mask.shape, mask.dtype) == (labels.shape, np.uint8)
        np.testing.assert_array_equal(mask[250:900, 150:650], labels[250:900, 150:650])
        np.testing.assert_array_equal(mask[:], labels)
        assert client.open_mask(client.job(job.id), level=1).shape == (550, 350)


async def test_a_mask_is_an_array_to_be_awaited(served: Served, jobs: JobStore, store: Store) -> None:
    job = publish_job(jobs, store)
    async with AsyncClient(served.url) as client:
        mask: Any = await client.open_mask(job.id)
        window = await mask.getitem((slice(250, 900), slice(150, 650)))
    np.testing.assert_array_equal(window, expected_labels()[250:900, 150:650])


def test_no_mask_is_no_empty_mask(build: Build, served: Served, image: Path, jobs: JobStore, store: Store) -> None:
    client = build(served.url)
    queued = client.submit(image, model=MODEL)
    with pytest.raises(Refused, match="queued"):
        client.open_mask(queued)


def test_pixels_that_cannot_be_had_are_no_pixels(
    served: Served, jobs: JobStore, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 404 is an absent chunk, and nothing else is."""
    from gigamask.client import masks

    monkeypatch.setattr(masks, "PAUSES_S", (0.01,))
    job = publish_job(jobs, store)
    with cutting(served.port, itertools.chain([4000], itertools.repeat(1))) as proxy, Client(proxy.url) as client:
        mask = client.open_mask(client.job(job.id))
        with pytest.raises(Unreachable):
            mask[:], mask[:]


def test_a_mask_that_is_gone_is_no_empty_mask(served: Served, jobs: JobStore, store: Store) -> None:
    job = publish_job(jobs, store)
    with Client(served.url) as client:
        mask = client.open_mask(job.id)
        store.mask_zarr(job.id).rename(store.job(job.id) / "elsewhere")
        with pytest.raises(Refused, match="its result was removed"):
            mask[:10, :10]


def test_a_download_goes_on_where_it_was_cut(
    build: Build, served: Served, jobs: JobStore, store: Store, tmp_path: Path
) -> None:
    """A file of a result by ranges; whatever is cut is not fetched again."""
    job = publish_result(jobs, store)
    content = os.urandom(2 * MIB)
    exports = store.exports(job.id)
    exports.mkdir()
    (exports / "mask.geojson").write_bytes(content)
    told: list[int] = []
    with cutting(served.port, iter([MIB // 3, MIB // 2, 300, MIB // 2])) as proxy:
        client = build(proxy.url)
        got = client.download(job.id, "mask.geojson", tmp_path, progress=lambda there, _total: told.append(there))
        assert proxy.cut == 4
        client.close() if isinstance(client, Client) else None
    assert got == tmp_path / "mask.geojson"
    assert got.read_bytes() == content
    assert told == sorted(told)
    assert not list(tmp_path.glob("*.part*"))


def test_the_result_in_one_file_is_downloaded(
    build: Build, served: Served, jobs: JobStore, store: Store, tmp_path: Path
) -> None:
    job = publish_result(jobs, store)
    client = build(served.url)
    assert "mask.ozx" in [file.name for file in client.files(job.id)]
    got = client.download(job.id, "mask.ozx", tmp_path / "mine.ozx")
    with closing(zipfile.ZipFile(got)) as archive:
        assert archive.namelist()[0] == "zarr.json"
    with pytest.raises(Refused, match="no file"):
        client.download(job.id, "mask.doc", tmp_path)


def test_an_operation_that_is_left_closes_its_connection(served: Served, image: Path) -> None:
    with Client(served.url) as client:
        job = client.submit(image, model=MODEL)
        events = client.iter_events(job)
        assert next(events).state == "queued"
        events.close()
        assert client.job(job).state == "queued"
