"""What both drivers have settled alike: connections, names, places."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from gigamask.client.effects import Answer, Request
from gigamask.client.errors import Refused, Unreachable
from gigamask.client.views import Job

LOCAL_SERVER = "http://127.0.0.1:8000"
PATIENCE_S = 300.0
READ_BYTES = 256 * 1024
CONNECT_TIMEOUT_S = 10.0


def http_options(server: str, headers: Mapping[str, str] | None) -> dict[str, Any]:
    """Raises Unreachable for what is no URL."""
    try:
        httpx.URL(server)
    except httpx.InvalidURL as exc:
        raise Unreachable(f"{server!r} is no URL of a service: {exc}") from exc
    limits = httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=5)
    timeout = httpx.Timeout(60.0, connect=CONNECT_TIMEOUT_S)
    told = {"User-Agent": "gigamask-client"} | dict(headers or {})
    return {"base_url": server, "headers": told, "timeout": timeout, "limits": limits, "follow_redirects": True}


def request_options(request: Request) -> dict[str, Any]:
    """For `httpx.Client.build_request`, less the content of a piece."""
    headers = dict(request.headers)
    if request.piece:
        headers["Content-Length"] = str(request.piece.length)
    timeout = httpx.Timeout(request.read_timeout_s, connect=CONNECT_TIMEOUT_S)
    shown = {"method": request.method, "url": request.path, "headers": headers, "timeout": timeout}
    if request.params:
        shown["params"] = dict(request.params)
    return shown | ({"json": request.json} if request.json is not None else {})


def answer_of(response: httpx.Response) -> Answer:
    """With its body where that was read."""
    content = response.content if response.is_stream_consumed else b""
    return Answer(response.status_code, response.headers, content)


def nothing(*_told: object) -> None:
    """For a caller that wants to hear of no progress."""


def id_of(job: str | Job) -> str:
    return job.id if isinstance(job, Job) else job


def image_id_of(image: str | Job | None) -> str:
    return image.image_id if isinstance(image, Job) else str(image)


def source_of(source: str | Path | None, image: str | Job | None) -> Path | None:
    """The file to send; None for an image that is there. Raises FileNotFoundError, ValueError for both or neither."""
    if (source is None) == (image is None):
        raise ValueError("expected either a file or image=")
    if source is None:
        return None
    path = Path(source)
    if not path.is_file():
        raise FileNotFoundError(f"no file at {path}")
    return path


def place_for(job: str | Job, name: str, to: Path, options: Mapping[str, Any]) -> tuple[str, Path, dict[str, str]]:
    """-> the route of a file of a result, where it goes, and the route's query."""
    target = to / Path(name).name if to.is_dir() else to
    query = {key: str(value) for key, value in options.items() if value is not None}
    return f"/jobs/{quote(id_of(job), safe='')}/files/{quote(name, safe='')}", target, query


def mask_path(job: Job) -> str:
    """Below the service's URL. Raises Refused for a job without a result, as the service would."""
    if not job.succeeded:
        raise Refused("conflict", f"the job is {job.state}; its mask is there once it has succeeded", 409)
    return f"/jobs/{quote(job.id, safe='')}/mask.zarr"
