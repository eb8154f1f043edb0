"""`/jobs/{id}/mask-0.4.zarr/...`: a published result as OME-Zarr 0.4 in Zarr v2. It lies nowhere: keys are made."""

from __future__ import annotations

import hashlib
from typing import Any

from fastapi import APIRouter, Request, Response

from gigamask.errors import NotFound
from service.files import is_current
from service.masks import CACHED, PROBLEMS, JobId, published_mask
from service.parts import PartsDep

router = APIRouter(tags=["masks"])

KEY_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}, "application/json": {}}, "description": "The whole value."},
    304: {"description": "Not changed (If-None-Match)."},
}


@router.head("/jobs/{job_id}/mask-0.4.zarr/{key:path}", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/mask-0.4.zarr/{key:path}",
    summary="One key of the result's Zarr v2 store",
    response_class=Response,
    responses=KEY_ANSWERS | PROBLEMS,
)
def read_old_key(job_id: JobId, key: str, request: Request, parts: PartsDep) -> Response:
    """OME-Zarr 0.4, for tools that read no Zarr v3; made of the stored shards when it is asked for."""
    from gigamask.exports.zarr2 import read_key

    value = read_key(published_mask(job_id, parts), key)
    if value is None:
        raise NotFound(f"no key {key!r}; the root's metadata is at '.zgroup' and '.zattrs'")
    headers = CACHED | {"ETag": f'"{hashlib.sha256(value).hexdigest()[:32]}"'}
    if is_current(request.headers.get("if-none-match"), headers["ETag"]):
        return Response(status_code=304, headers=headers)
    media_type = "application/json" if key.rpartition("/")[2].startswith(".z") else "application/octet-stream"
    if request.method == "HEAD":
        return Response(headers=headers | {"Content-Length": str(len(value))}, media_type=media_type)
    return Response(value, headers=headers, media_type=media_type)
