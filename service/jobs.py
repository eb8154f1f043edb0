"""`/jobs`: follow, list and cancel."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from gigamask.errors import GigamaskError
from gigamask.job import Job
from gigamask.manifest import ModelManifest, ModelShelf
from service.parts import Parts, PartsDep, RootPath
from service.schemas import JobListView, JobView, ProblemView, retry_after_s, view_job

MAX_PAGE = 200
MAX_CURSOR = 10**9

router = APIRouter(tags=["jobs"])

UNKNOWN: dict[int | str, dict[str, Any]] = {404: {"model": ProblemView, "description": "No such job."}}
FINAL: dict[int | str, dict[str, Any]] = {409: {"model": ProblemView, "description": "The job has ended already."}}


@router.get("/jobs", summary="The jobs, newest first")
def list_jobs(
    parts: PartsDep,
    root_path: RootPath,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE, description="Jobs on a page.")] = 50,
    cursor: Annotated[int, Query(ge=0, le=MAX_CURSOR, description="From `next`: jobs to pass over.")] = 0,
) -> JobListView:
    """`next` leads on. A job that is submitted meanwhile moves the others: one may be seen twice, none is missed."""
    found, end = parts.jobs.list(limit, cursor), cursor + limit
    following = f"{root_path}/jobs?limit={limit}&cursor={end}" if parts.jobs.count() > end else None
    model_of = lru_cache(lambda name: find_model(parts.shelf, name))
    views = [view_job(job, model_of(job.model), root_path) for job in found]
    return JobListView(jobs=views, next=following)


@router.get("/jobs/{job_id}", summary="How far a job is", responses=UNKNOWN)
def read_job(job_id: str, response: Response, parts: PartsDep, root_path: RootPath) -> JobView:
    """While it runs, `Retry-After` says in how many seconds it is worth asking again."""
    now = datetime.now(UTC)
    job = parts.jobs.get(job_id)
    wait_s = retry_after_s(job, now)
    response.headers["Cache-Control"] = "no-store"
    if wait_s is not None:
        response.headers["Retry-After"] = str(wait_s)
    return _view(parts, job, root_path)


@router.delete("/jobs/{job_id}", summary="Cancel a job", responses=UNKNOWN | FINAL)
def cancel_job(job_id: str, parts: PartsDep, root_path: RootPath) -> JobView:
    """Cancelled at once: workers drop what is left of it, and what was begun is removed. The image stays."""
    return _view(parts, parts.jobs.cancel(job_id), root_path)


def _view(parts: Parts, job: Job, root_path: str) -> JobView:
    return view_job(job, find_model(parts.shelf, job.model), root_path)


def find_model(shelf: ModelShelf, name: str) -> ModelManifest | None:
    """None for a model that was removed or broken since."""
    try:
        return shelf.manifest(name)
    except GigamaskError:
        return None
