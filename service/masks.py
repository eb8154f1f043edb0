"""`/jobs/{id}/mask.zarr/...` and `/jobs/{id}/mask.ozx`: published results, as raw Zarr and in one file.

Only what is published is served. Before that the answer is 409 and never 404: to a Zarr client 404 means an absent
chunk, which it would fill with no-data without a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Request, Response
from fastapi import Path as PathParameter
from fastapi.responses import StreamingResponse

from gigamask.errors import Conflict, NotFound
from gigamask.job import State
from gigamask.pyramid.ozx import ozx_stream
from gigamask.queue.record import read_record
from service.files import send_file
from service.parts import Parts, PartsDep
from service.schemas import ProblemView

# A published result never changes, and its URL holds a random id. Private: its URL alone shows it.
CACHED = {"Cache-Control": "private, max-age=31536000, immutable, no-transform"}
JSON_NAMES = ("zarr.json",)

router = APIRouter(tags=["masks"])

JobId = Annotated[str, PathParameter(description="Id of the job.")]
Answers = dict[int | str, dict[str, Any]]
PROBLEMS: Answers = {
    404: {"model": ProblemView, "description": "No such job, or no such key: for a chunk, that it holds no data."},
    409: {"model": ProblemView, "description": "The job has not succeeded (yet)."},
}
KEY_ANSWERS: Answers = {
    200: {"content": {"application/octet-stream": {}, "application/json": {}}, "description": "The whole value."},
    206: {"description": "The bytes asked for (one range; a suffix range too)."},
    304: {"description": "Not changed (If-None-Match)."},
    416: {"model": ProblemView, "description": "The range is outside the value."},
}
OZX_ANSWERS: Answers = {
    200: {"content": {"application/zip": {}}, "description": "An OME-Zarr in a ZIP (NGFF RFC-9)."},
}


@router.head("/jobs/{job_id}/mask.zarr/{key:path}", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/mask.zarr/{key:path}",
    summary="One key of the result's Zarr store",
    response_class=Response,
    responses=KEY_ANSWERS | PROBLEMS,
)
def read_key(job_id: JobId, key: str, request: Request, parts: PartsDep) -> Response:
    """Open the store itself: `zarr.open("http://.../jobs/{id}/mask.zarr")`, or give that URL to napari or Viv."""
    path = find_key(published_mask(job_id, parts), key)
    media_type = "application/json" if path.name in JSON_NAMES else "application/octet-stream"
    return send_file(request, path, CACHED, media_type)


@router.head("/jobs/{job_id}/mask.ozx", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/mask.ozx",
    summary="The result in one file",
    response_class=Response,
    responses=OZX_ANSWERS | PROBLEMS,
)
def read_ozx(job_id: JobId, request: Request, parts: PartsDep) -> Response:
    """The OME-Zarr, stored without further compression in a ZIP64 that is made while it is sent."""
    root = published_mask(job_id, parts)
    stream = ozx_stream(root)
    name = attachment(f"{base_name(job_id, parts)}.ozx")
    headers = CACHED | {"Content-Disposition": name, "Content-Length": str(len(stream))}
    blocks: Iterator[bytes] = iter(()) if request.method == "HEAD" else stream
    return StreamingResponse(blocks, headers=headers, media_type="application/zip")


def published_mask(job_id: str, parts: Parts) -> Path:
    """Asks no Redis: what is published is there. Raises UnknownJob, or Conflict for a job without a result."""
    root = parts.store.mask_zarr(job_id)
    if root.is_dir():
        return root
    job = parts.jobs.get(job_id)
    if job.state is State.SUCCEEDED:
        raise Conflict("the job has succeeded; its result was removed since")
    raise Conflict(f"the job is {job.state}; its mask is there once it has succeeded")


def find_key(root: Path, key: str) -> Path:
    """The file of a Zarr key, inside `root` also after links are followed. Raises NotFound."""
    parts = key.split("/")
    if all(part not in ("", ".", "..") and "\0" not in part and "\\" not in part for part in parts):
        try:
            path = root.joinpath(*parts).resolve(strict=True)
        except (OSError, RuntimeError):  # absent, or a name too long, or a loop of links
            path = root
        if path.is_file() and path.is_relative_to(root.resolve()):
            return path
    raise NotFound(f"no key {key!r}; the root's metadata is at 'zarr.json'")


def base_name(job_id: str, parts: Parts) -> str:
    """`slide-model`: what a file of a published result is called. Asks Redis only where there is no record."""
    job = read_record(parts.store.job_record(job_id)) or parts.jobs.get(job_id)
    return f"{PurePosixPath(job.file_name).stem}-{job.model}"


def attachment(name: str) -> str:
    """RFC 6266: an ASCII name for all, the real one for whoever understands `filename*`."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
