"""`gigamask submit` and `gigamask status`: a service, through its Python client."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.table import Column, Table

from cli.console import err, out
from gigamask.client import Client, Job
from gigamask.errors import BadUpload


def submit(client: Client, image: Path, models: Sequence[str], options: dict[str, Any]) -> list[Job]:
    """One upload, which goes on where it was, and a job for each model. Raises BadUpload where the file is absent."""
    if not image.is_file():
        raise BadUpload(f"no file at {image}")
    columns = (TextColumn("upload   "), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("upload", total=image.stat().st_size)
        first = client.submit(
            image, model=models[0], progress=lambda there, _all: progress.update(task, completed=there), **options
        )
    return [first, *(client.submit(image=first, model=model, **options) for model in models[1:])]


def follow(client: Client, job_id: str) -> Job:
    """Show the job's progress until its end. -> the job"""
    columns = (TextColumn("{task.description:<9}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TextColumn("{task.fields[pace]}"), console=err) as progress:
        task = progress.add_task("queued", total=100, pace="")

        def show(job: Job) -> None:
            progress.update(task, completed=job.percent, description=_where(job), pace=_pace(job))

        return client.wait(job_id, show)


def print_submitted(server: str, jobs: Sequence[Job], as_json: bool) -> None:
    """Of several jobs, JSON is one object with all of them."""
    if as_json and len(jobs) > 1:
        out.print(json.dumps({"jobs": [job.raw for job in jobs]}), soft_wrap=True, markup=False)
        return
    for job in jobs:
        print_job(server, job, as_json)


def print_job(server: str, job: Job, as_json: bool) -> None:
    if as_json:
        out.print(json.dumps(job.raw), soft_wrap=True, markup=False)
        return
    table = Table(Column(no_wrap=True), Column(overflow="fold"), show_header=False)
    for name in ("id", "state", "stage", "model", "percent"):
        table.add_row(name, str(getattr(job, name)))
    for area in job.areas:
        size = "" if area.area is None else f"  {area.area:,.0f} {area.unit}"
        table.add_row(area.name, f"{area.px:,} px{size}")
    if job.error:
        table.add_row("[red]error[/]", f"{job.error.detail} ({job.error.code})")
    for name, link in job.links.items():
        table.add_row(name, link if "://" in link else f"{server}{link}")
    out.print(table)


def print_jobs(jobs: Sequence[Job], as_json: bool) -> None:
    if as_json:
        out.print(json.dumps([job.raw for job in jobs]), soft_wrap=True, markup=False)
        return
    whole = [Column(name, no_wrap=True) for name in ("job", "state", "%")]
    table = Table(*whole, Column("model", overflow="fold"), Column("file", overflow="fold"), box=SIMPLE_HEAD)
    for job in jobs:
        table.add_row(job.id, _where(job), f"{job.percent:.0f}", job.model, job.file_name)
    out.print(table)


def _where(job: Job) -> str:
    return job.stage if job.state == "running" else job.state


def _pace(job: Job) -> str:
    rate = f"{job.rate_mp_per_s:.2f} MP/s" if job.rate_mp_per_s else ""
    return " ".join(part for part in (rate, f"{job.eta_s:.0f} s left" if job.eta_s else "") if part)
