"""POST /segment through ASGI: what is taken, what is refused, and that what is refused leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from gigamask.image_info import ReadOptions
from gigamask.job import JobOptions
from gigamask.manifest import ModelShelf
from gigamask.queue.job_store import JobStore
from gigamask.queue.record import write_reading
from gigamask.roi import parse_roi
from gigamask.settings import Settings
from gigamask.store import Store, new_id
from service import segment, uploads
from service.app import create_app
from tests.service.conftest import MODEL, bare_app, client_of, kept_files

PIXELS = bytes(range(256)) * 5000 + b"\r\n--almost a boundary"


def form(*parts: tuple[str, str | None, bytes], end: bytes = b"--x--\r\n") -> tuple[bytes, dict[str, str]]:
    """(name, file name or None, content)... -> body, headers. Parts stand in this order."""
    body = b""
    for name, file_name, content in parts:
        file = f'; filename="{file_name}"' if file_name is not None else ""
        body += f'--x\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'.encode() + content + b"\r\n"
    return body + end, {"Content-Type": "multipart/form-data; boundary=x"}


async def post(client: httpx.AsyncClient, *parts: tuple[str, str | None, bytes]) -> httpx.Response:
    body, headers = form(*parts)
    return await client.post("/segment", content=body, headers=headers)


async def pieces(body: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


FILE = ("file", "slide.tif", PIXELS)
WITH_MODEL = ("model", None, MODEL.encode())


@pytest.mark.parametrize("parts", [(WITH_MODEL, FILE), (FILE, WITH_MODEL)], ids=["model first", "file first"])
async def test_an_upload_is_kept_as_it_came_and_becomes_a_job(
    client: httpx.AsyncClient, jobs: JobStore, store: Store, parts: Any
) -> None:
    answer = await post(client, *parts)
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["Location"] == f"/jobs/{job['id']}" == job["links"]["self"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert (job["state"], job["stage"], job["file_name"]) == ("queued", "ingest", "slide.tif")
    assert store.image_source(job["image_id"]).read_bytes() == PIXELS
    assert jobs.get(job["id"]).model == MODEL
    assert not list((store.root / "uploads").iterdir())


@pytest.mark.parametrize("size", [1, 7, 65536])
async def test_the_file_is_the_same_however_the_body_is_cut(client: httpx.AsyncClient, store: Store, size: int) -> None:
    content = b"\r\n--x\r-\r\n-" * 40 + bytes(range(256))
    body, headers = form(WITH_MODEL, ("file", "a.tif", content))
    answer = await client.post("/segment", content=pieces(body, size), headers=headers)
    assert store.image_source(answer.json()["image_id"]).read_bytes() == content


async def test_options_of_the_form_reach_the_job(client: httpx.AsyncClient, jobs: JobStore) -> None:
    options = {"pixel_size_um": b"0.25", "sample_range": b"0, 4095", "region_px": b"1024"}
    answer = await post(client, WITH_MODEL, *((k, None, v) for k, v in options.items()), FILE)
    kept = jobs.get(answer.json()["id"]).options
    assert (kept.read.pixel_size_um, kept.read.sample_range, kept.region_px) == (0.25, (0.0, 4095.0), 1024)


async def test_what_is_to_be_done_with_the_image_reaches_the_job_by_either_door(
    client: httpx.AsyncClient, jobs: JobStore
) -> None:
    triangle = {"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9], [0, 0]]]}
    chosen = {
        "background": "skip", "resolution": "native", "overlap": "gaussian", "min_object_px": 50, "probabilities": True,
    }  # fmt: skip
    fields = [(name, None, str(value).lower().encode()) for name, value in chosen.items()]
    first = await post(client, WITH_MODEL, *fields, ("roi", None, json.dumps(triangle).encode()), FILE)
    body = {"image": first.json()["image_id"], "model": MODEL, "options": chosen | {"roi": triangle}}
    second = await client.post("/segment", json=body)
    expected = JobOptions.model_validate(chosen | {"roi": parse_roi(triangle)})
    for answer in (first, second):
        assert answer.status_code == 202
        assert jobs.get(answer.json()["id"]).options == expected
        assert JobOptions.model_validate(answer.json()["options"]) == expected


def nothing(name: str) -> tuple[str, None, bytes]:
    return name, None, b"1"


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ((WITH_MODEL,), 400, "bad_upload"),
        ((FILE,), 400, "bad_upload"),
        ((WITH_MODEL, ("file", "a.tif", b"")), 400, "bad_upload"),
        ((WITH_MODEL, FILE, FILE), 400, "bad_upload"),
        ((WITH_MODEL, ("file", None, b"text")), 400, "bad_upload"),
        ((WITH_MODEL, FILE, nothing("colour")), 400, "bad_upload"),
        ((("model", None, b"m" * 600_000), FILE), 400, "bad_upload"),
        ((FILE, ("model", None, b"nobody")), 404, "unknown_model"),
        ((FILE, ("model", None, b"../models/land")), 404, "unknown_model"),
        ((WITH_MODEL, FILE, ("region_px", None, b"100")), 422, "invalid_option"),
        ((WITH_MODEL, FILE, ("region_px", None, b"wide")), 422, "invalid_request"),
        ((WITH_MODEL, FILE, ("pixel_size_um", None, b"-1")), 422, "invalid_request"),
        ((WITH_MODEL, FILE, ("sample_range", None, b"5,5")), 422, "invalid_option"),
        ((WITH_MODEL, FILE, ("sample_range", None, b"nan,1")), 422, "invalid_request"),
        ((WITH_MODEL, FILE, ("sample_range", None, b"0,inf")), 422, "invalid_request"),
        ((WITH_MODEL, FILE, ("sample_range", None, b"0,1e999")), 422, "invalid_request"),
        ((WITH_MODEL, FILE, ("pixel_size_um", None, b"inf")), 422, "invalid_request"),
        ((WITH_MODEL, FILE, ("pixel_size_um", None, b"nan")), 422, "invalid_request"),
        ((WITH_MODEL, FILE, ("sample_range", None, b"5")), 422, "invalid_request"),
        ((WITH_MODEL, FILE, ("roi", None, b"1,2,3")), 422, "invalid_option"),
        ((WITH_MODEL, FILE, ("roi", None, b'{"type": "Point", "coordinates": [0, 0]}')), 422, "invalid_option"),
        ((WITH_MODEL, FILE, ("overlap", None, b"some")), 422, "invalid_request"),
        ((WITH_MODEL, FILE, ("min_object_px", None, b"-1")), 422, "invalid_request"),
        ((WITH_MODEL, FILE, ("probabilities", None, b"perhaps")), 422, "invalid_request"),
    ],
)
async def test_a_wrong_form_is_refused_and_leaves_nothing(
    client: httpx.AsyncClient, jobs: JobStore, store: Store, parts: Any, status: int, code: str
) -> None:
    answer = await post(client, *parts)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert not kept_files(store)
    assert not jobs.list()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"no boundary at all",
        form(WITH_MODEL, FILE, end=b"")[0],
        form(WITH_MODEL, FILE)[0][:-4],
        b"--x\r\nContent-Disposition: attachment\r\n\r\nx\r\n--x--\r\n",
        b"--x\r\nno colon\r\n\r\nx\r\n--x--\r\n",
        b"--x\r\nA: " + b"a" * 100_000 + b"\r\n\r\nx\r\n--x--\r\n",
        b"--x\r\n" + b"A: b\r\n" * 1000 + b"\r\nx\r\n--x--\r\n",
        b"".join(b'--x\r\nContent-Disposition: form-data; name="f%d"\r\n\r\n\r\n' % k for k in range(99)),
        form(WITH_MODEL, FILE)[0].replace(b"\r\n\r\nland", b"\r\nContent-Transfer-Encoding: base64\r\n\r\nland")[:60],
    ],
)
async def test_a_broken_body_is_a_bad_upload(client: httpx.AsyncClient, store: Store, body: bytes) -> None:
    answer = await client.post("/segment", content=body, headers=form()[1])
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_upload")
    assert not kept_files(store)


async def test_what_follows_the_closing_boundary_is_ignored(client: httpx.AsyncClient, store: Store) -> None:
    body, headers = form(WITH_MODEL, FILE)
    answer = await client.post("/segment", content=body + b"\r\nepilogue", headers=headers)
    assert store.image_source(answer.json()["image_id"]).read_bytes() == PIXELS


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data", "application/x-www-form-urlencoded", ""])
async def test_other_kinds_of_body_are_unsupported(client: httpx.AsyncClient, kind: str) -> None:
    answer = await client.post("/segment", content=b"a=b", headers={"Content-Type": kind})
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")


async def test_a_compressed_body_is_unsupported(client: httpx.AsyncClient) -> None:
    body, headers = form(WITH_MODEL, FILE)
    answer = await client.post("/segment", content=body, headers=headers | {"Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("announced", "status", "code"),
    [(5 * 2**30, 413, "upload_too_large"), (2**29, 507, "insufficient_storage")],
)
async def test_too_much_is_refused_before_the_body_is_read(
    settings: Settings, store: Store, jobs: JobStore, announced: int, status: int, code: str
) -> None:
    limited = settings.model_copy(update={"max_upload_bytes": 2**30, "min_free_bytes": 2**60 if status == 507 else 0})
    app = segment_app(limited, store, jobs)
    headers = form()[1] | {"Content-Length": str(announced)}
    status_got, body = await asked_without_body(app, headers)
    assert (status_got, json.loads(body)["code"]) == (status, code)
    assert not kept_files(store)


def segment_app(settings: Settings, store: Store, jobs: JobStore) -> FastAPI:
    return create_app(settings, store, jobs, ModelShelf(settings.models))


async def asked_without_body(app: FastAPI, headers: dict[str, str]) -> tuple[int, bytes]:
    """POST /segment; before its answer the app must not ask for the body."""
    sent: list[Any] = []

    async def receive() -> Any:
        assert sent, "the body was read before the answer"
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": "POST", "path": "/segment", "raw_path": b"/segment", "query_string": b"",
        "headers": raw, "http_version": "1.1", "scheme": "http", "server": ("gigamask", 80), "root_path": "",
    }  # fmt: skip
    await app(scope, receive, send)
    return sent[0]["status"], b"".join(message.get("body", b"") for message in sent[1:])


@pytest.mark.parametrize("over", [1, 4 * 2**20])
async def test_the_limit_holds_for_a_body_that_announces_nothing(
    settings: Settings, store: Store, jobs: JobStore, over: int
) -> None:
    limited = settings.model_copy(update={"max_upload_bytes": 2**20})
    async with client_of(segment_app(limited, store, jobs)) as client:
        for extra, status in ((0, 202), (over, 413)):
            body, headers = form(WITH_MODEL, ("file", "a.tif", b"a" * (2**20 + extra)))
            answer = await client.post("/segment", content=pieces(body, 65536), headers=headers)
            assert answer.status_code == status
    assert len(list((store.root / "images").iterdir())) == 1
    assert not list((store.root / "uploads").iterdir())


async def test_space_is_watched_while_the_body_arrives(
    settings: Settings, store: Store, jobs: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer takes the disk's last bytes: simulated by raising what must stay free."""
    monkeypatch.setattr(uploads, "FREE_CHECK_BYTES", 1)
    limited = settings.model_copy(update={"min_free_bytes": 0})
    app = segment_app(limited, store, jobs)
    body, headers = form(WITH_MODEL, ("file", "a.tif", b"a" * 3 * 2**20))

    async def fill() -> AsyncIterator[bytes]:
        yield body[: 2 * 2**20]
        object.__setattr__(limited, "__dict__", limited.__dict__ | {"min_free_bytes": 2**62})
        yield body[2 * 2**20 :]

    async with client_of(app) as client:
        answer = await client.post("/segment", content=fill(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (507, "insufficient_storage")
    assert answer.headers["Retry-After"]
    assert not kept_files(store)


async def test_a_sender_that_falls_silent_is_given_up(
    client: httpx.AsyncClient, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(segment, "STALL_S", 0.1)
    body, headers = form(WITH_MODEL, FILE)

    async def stall() -> AsyncIterator[bytes]:
        yield body[:1000]
        await asyncio.sleep(1)
        yield body[1000:]

    answer = await client.post("/segment", content=stall(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_upload")
    assert not kept_files(store)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd", "passwd"),
        ("/etc/passwd", "passwd"),
        ("C:\\scans\\a.svs", "a.svs"),
        ("..", "image"),
        ("", "image"),
        (".hidden.tif", "hidden.tif"),
        ("a\0b\x1b.tif", "a_b_.tif"),
        ("schöner Schnitt.tif", "schöner Schnitt.tif"),
        ("é" * 300 + ".tif", "é" * 98 + ".tif"),
        ("a." + "b" * 300, "a." + "b" * 31),
        ("\u202egpj.exe", "_gpj.exe"),
    ],
)
def test_a_file_name_is_made_safe(given: str, kept: str) -> None:
    assert uploads.safe_name(given) == kept
    assert len(kept.encode()) <= uploads.MAX_NAME_BYTES


async def test_a_hostile_file_name_stays_in_its_folder(client: httpx.AsyncClient, store: Store) -> None:
    answer = await post(client, WITH_MODEL, ("file", "../../../evil.tif", PIXELS))
    image_id = answer.json()["image_id"]
    assert kept_files(store) == [
        f"images/{image_id}",
        f"images/{image_id}/source",
        f"images/{image_id}/source/evil.tif",
    ]


async def test_without_a_queue_nothing_is_uploaded(store: Store) -> None:
    app = bare_app()
    app.state.parts = replace(app.state.parts, store=store)
    status, body = await asked_without_body(app, form()[1])
    assert (status, json.loads(body)["code"]) == (503, "queue_unavailable")
    assert b"absent" not in body


# -- images already here


async def again(client: httpx.AsyncClient, body: Any) -> httpx.Response:
    return await client.post("/segment", json=body)


async def test_an_image_already_here_is_segmented_without_a_second_upload(
    client: httpx.AsyncClient, store: Store
) -> None:
    first = (await post(client, WITH_MODEL, FILE)).json()
    before = kept_files(store)
    answer = await again(client, {"image": first["image_id"], "model": MODEL, "options": {"region_px": 2048}})
    assert answer.status_code == 202
    second = answer.json()
    assert second["id"] != first["id"]
    assert (second["image_id"], second["file_name"]) == (first["image_id"], "slide.tif")
    assert second["options"]["region_px"] == 2048
    assert kept_files(store) == before


async def test_what_json_may_ask_for(client: httpx.AsyncClient, store: Store) -> None:
    image = (await post(client, WITH_MODEL, FILE)).json()["image_id"]
    asked: list[tuple[Any, int, str]] = [
        ({"image": new_id(), "model": MODEL}, 404, "unknown_image"),
        ({"image": "../../etc", "model": MODEL}, 404, "unknown_image"),
        ({"image": image, "model": "nobody"}, 404, "unknown_model"),
        ({"image": image}, 422, "invalid_request"),
        ({"image": image, "model": MODEL, "colour": 1}, 422, "invalid_request"),
        ({"image": image, "model": MODEL, "options": {"region_px": 3}}, 422, "invalid_option"),
        ({"image": image, "model": MODEL, "options": {"roi": "0,0,-1,2"}}, 422, "invalid_option"),
        ({"image": image, "model": MODEL, "options": {"roi": {"type": "Line"}}}, 422, "invalid_option"),
        ({"image": image, "model": MODEL, "options": {"background": "drop"}}, 422, "invalid_request"),
        ([], 422, "invalid_request"),
        ({"image": image, "model": MODEL, "x": "x" * 1_100_000}, 413, "upload_too_large"),
    ]
    for body, status, code in asked:
        answer = await again(client, body)
        assert (answer.status_code, answer.json()["code"]) == (status, code), body
    for options in (b'{"sample_range": [0, 1e999]}', b'{"pixel_size_um": Infinity}', b'{"pixel_size_um": NaN}'):
        body = b'{"image": "%s", "model": "%s", "options": %s}' % (image.encode(), MODEL.encode(), options)
        answer = await client.post("/segment", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), options
    surrogate = b'{"image": "%s", "model": "%s", "options": {"roi": {"type": "\\ud800"}}}' % (
        image.encode(),
        MODEL.encode(),
    )
    for body in (b"{", b"[" * 500_000, surrogate):
        answer = await client.post("/segment", content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request"), body[:80]


async def test_a_name_that_nothing_can_write_down_is_refused(client: httpx.AsyncClient) -> None:
    """Half a surrogate pair is valid JSON and no valid text."""
    geometry = b'{"type": "Polygon", "coordinates": [[[0, 0], [9, 0], [9, 9]]]}'
    roi = b'{"type": "Feature", "properties": {"name": "\\ud800"}, "geometry": %s}' % geometry
    answer = await post(client, WITH_MODEL, ("roi", None, roi), FILE)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")


async def test_how_an_image_was_read_cannot_be_changed_later(client: httpx.AsyncClient, store: Store) -> None:
    image = (await post(client, WITH_MODEL, FILE)).json()["image_id"]
    body = {"image": image, "model": MODEL, "options": {"pixel_size_um": 0.5}}
    assert (await again(client, body)).status_code == 202
    store.image_zarr(image).mkdir()
    answer = await again(client, body)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_option")
    write_reading(store, image, ReadOptions(pixel_size_um=0.5, sample_range=(0, 9)))
    assert (await again(client, body)).status_code == 202, "it was read so"
    assert (await again(client, body | {"options": {}})).status_code == 202
    answer = await again(client, body | {"options": {"pixel_size_um": 0.25}})
    assert "pixel_size_um 0.5, not 0.25" in answer.json()["detail"]


def test_stale_uploads_are_removed_and_live_ones_stay(store: Store) -> None:
    for name, age_s in (("live", 0), ("stale", 100)):
        store.upload(name).mkdir(parents=True)
        path = store.upload(name) / "a.tif"
        path.touch()
        for touched in (path, path.parent):
            os.utime(touched, (0, path.stat().st_mtime - age_s))
    assert uploads.remove_stale_uploads(store, 50) == 1
    assert [path.name for path in (store.root / "uploads").iterdir()] == ["live"]
