"""`gigamask submit` and `gigamask status`: a service over HTTP."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, BinaryIO

import httpx
from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column, Table

from cli.console import err, out
from gigamask.errors import BadUpload, GigamaskError

POLL_S = 0.5
READ_BYTES = 1 << 20

Json = dict[str, Any]


class ServerUnreachable(GigamaskError):
    code, status, title = "server_unreachable", 503, "The service does not answer"


class Refused(GigamaskError):
    """The service answered with a problem; its own code is kept."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


class _Watched:
    """A file whose reading moves a progress bar."""

    def __init__(self, stream: BinaryIO, progress: Progress, task: Any) -> None:
        self._stream, self._progress, self._task = stream, progress, task

    def read(self, size: int = -1) -> bytes:
        piece = self._stream.read(size)
        self._progress.advance(self._task, len(piece))
        return piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def upload(server: str, image: Path, fields: dict[str, str]) -> Json:
    """POST /segment, streamed from disk. -> the job. Raises BadUpload where the file is absent, Refused, ..."""
    if not image.is_file():
        raise BadUpload(f"no file at {image}")
    columns = (TextColumn("upload   "), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress, image.open("rb") as stream:
        task = progress.add_task("upload", total=image.stat().st_size)
        body = {"file": (image.name, _Watched(stream, progress, task))}
        return _answer(_call("POST", f"{server}/segment", data=fields, files=body, timeout=None))


def fetch(server: str, path: str) -> Json:
    return _answer(_call("GET", f"{server}{path}", timeout=30.0))


def follow(server: str, job_id: str) -> Json:
    """Show the job's progress until its end. -> the job"""
    columns = (TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TextColumn("{task.fields[pace]}"), console=err) as progress:
        task = progress.add_task("queued", total=100, pace="")
        while True:
            job = fetch(server, f"/jobs/{job_id}")
            progress.update(task, completed=job["percent"], description=_where(job), pace=_pace(job))
            if job["state"] in ("succeeded", "failed", "cancelled"):
                return job
            time.sleep(POLL_S)


def print_job(server: str, job: Json, as_json: bool) -> None:
    if as_json:
        out.print(json.dumps(job), soft_wrap=True, markup=False)
        return
    table = Table(Column(no_wrap=True), Column(overflow="fold"), show_header=False)
    for name in ("id", "state", "stage", "model", "percent"):
        table.add_row(name, str(job[name]))
    for area in job.get("areas") or []:
        size = "" if area.get("area") is None else f"  {area['area']:,.0f} {area['unit']}"
        table.add_row(area["name"], f"{area['px']:,} px{size}")
    if job.get("error"):
        table.add_row("[red]error[/]", f"{job['error']['detail']} ({job['error']['code']})")
    for name, link in (job.get("links") or {}).items():
        table.add_row(name, link if "://" in link else f"{server}{link}")
    out.print(table)


def print_jobs(jobs: list[Json], as_json: bool) -> None:
    if as_json:
        out.print(json.dumps(jobs), soft_wrap=True, markup=False)
        return
    whole = [Column(name, no_wrap=True) for name in ("job", "state", "%")]
    table = Table(*whole, Column("model", overflow="fold"), Column("file", overflow="fold"), box=SIMPLE_HEAD)
    for job in jobs:
        table.add_row(job["id"], _where(job), f"{job['percent']:.0f}", job["model"], job["file_name"])
    out.print(table)


def _where(job: Json) -> str:
    return str(job["stage"] if job["state"] == "running" else job["state"])


def _pace(job: Json) -> str:
    rate, eta = job.get("rate_mp_per_s"), job.get("eta_s")
    return " ".join(part for part in (f"{rate:.2f} MP/s" if rate else "", f"{eta:.0f} s left" if eta else "") if part)


def _call(method: str, url: str, **options: Any) -> httpx.Response:
    try:
        return httpx.request(method, url, **options)
    except httpx.TransportError as exc:
        raise ServerUnreachable(f"{url}: {exc}. Is `gigamask up` running?") from exc


def _answer(response: httpx.Response) -> Json:
    if response.is_success:
        return dict(response.json())
    try:
        problem = response.json()
        code, detail = str(problem["code"]), str(problem.get("detail") or problem["title"])
    except (ValueError, KeyError) as exc:
        raise Refused("bad_answer", f"{response.url} answered {response.status_code}, no problem+json") from exc
    raise Refused(code, detail)
