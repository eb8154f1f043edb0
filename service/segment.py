"""`POST /segment`: an image comes in by one of two doors, a job goes out.

    multipart/form-data    the image itself, written to its place on disk as it arrives
    application/json       the id of an image that is already here, or of a finished upload (service/tus.py)

The body is read block by block. Each block is parsed and written in a thread before the next is taken from the socket,
so that memory stays flat and a slow disk slows the sender, not the service.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar, get_args

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from python_multipart.multipart import parse_options_header
from starlette.exceptions import HTTPException

from gigamask.errors import BadUpload, InvalidOption, QueueUnavailable, UploadTooLarge
from gigamask.job import Background, Job, Overlap, Resolution
from gigamask.manifest import ModelManifest
from gigamask.plan import REGION_SIDES_PX
from gigamask.queue.record import require_reading
from service.claims import locked
from service.multipart import FILE_FIELD, FormReader, Sink
from service.parts import Parts, PartsDep, RootPath
from service.problems import on_queue_unavailable
from service.resumable import ResumableUploads, require_whole
from service.schemas import JobView, ProblemView, SegmentOptions, SegmentRequest, retry_after_s, view_job
from service.uploads import PartialUpload

BLOCK_BYTES = 1024**2
FORM_BYTES = 1024**2  # what a form may have around its file
MAX_JSON_BYTES = 1024**2
STALL_S = 120.0
KEPT = "the queue does not answer; the upload is kept: name `image` in a JSON body to try again"

Body = TypeVar("Body", bound=BaseModel)

router = APIRouter(tags=["segment"])

_FORM_SCHEMA = {
    "type": "object",
    "required": [FILE_FIELD, "model"],
    "properties": {
        FILE_FIELD: {"type": "string", "format": "binary", "description": "The image."},
        "model": {"type": "string", "description": "As in GET /models. Sent first, it is checked before the file."},
        "pixel_size_um": {"type": "number"},
        "sample_range": {"type": "string", "description": "Two numbers, `0,4095`.", "examples": ["0,4095"]},
        "region_px": {"type": "integer", "enum": list(REGION_SIDES_PX)},
        "roi": {"type": "string", "description": "`x,y,width,height` in pixels, or GeoJSON."},
        "background": {"type": "string", "enum": list(get_args(Background))},
        "resolution": {"type": "string", "enum": list(get_args(Resolution))},
        "overlap": {"type": "string", "enum": list(get_args(Overlap))},
        "min_object_px": {"type": "integer", "minimum": 0},
        "probabilities": {"type": "boolean"},
    },
}
_JSON_SCHEMA = SegmentRequest.model_json_schema()
_JSON_SCHEMA["properties"]["options"] = _JSON_SCHEMA.pop("$defs")["SegmentOptions"]
_BODY = {
    "required": True,
    "content": {"multipart/form-data": {"schema": _FORM_SCHEMA}, "application/json": {"schema": _JSON_SCHEMA}},
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ProblemView, "description": text}
    for status, text in {
        400: "The form is broken or lacks a field.",
        404: "No such model, image or upload.",
        409: "The upload is not finished (`offset` and `length` tell), or is an image already (`image`).",
        410: "The upload has expired.",
        413: "Over the limit on an upload's size; told before the body is read where its length is given.",
        415: "Neither multipart/form-data nor application/json, or a compressed body.",
        422: "An option out of its range.",
        503: "The queue does not answer. A whole upload is kept; `image` is its id.",
        507: "Not enough space; nothing is kept.",
    }.items()
}


@router.post(
    "/segment",
    status_code=202,
    response_model=JobView,
    responses=_REFUSALS,
    openapi_extra={"requestBody": _BODY},
    summary="Segment an image",
)
async def segment(request: Request, parts: PartsDep, root_path: RootPath) -> Response:
    """Answers 202 as soon as the image lies on disk; `Location` is where to follow the job."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise HTTPException(415, "the body is taken as it is, without a Content-Encoding")
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind == b"multipart/form-data" and b"boundary" in options:
        return await _segment_upload(request, parts, root_path, options[b"boundary"])
    if kind == b"application/json":
        return await _segment_known(request, parts, root_path, await _read_request(request))
    raise HTTPException(
        415, f"expected multipart/form-data or application/json, got {kind.decode('latin-1') or 'none'}"
    )


def accepted(job: Job, model: ModelManifest, root_path: str) -> Response:
    view = view_job(job, model, root_path)
    headers = {"Location": view.links["self"], "Retry-After": str(retry_after_s(job, job.created_at) or 1)}
    return JSONResponse(view.model_dump(mode="json"), 202, headers)


# -- an image already here


async def _read_request(request: Request) -> SegmentRequest:
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_JSON_BYTES:
            raise UploadTooLarge(f"a JSON body has at most {MAX_JSON_BYTES} bytes")
    return _checked(SegmentRequest, _parse_json(bytes(body), "body"), "body")


async def _segment_known(request: Request, parts: Parts, root_path: str, asked: SegmentRequest) -> Response:
    try:
        job, model = await run_sync(_submit_known_image, parts, asked)
    except QueueUnavailable as exc:
        if asked.upload and parts.store.image(asked.upload).is_dir():
            return on_queue_unavailable(request, exc, KEPT, image=asked.upload)
        raise
    return accepted(job, model, root_path)


def _submit_known_image(parts: Parts, asked: SegmentRequest) -> tuple[Job, ModelManifest]:
    """Raises UnknownImage, UnknownUpload, UploadUnfinished, UploadUsed, UnknownModel, BadModel, InvalidOption."""
    model = parts.shelf.manifest(asked.model)
    check_options(asked.options, model)
    source = parts.store.image_source(asked.image) if asked.image else _finish_upload(parts, asked.upload or "")
    image_id = asked.image or asked.upload or ""
    if parts.store.image_zarr(image_id).is_dir():
        require_reading(parts.store, image_id, asked.options.job_options().read)
    return parts.jobs.submit(image_id, source.name, asked.model, asked.options.job_options()), model


def _finish_upload(parts: Parts, upload_id: str) -> Path:
    uploads = ResumableUploads(parts.store, parts.settings)
    require_whole(uploads.find(upload_id))
    parts.jobs.ping()
    with locked(uploads.claim(upload_id)):
        return uploads.finish(upload_id)


# -- an image that arrives


class UploadForm:
    """The fields and the file of one upload, checked as they come. Blocking: to be called in a thread."""

    def __init__(self, boundary: bytes, parts: Parts) -> None:
        self._parts = parts
        self._fields: dict[str, str] = {}
        self.upload = PartialUpload(parts.store, parts.settings)
        self.reader = FormReader(boundary, self._take_field, self._take_file)

    def submit(self) -> tuple[Job, ModelManifest]:
        """The body is whole: put the image into its place and queue the job."""
        self.reader.finish()
        if "model" not in self._fields:
            raise BadUpload("the form has no model: expected the fields 'file' and 'model'")
        model = self._parts.shelf.manifest(self._fields["model"])
        options = parse_options({k: v for k, v in self._fields.items() if k != "model"})
        check_options(options, model)
        self.upload.commit()
        return self._parts.jobs.submit(self.upload.id, self.upload.file_name, model.name, options.job_options()), model

    def _take_field(self, name: str, value: str) -> None:
        """What can be refused now is not paid for with the file's bytes."""
        if name == "model":
            self._parts.shelf.manifest(value)
        elif name in SegmentOptions.model_fields:
            parse_options({name: value}).job_options()
        else:
            fields = (FILE_FIELD, "model", *SegmentOptions.model_fields)
            raise BadUpload(f"no field is called {name!r}; the fields are {', '.join(fields)}")
        self._fields[name] = value

    def _take_file(self, client_name: str) -> Sink:
        self.upload.open(client_name)
        return self.upload.write


async def _segment_upload(request: Request, parts: Parts, root_path: str, boundary: bytes) -> Response:
    await run_sync(_refuse_early, request.headers.get("content-length"), parts)
    form, kept = UploadForm(boundary, parts), False
    try:
        async for block in blocks(request, form, parts.settings.max_upload_bytes + FORM_BYTES):
            await run_sync(form.reader.feed, block)
        job, model = await run_sync(form.submit)
        kept = True
        return accepted(job, model, root_path)
    except QueueUnavailable as exc:
        kept = True
        return on_queue_unavailable(request, exc, KEPT, image=form.upload.id)
    finally:
        if not kept:
            with anyio.CancelScope(shield=True):
                await run_sync(form.upload.discard)


def _refuse_early(content_length: str | None, parts: Parts) -> None:
    """Before a byte of the body is read. Raises UploadTooLarge, InsufficientStorage, QueueUnavailable."""
    length = int(content_length) if content_length and content_length.isdecimal() else 0
    limit = parts.settings.max_upload_bytes
    if length > limit + FORM_BYTES:
        raise UploadTooLarge(f"an upload has at most {limit:,} bytes; this one announces {length:,}")
    parts.store.require_free(length, parts.settings.min_free_bytes)
    parts.jobs.ping()


async def blocks(request: Request, form: UploadForm, limit: int) -> AsyncIterator[bytes]:
    """The body: large blocks inside the file, what has come outside it. Raises UploadTooLarge, BadUpload."""
    block, arrived = bytearray(), 0
    async for piece in _unstalled(request):
        arrived += len(piece)
        if arrived > limit:
            raise UploadTooLarge(f"a body has at most {limit:,} bytes; this one has more")
        block += piece
        if len(block) >= BLOCK_BYTES or not form.reader.in_file:
            yield bytes(block)
            block.clear()
    yield bytes(block)


async def _unstalled(request: Request) -> AsyncIterator[bytes]:
    pieces = request.stream()
    while True:
        try:
            with anyio.fail_after(STALL_S):
                piece = await anext(pieces, None)
        except TimeoutError as exc:
            raise BadUpload(f"nothing arrived for {STALL_S:.0f} s") from exc
        if piece is None:
            return
        yield piece


# -- options


def parse_options(fields: dict[str, str]) -> SegmentOptions:
    """Form fields are text: `sample_range` is `low,high`."""
    values: dict[str, Any] = dict(fields)
    if "sample_range" in values:
        values["sample_range"] = values["sample_range"].strip("[]() ").split(",")
    return _checked(SegmentOptions, values, "form")


def check_options(options: SegmentOptions, model: ModelManifest) -> None:
    """Raises InvalidOption for what a type cannot say."""
    options.job_options()
    side, low_high = options.region_px, options.sample_range
    if side is not None and (side not in REGION_SIDES_PX or side % model.tile_px):
        sides = [s for s in REGION_SIDES_PX if s % model.tile_px == 0]
        raise InvalidOption(f"region_px of {model.name} is one of {sides}, not {side}")
    if low_high is not None and not low_high[0] < low_high[1]:
        raise InvalidOption(f"sample_range is low,high with low < high, not {low_high[0]},{low_high[1]}")


def _parse_json(body: bytes, where: str) -> Any:
    """Refuses also lone surrogates, which nothing could write down again, and what is nested too deeply."""
    try:
        return from_json(body)
    except ValueError as exc:
        raise RequestValidationError([{"loc": (where,), "msg": "not JSON", "type": "json_invalid"}]) from exc


def _checked(kind: type[Body], values: Any, where: str) -> Body:
    try:
        return kind.model_validate(values)
    except ValidationError as exc:
        errors = [e | {"loc": (where, *e["loc"])} for e in exc.errors(include_url=False, include_context=False)]
        raise RequestValidationError(errors) from exc
