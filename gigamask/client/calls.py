"""The short questions: one request, one answer, no patience."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from gigamask.client.effects import Answer, Operation, Request, accepted
from gigamask.client.patience import Patience, send_patiently
from gigamask.client.views import File, Job, Model, read_file, read_job, read_model

PAGE = 200


def read_one_job(job_id: str) -> Operation[Job]:
    return read_job((yield from _ask("GET", f"/jobs/{quote(job_id, safe='')}")).json())


def cancel_job(job_id: str) -> Operation[Job]:
    return read_job((yield from _ask("DELETE", f"/jobs/{quote(job_id, safe='')}")).json())


def list_jobs(limit: int) -> Operation[list[Job]]:
    """The newest first."""
    found: list[Job] = []
    path: str | None = f"/jobs?limit={min(limit, PAGE)}"
    while path and len(found) < limit:
        page = yield from _ask("GET", path)
        found += map(read_job, page.member("jobs"))
        following = page.member("next")
        path = f"/jobs?{urlsplit(following).query}" if following else None
    return found[:limit]


def list_models() -> Operation[list[Model]]:
    return [read_model(told) for told in (yield from _ask("GET", "/models")).member("models")]


def list_files(job_id: str) -> Operation[list[File]]:
    answer = yield from _ask("GET", f"/jobs/{quote(job_id, safe='')}/files")
    return [read_file(told) for told in answer.member("files")]


def submit_image(image_id: str, asked: dict[str, Any]) -> Operation[Job]:
    """An image that is already there."""
    return read_job((yield from _ask("POST", "/segment", {"image": image_id} | asked)).json())


def _ask(method: str, path: str, body: object = None) -> Operation[Answer]:
    return accepted((yield from send_patiently(Request(method, path, json=body), Patience(0.0))))
