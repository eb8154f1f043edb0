"""Errors are problem documents (RFC 9457), and an unexpected one tells nothing."""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from gigamask.errors import GigamaskError
from gigamask.settings import Settings
from gigamask.store import Store
from service.problems import error_kinds
from tests.service.conftest import bare_app, client_of, write_model

MEMBERS = {"type", "title", "status", "detail", "instance", "code"}


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/jobs/", 404, "not_found"),
        ("PUT", "/segment", 405, "method_not_allowed"),
        ("GET", "/segment", 405, "method_not_allowed"),
        ("GET", "/jobs?limit=many", 422, "invalid_request"),
        ("GET", "/models/nobody", 404, "unknown_model"),
        ("GET", "/jobs/x/mask.zarr/zarr.json", 404, "unknown_job"),
        ("GET", "/problems/nonsense", 404, "not_found"),
    ],
)
async def test_every_refusal_is_a_problem(
    client: httpx.AsyncClient, method: str, path: str, status: int, code: str
) -> None:
    answer = await client.request(method, path)
    body = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert set(body) >= MEMBERS
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["instance"] == path.split("?")[0]
    if status == 405:
        assert answer.headers["Allow"]


@pytest.mark.parametrize("kind", list(error_kinds()), ids=lambda kind: kind.code)
async def test_the_whole_error_tree_is_shown_and_explained(app: FastAPI, kind: type[GigamaskError]) -> None:
    @app.get("/raises")
    def raises() -> None:
        raise kind("expected 1, got 2")

    async with client_of(app) as client:
        body = (await client.get("/raises")).json()
        assert (body["status"], body["code"], body["title"]) == (kind.status, kind.code, kind.title)
        assert ("expected 1, got 2" in body["detail"]) == (kind.code != "queue_unavailable")
        explained = (await client.get(body["type"])).json()
    assert explained == {"code": kind.code, "status": kind.status, "title": kind.title}


async def test_an_unexpected_error_tells_an_id_and_nothing_else(app: FastAPI, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/raises")
    def raises() -> None:
        raise RuntimeError("the password is secret")

    async with client_of(app) as client:
        answer = await client.get("/raises")
    body = answer.json()
    assert (answer.status_code, body["code"]) == (500, "internal")
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text
    records = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert any(body["error_id"] in record.getMessage() and record.exc_info for record in records)


async def test_a_silent_redis_is_503_and_its_address_stays_here(caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(bare_app()) as client:
        answer = await client.get("/jobs")
    assert (answer.status_code, answer.json()["code"]) == (503, "queue_unavailable")
    assert answer.headers["Retry-After"]
    assert "redis.sock" not in answer.text
    assert "redis.sock" in caplog.text


async def test_links_carry_the_path_of_a_proxy(app: FastAPI) -> None:
    transport = httpx.ASGITransport(app, root_path="/gigamask")
    async with httpx.AsyncClient(transport=transport, base_url="http://gigamask") as client:
        assert (await client.get("/gigamask/")).json()["jobs"] == "/gigamask/jobs"
        assert (await client.get("/gigamask/nowhere")).json()["type"] == "/gigamask/problems/not_found"


# -- models, health, index


async def test_models_are_listed_and_a_broken_one_hides_no_other(
    client: httpx.AsyncClient, settings: Settings, store: Store
) -> None:
    broken = settings.models[0] / "broken"
    broken.mkdir()
    (broken / "model.json").write_text("{}")
    shown = (await client.get("/models")).json()
    assert [m["name"] for m in shown["models"]] == ["land"]
    assert [m["name"] for m in shown["broken"]] == ["broken"]
    model = (await client.get(shown["models"][0]["link"])).json()
    assert model == shown["models"][0]
    assert [c["name"] for c in model["classes"]] == ["sea", "land"]
    write_model(settings.models[0], "new")
    assert len((await client.get("/models")).json()["models"]) == 2


async def test_health_says_what_is_missing(client: httpx.AsyncClient, store: Store, app: FastAPI) -> None:
    assert (await client.get("/healthz")).json() == {"status": "ok"}
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (200, {"queue": "ok", "store": "ok"})
    full = app.state.parts.settings.model_copy(update={"min_free_bytes": 2**62})
    app.state.parts = replace(app.state.parts, settings=full)
    ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["store"]) == (503, "insufficient_storage")


async def test_without_redis_the_service_lives_but_is_not_ready(tmp_path: Path) -> None:
    app = bare_app()
    app.state.parts = replace(app.state.parts, store=Store(tmp_path))
    async with client_of(app) as client:
        assert (await client.get("/healthz")).status_code == 200
        ready = await client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]) == (503, {"queue": "queue_unavailable", "store": "ok"})


async def test_the_index_leads_on(client: httpx.AsyncClient) -> None:
    links = (await client.get("/")).json()
    for name in ("jobs", "models", "health", "openapi"):
        assert (await client.get(links[name])).status_code == 200


async def test_openapi_describes_every_route(client: httpx.AsyncClient) -> None:
    api = (await client.get("/openapi.json")).json()
    for path, methods in api["paths"].items():
        for method, route in methods.items():
            assert route["summary"], (method, path)
    assert set(api["paths"]["/segment"]["post"]["requestBody"]["content"]) == {
        "multipart/form-data",
        "application/json",
    }
    named = set(re.findall(r"'#/components/schemas/(\w+)'", str(api)))
    assert named <= set(api["components"]["schemas"])
