"""Resumable uploads by the text of tus 1.0.0: through ASGI, and behind a real socket with connections that break."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import os
import signal
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from fastapi import FastAPI

from gigamask.manifest import ModelShelf
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store, new_id
from service import claims, resumable, tus
from service.app import create_app
from tests.service.conftest import MODEL, Served, bare_app, client_of, kept_files, serving, write_model

MIB = 2**20
PIXELS = bytes(range(256)) * 4000
TUS = {"Tus-Resumable": "1.0.0"}
PIECE = TUS | {"Content-Type": "application/offset+octet-stream"}


def named(name: str) -> dict[str, str]:
    return {"Upload-Metadata": f"filename {base64.b64encode(name.encode()).decode()},empty"}


def checksum(content: bytes, algorithm: str = "sha1") -> dict[str, str]:
    return {"Upload-Checksum": f"{algorithm} {base64.b64encode(hashlib.new(algorithm, content).digest()).decode()}"}


async def create(client: httpx.AsyncClient, length: int = len(PIXELS), name: str = "slide.tif", **more: str) -> str:
    answer = await client.post("/uploads", headers=TUS | {"Upload-Length": str(length)} | named(name) | more)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


async def patch(client: httpx.AsyncClient, url: str, offset: int, content: Any, **more: str) -> httpx.Response:
    return await client.patch(url, content=content, headers=PIECE | {"Upload-Offset": str(offset)} | more)


async def offset_of(client: httpx.AsyncClient, url: str) -> int:
    return int((await client.head(url, headers=TUS)).headers["Upload-Offset"])


async def segment(client: httpx.AsyncClient, upload: str, **more: Any) -> httpx.Response:
    return await client.post("/segment", json={"upload": upload.rsplit("/", 1)[1], "model": MODEL} | more)


# -- what the protocol says


async def test_options_tell_what_is_offered(client: httpx.AsyncClient, settings: Settings) -> None:
    answer = await client.options("/uploads")
    assert answer.status_code == 204
    assert answer.headers["Tus-Version"] == "1.0.0"
    assert answer.headers["Tus-Max-Size"] == str(settings.max_upload_bytes)
    assert answer.headers["Tus-Checksum-Algorithm"].split(",") == ["sha1", "sha256"]
    for extension in ("creation", "creation-with-upload", "checksum", "termination", "expiration"):
        assert extension in answer.headers["Tus-Extension"].split(",")


async def test_pieces_become_the_file(client: httpx.AsyncClient, store: Store) -> None:
    url = await create(client)
    for start in range(0, len(PIXELS), 300_000):
        answer = await patch(client, url, start, PIXELS[start : start + 300_000])
        assert answer.status_code == 204
        assert int(answer.headers["Upload-Offset"]) == min(start + 300_000, len(PIXELS))
        assert await offset_of(client, url) == int(answer.headers["Upload-Offset"])
    job = (await segment(client, url)).json()
    assert job["file_name"] == "slide.tif"
    assert store.image_source(job["image_id"]).read_bytes() == PIXELS
    assert not list((store.root / "uploads").iterdir())


async def test_head_tells_all_that_is_known(client: httpx.AsyncClient) -> None:
    url = await create(client)
    answer = await client.head(url, headers=TUS)
    assert answer.status_code == 200
    assert answer.headers["Upload-Offset"] == "0"
    assert answer.headers["Upload-Length"] == str(len(PIXELS))
    assert answer.headers["Upload-Metadata"] == named("slide.tif")["Upload-Metadata"]
    assert answer.headers["Cache-Control"] == "no-store"
    left_s = parsedate_to_datetime(answer.headers["Upload-Expires"]).timestamp() - time.time()
    assert left_s == pytest.approx(24 * 3600, abs=60)


async def test_every_answer_tells_the_version_and_every_request_must(client: httpx.AsyncClient) -> None:
    url = await create(client)
    for method, where in (("POST", "/uploads"), ("HEAD", url), ("PATCH", url), ("DELETE", url), ("PUT", url)):
        for told in ({}, {"Tus-Resumable": "0.2.2"}):
            answer = await client.request(method, where, headers=told)
            assert answer.headers["Tus-Resumable"] == "1.0.0"
            assert answer.status_code == (405 if method == "PUT" else 412)
            if method != "PUT":
                assert answer.headers["Tus-Version"] == "1.0.0"
    assert await offset_of(client, url) == 0
    assert (await client.get("/uploads/x/y")).headers["Tus-Resumable"] == "1.0.0"
    assert "Tus-Resumable" not in (await client.get("/jobs")).headers


async def test_what_a_piece_is_refused_for(client: httpx.AsyncClient) -> None:
    url = await create(client, 100)
    assert (await patch(client, url, 0, b"a" * 40)).status_code == 204
    refused: list[tuple[int, str, dict[str, str]]] = [
        (409, "wrong_offset", {"Upload-Offset": "39"}),
        (409, "wrong_offset", {"Upload-Offset": "41"}),
        (400, "bad_upload", {"Upload-Offset": "-1"}),
        (400, "bad_upload", {"Upload-Offset": "1e9"}),
        (415, "unsupported_media_type", {"Content-Type": "application/octet-stream"}),
        (400, "bad_upload", {"Upload-Checksum": "crc32 AAAA"}),
        (400, "bad_upload", {"Upload-Checksum": "sha1 !"}),
        (460, "checksum_mismatch", {"Upload-Checksum": "sha1 AAAA"}),
        (400, "bad_upload", {"Upload-Length": "99"}),
    ]
    for status, code, headers in refused:
        answer = await client.patch(url, content=b"b" * 30, headers=PIECE | {"Upload-Offset": "40"} | headers)
        assert (answer.status_code, answer.json()["code"]) == (status, code), headers
        assert answer.headers["Tus-Resumable"] == "1.0.0"
        assert await offset_of(client, url) == 40
    assert answer.json()["code"] == "bad_upload"
    answer = await client.patch(url, content=b"b", headers=PIECE)
    assert answer.status_code == 400
    wrong = await patch(client, url, 7, b"b")
    assert wrong.json()["offset"] == 40


async def test_nothing_is_taken_beyond_the_length(client: httpx.AsyncClient) -> None:
    url = await create(client, 100)
    assert (await patch(client, url, 0, b"a" * 101)).status_code == 413
    assert await offset_of(client, url) == 0

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"a" * 9

    answer = await patch(client, url, 0, unannounced())
    assert (answer.status_code, answer.json()["code"]) == (413, "upload_too_large")
    assert await offset_of(client, url) == 99


@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
async def test_a_piece_with_a_checksum_counts_whole_or_not_at_all(
    client: httpx.AsyncClient, store: Store, algorithm: str
) -> None:
    url = await create(client)
    good, half = checksum(PIXELS[:3000], algorithm), len(PIXELS) // 2
    assert (await patch(client, url, 0, PIXELS[:2999] + b"x", **good)).status_code == 460
    assert await offset_of(client, url) == 0
    assert (await patch(client, url, 0, PIXELS[:3000], **good)).status_code == 204
    assert await offset_of(client, url) == 3000
    assert (await patch(client, url, 3000, PIXELS[3000:half])).status_code == 204
    rest = checksum(PIXELS[half:], algorithm)
    assert (await patch(client, url, half, PIXELS[half:], **rest)).status_code == 204
    assert store.image_source((await segment(client, url)).json()["image_id"]).read_bytes() == PIXELS


async def test_the_first_piece_may_come_with_the_creation(client: httpx.AsyncClient, store: Store) -> None:
    headers = PIECE | {"Upload-Length": str(len(PIXELS))} | named("slide.tif")
    answer = await client.post("/uploads", content=PIXELS[:5000], headers=headers)
    assert (answer.status_code, answer.headers["Upload-Offset"]) == (201, "5000")
    assert (await patch(client, answer.headers["Location"], 5000, PIXELS[5000:])).status_code == 204
    job = (await segment(client, answer.headers["Location"])).json()
    assert store.image_source(job["image_id"]).read_bytes() == PIXELS


async def test_a_creation_whose_first_piece_is_refused_leaves_nothing(client: httpx.AsyncClient, store: Store) -> None:
    headers = PIECE | {"Upload-Length": "10"}
    assert (await client.post("/uploads", content=b"a" * 11, headers=headers)).status_code == 413
    assert (await client.post("/uploads", content=b"a", headers=headers | checksum(b"b"))).status_code == 460
    assert kept_files(store) == ["uploads"] or not [name for name in kept_files(store) if "/" in name]


async def test_the_length_may_come_later_and_once(client: httpx.AsyncClient) -> None:
    answer = await client.post("/uploads", headers=TUS | {"Upload-Defer-Length": "1"})
    url = answer.headers["Location"]
    assert (await client.head(url, headers=TUS)).headers["Upload-Defer-Length"] == "1"
    assert (await patch(client, url, 0, b"abc")).status_code == 204
    assert (await segment(client, url)).json()["length"] is None
    assert (await patch(client, url, 3, b"", **{"Upload-Length": "2"})).status_code == 400
    assert (await patch(client, url, 3, b"d", **{"Upload-Length": "5"})).status_code == 204
    told = (await client.head(url, headers=TUS)).headers
    assert (told["Upload-Length"], told["Upload-Offset"]) == ("5", "4")
    assert "Upload-Defer-Length" not in told
    assert (await patch(client, url, 4, b"e", **{"Upload-Length": "6"})).status_code == 400
    assert (await patch(client, url, 4, b"e", **{"Upload-Length": "5"})).status_code == 204
    assert (await segment(client, url)).json()["file_name"] == "image"


async def test_what_a_creation_is_refused_for(client: httpx.AsyncClient, settings: Settings, store: Store) -> None:
    refused = [
        ({}, 400),
        ({"Upload-Length": "ten"}, 400),
        ({"Upload-Defer-Length": "2"}, 400),
        ({"Upload-Length": "1", "Upload-Defer-Length": "1"}, 400),
        ({"Upload-Length": "9" * 25}, 413),
        ({"Upload-Length": str(settings.max_upload_bytes + 1)}, 413),
        ({"Upload-Length": "1", "Upload-Metadata": "filename ?"}, 400),
        ({"Upload-Length": "1", "Upload-Metadata": "filename " + "A" * 9000}, 400),
    ]
    for headers, status in refused:
        assert (await client.post("/uploads", headers=TUS | headers)).status_code == status, headers
    assert not kept_files(store)


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", "", "a" * 400 + ".tif", "sch\u00f6n.svs", "a/b\0c.tif"])
async def test_a_name_is_a_name_and_no_path(client: httpx.AsyncClient, store: Store, name: str) -> None:
    url = await create(client, 1, name)
    await patch(client, url, 0, b"a")
    source = store.image_source((await segment(client, url)).json()["image_id"])
    assert source.parent.name == "source"
    assert "/" not in source.name and source.name not in ("", ".", "..")


async def test_an_upload_that_is_given_up_is_gone(client: httpx.AsyncClient, store: Store) -> None:
    url = await create(client)
    await patch(client, url, 0, PIXELS[:100])
    answer = await client.delete(url, headers=TUS)
    assert (answer.status_code, answer.headers["Tus-Resumable"]) == (204, "1.0.0")
    assert not list((store.root / "uploads").iterdir())
    for method in ("HEAD", "PATCH", "DELETE"):
        headers = PIECE | {"Upload-Offset": "100"}
        assert (await client.request(method, url, headers=headers)).status_code == 404
    assert (await client.head(f"/uploads/{new_id()}", headers=TUS)).status_code == 404
    assert (await client.head("/uploads/..%2F..%2Fetc", headers=TUS)).status_code == 404


async def test_a_method_may_stand_in_a_header(client: httpx.AsyncClient) -> None:
    url = await create(client, 3)
    headers = PIECE | {"Upload-Offset": "0", "X-HTTP-Method-Override": "PATCH"}
    assert (await client.post(url, content=b"abc", headers=headers)).status_code == 204
    assert await offset_of(client, url) == 3
    assert (await client.post(url, headers=TUS | {"X-HTTP-Method-Override": "DELETE"})).status_code == 204


async def test_an_upload_that_nobody_goes_on_with_expires(
    client: httpx.AsyncClient, settings: Settings, store: Store
) -> None:
    url = await create(client)
    await patch(client, url, 0, PIXELS[:100])
    path = next(store.upload(url.rsplit("/", 1)[1]).glob("source/*"))
    old = time.time() - settings.upload_expiry_s - 1
    os.utime(path, (old, old))
    for answer in (await client.head(url, headers=TUS), await patch(client, url, 100, b""), await segment(client, url)):
        assert answer.status_code == 410
    os.utime(path.parent.parent / "info.json", (old, old))
    await create(client)
    assert (await client.head(url, headers=TUS)).status_code == 404


def test_only_what_nobody_went_on_with_is_cleaned_away(settings: Settings, store: Store) -> None:
    from service.uploads import remove_stale_uploads

    uploads = resumable.ResumableUploads(store, settings)
    fresh, old, written_to = (uploads.create("a.tif", 10) for _ in range(3))
    for upload in (old, written_to):
        folder = store.upload(upload.id)
        for path in (folder, *folder.rglob("*")):
            os.utime(path, (0, 0))
    with claims.locked(claims.Claim(store.upload(written_to.id))):
        assert remove_stale_uploads(store, 100) == 0
        assert resumable.remove_expired_uploads(store, 100) == 1
    assert {path.name for path in (store.root / "uploads").iterdir()} == {fresh.id, written_to.id}


async def test_a_client_that_stalls_is_told_and_what_it_sent_is_kept(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tus, "STALL_S", 0.2)
    monkeypatch.setattr(tus, "WATCH_S", 0.05)

    async def stalling() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.sleep(30)

    url = await create(client)
    answer = await patch(client, url, 0, stalling())
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_upload")
    assert await offset_of(client, url) == 3


# -- from an upload to a job


async def test_an_unfinished_upload_is_told_with_how_far_it_is(client: httpx.AsyncClient) -> None:
    url = await create(client)
    await patch(client, url, 0, PIXELS[:100])
    answer = await segment(client, url)
    assert (answer.status_code, answer.json()["code"]) == (409, "upload_unfinished")
    assert (answer.json()["offset"], answer.json()["length"]) == (100, len(PIXELS))
    assert await offset_of(client, url) == 100


async def test_an_upload_becomes_an_image_once(client: httpx.AsyncClient, store: Store) -> None:
    url = await create(client)
    await patch(client, url, 0, PIXELS)
    for bad in ({"model": "nobody"}, {"options": {"region_px": 3}}, {"image": new_id()}):
        assert (await segment(client, url, **bad)).status_code in (404, 422)
    first = await segment(client, url)
    assert first.status_code == 202
    image = first.json()["image_id"]
    again = await segment(client, url)
    assert (again.status_code, again.json()["code"], again.json()["image"]) == (409, "upload_used", image)
    assert (await client.head(url, headers=TUS)).status_code == 409
    assert (await patch(client, url, len(PIXELS), b"x")).status_code == 409
    second = await client.post("/segment", json={"image": image, "model": MODEL})
    assert second.status_code == 202
    assert len((await client.get("/jobs")).json()["jobs"]) == 2


async def test_an_empty_upload_is_no_image(client: httpx.AsyncClient) -> None:
    answer = await segment(client, await create(client, 0))
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_upload")


async def test_neither_or_both_of_image_and_upload_is_told(client: httpx.AsyncClient) -> None:
    for body in ({"model": MODEL}, {"model": MODEL, "image": new_id(), "upload": new_id()}):
        answer = await client.post("/segment", json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
        assert "either" in answer.json()["detail"]


async def test_without_a_queue_an_upload_stays_what_it_is(settings: Settings, store: Store) -> None:
    from gigamask.queue.connection import Connection

    jobs = JobStore(Connection("unix:///absent/redis.sock"), store, settings)
    async with client_of(create_app(settings, store, jobs, ModelShelf(settings.models))) as client:
        url = await create(client)
        await patch(client, url, 0, PIXELS)
        answer = await segment(client, url)
        assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
        assert await offset_of(client, url) == len(PIXELS)


# -- origins


def app_for(origins: str) -> FastAPI:
    app = bare_app()
    settings = app.state.parts.settings.model_copy(update={"cors_origins": origins})
    parts = app.state.parts
    return create_app(settings, parts.store, parts.jobs, parts.shelf)


async def preflight(origins: str) -> httpx.Response:
    asks = {"Origin": "https://pages.example", "Access-Control-Request-Method": "PATCH"}
    asks["Access-Control-Request-Headers"] = "tus-resumable,upload-offset,content-type"
    async with client_of(app_for(origins)) as client:
        return await client.options("/uploads/x", headers=asks)


async def test_a_named_origin_may_upload_and_every_other_page_may_not() -> None:
    allowed = await preflight("https://pages.example")
    assert allowed.status_code == 200
    assert "PATCH" in allowed.headers["Access-Control-Allow-Methods"]
    assert (await preflight("*")).status_code == 400
    assert (await preflight("https://other.example")).status_code == 400
    async with client_of(app_for("https://pages.example")) as client:
        shown = await client.options("/uploads", headers={"Origin": "https://pages.example"})
        assert "Upload-Offset" in shown.headers["Access-Control-Expose-Headers"]


# -- behind a real socket


@pytest.fixture(scope="module")
def served(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One for all of these tests."""
    folder = tmp_path_factory.mktemp("tus")
    write_model(folder / "models")
    with serving(Settings(store=folder / "store", models=(folder / "models",), redis_url=redis_url)) as served:
        yield served


def eventually(what: Callable[[], object], within_s: float = 10) -> None:
    until = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < until, "did not happen in time"
        time.sleep(0.02)


def create_at(served: Served, length: int) -> str:
    answer = httpx.post(f"{served.url}/uploads", headers=TUS | {"Upload-Length": str(length)} | named("a.tif"))
    return served.url + answer.headers["Location"]


def offset_at(url: str) -> int:
    return int(httpx.head(url, headers=TUS).headers["Upload-Offset"])


@contextlib.contextmanager
def sending(served: Served, url: str, offset: int, length: int, *more: str) -> Iterator[socket.socket]:
    """A PATCH whose body is still to come."""
    path = url.removeprefix(served.url)
    lines = [f"PATCH {path} HTTP/1.1", "Host: g", "Tus-Resumable: 1.0.0", f"Upload-Offset: {offset}", *more]
    lines += ["Content-Type: application/offset+octet-stream", f"Content-Length: {length}", "", ""]
    with socket.create_connection(("127.0.0.1", served.port), timeout=20) as link:
        link.sendall("\r\n".join(lines).encode())
        yield link


def test_what_arrived_before_the_connection_broke_is_kept(served: Served) -> None:
    content = os.urandom(3 * MIB + 12345)
    url = create_at(served, len(content))
    with sending(served, url, 0, len(content)) as link:
        link.sendall(content[: MIB + 777])
    eventually(lambda: offset_at(url) == MIB + 777)
    with sending(served, url, MIB + 777, len(content)) as link:
        link.sendall(content[MIB + 777 : 2 * MIB])
        link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # reset, no goodbye
    eventually(lambda: offset_at(url) >= MIB + 777)
    time.sleep(0.1)
    offset = offset_at(url)
    done = httpx.patch(url, content=content[offset:], headers=PIECE | {"Upload-Offset": str(offset)})
    assert done.status_code == 204, done.text
    job = httpx.post(f"{served.url}/segment", json={"upload": url.rsplit("/", 1)[1], "model": MODEL}).json()
    assert served.store.image_source(job["image_id"]).read_bytes() == content


def test_a_piece_with_a_checksum_that_was_cut_does_not_count(served: Served) -> None:
    url = create_at(served, 4 * MIB)
    told = f"Upload-Checksum: {checksum(bytes(4 * MIB))['Upload-Checksum']}"
    folder = served.store.upload(url.rsplit("/", 1)[1])
    with sending(served, url, 0, 4 * MIB, told) as link:
        link.sendall(bytes(2 * MIB))
        eventually(lambda: (folder / "source" / "a.tif").stat().st_size)
        assert offset_at(url) == 0, "not even while it arrives"
    eventually(lambda: not (folder / "floor").exists())
    assert offset_at(url) == 0


def test_a_newer_request_takes_over_from_one_that_is_not_heard_of(served: Served) -> None:
    """tus/tusd #335: behind a proxy the old connection looks alive long after its client is gone."""
    url = create_at(served, 2 * MIB)
    with sending(served, url, 0, 2 * MIB) as silent:
        silent.sendall(bytes(1000))
        time.sleep(0.3)
        began = time.monotonic()
        answer = httpx.patch(url, content=bytes(2 * MIB - 1000), headers=PIECE | {"Upload-Offset": "1000"})
        assert answer.status_code == 204, answer.text
        assert time.monotonic() - began < 3
        assert b" 423 " in silent.recv(100)
    assert offset_at(url) == 2 * MIB


def test_a_newer_request_takes_over_from_one_that_goes_on_sending(served: Served) -> None:
    url, stop = create_at(served, 400 * MIB), threading.Event()

    def dribble(link: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not stop.wait(0.05):
                link.sendall(bytes(50))

    with sending(served, url, 0, 400 * MIB) as older:
        sender = threading.Thread(target=dribble, args=(older,))
        sender.start()
        time.sleep(0.3)
        answer = httpx.patch(url, content=b"", headers=PIECE | {"Upload-Offset": "0"}, timeout=8)
        stop.set()
        sender.join()
    assert answer.status_code == 409, "what the older one sent is kept, and the newer one is told"
    assert answer.json()["offset"] > 0


def test_reading_the_offset_waits_for_no_writer(served: Served) -> None:
    url = create_at(served, 2 * MIB)
    with sending(served, url, 0, 2 * MIB) as link:
        link.sendall(bytes(MIB + 5))
        eventually(lambda: offset_at(url) >= MIB)
        began = time.monotonic()
        offset_at(url)
        assert time.monotonic() - began < 0.4


def test_giving_up_stops_who_is_sending(served: Served) -> None:
    url = create_at(served, 2 * MIB)
    with sending(served, url, 0, 2 * MIB) as link:
        link.sendall(bytes(MIB + 5))
        assert httpx.delete(url, headers=TUS, timeout=10).status_code == 204
    assert httpx.head(url, headers=TUS).status_code == 404
    eventually(lambda: not served.store.upload(url.rsplit("/", 1)[1]).exists())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_an_upload_outlives_the_service(settings: Settings, store: Store, number: signal.Signals) -> None:
    content = os.urandom(3 * MIB)
    with serving(settings) as served:
        path = create_at(served, len(content)).removeprefix(served.url)
        with sending(served, served.url + path, 0, len(content)) as link:
            link.sendall(content[: 2 * MIB])
            eventually(lambda: offset_at(served.url + path) >= MIB)
            os.kill(served.process.pid, number)
            served.process.wait(20)
    with serving(settings) as served:
        offset = offset_at(served.url + path)
        assert MIB <= offset <= 2 * MIB
        headers = PIECE | {"Upload-Offset": str(offset)}
        assert httpx.patch(served.url + path, content=content[offset:], headers=headers).status_code == 204
        job = httpx.post(f"{served.url}/segment", json={"upload": path.rsplit("/", 1)[1], "model": MODEL}).json()
        assert store.image_source(job["image_id"]).read_bytes() == content


def test_a_checked_piece_that_a_killed_service_left_is_thrown_away(settings: Settings, store: Store) -> None:
    content = os.urandom(2 * MIB)
    with serving(settings) as served:
        path = create_at(served, len(content)).removeprefix(served.url)
        told = f"Upload-Checksum: {checksum(content)['Upload-Checksum']}"
        with sending(served, served.url + path, 0, len(content), told) as link:
            link.sendall(b"x" * (MIB + 5))
            source = store.upload(path.rsplit("/", 1)[1]) / "source" / "a.tif"
            eventually(lambda: source.stat().st_size >= MIB)
            served.process.kill()
    assert source.stat().st_size
    with serving(settings) as served:
        assert offset_at(served.url + path) == 0
        for start, stop in ((0, 1000), (1000, len(content))):
            headers = PIECE | {"Upload-Offset": str(start)}
            assert httpx.patch(served.url + path, content=content[start:stop], headers=headers).status_code == 204
            assert offset_at(served.url + path) == stop
    assert source.read_bytes() == content


def test_memory_does_not_grow_with_a_piece(served: Served) -> None:
    peaks = []
    for mib in (20, 200):
        url = create_at(served, mib * MIB)
        pieces = (bytes(MIB) for _ in range(mib))
        assert httpx.patch(url, content=pieces, headers=PIECE | {"Upload-Offset": "0"}, timeout=60).status_code == 204
        peaks.append(peak_rss(served.process))
        httpx.delete(url, headers=TUS)
    assert peaks[1] - peaks[0] < 20 * MIB


def peak_rss(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024
