"""`/uploads`: resumable uploads by tus 1.0.0 (https://tus.io/protocols/resumable-upload): the protocol alone.

    OPTIONS  what is offered            HEAD    how far an upload is
    POST     creates one (maybe with    PATCH   goes on where it is
             its first bytes)           DELETE  gives it up

Extensions: creation, creation-with-upload, creation-defer-length, checksum, termination, expiration. Whatever arrived
before a connection broke is kept, so the client asks by HEAD and goes on. What lies on disk is `service.resumable`'s.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from email.utils import formatdate
from typing import Annotated, Any

import anyio
from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request, Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gigamask.errors import BadUpload, UploadLocked, UploadTooLarge
from service.claims import CLAIM_POLL_S, CLAIM_S, Claim
from service.parts import PartsDep, RootPath
from service.resumable import CHECKSUMS, Checksum, PieceWriter, ResumableUploads, Upload
from service.schemas import ProblemView

VERSION = "1.0.0"
EXTENSIONS = "creation,creation-with-upload,creation-defer-length,checksum,termination,expiration"
PIECE_TYPE = "application/offset+octet-stream"
BLOCK_BYTES = 1024**2
MAX_METADATA_CHARS = 8192
MAX_DIGITS = 30  # what is beyond any disk is too large (413), and not a mistake in writing
WATCH_S = 0.5  # how often a writer that waits for its client looks whether a newer request came
STALL_S = 120.0

REQUEST_HEADERS = [
    "Tus-Resumable", "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Offset", "Upload-Checksum",
    "X-HTTP-Method-Override", "X-Requested-With",
]  # fmt: skip
ANSWER_HEADERS = [
    "Tus-Resumable", "Tus-Version", "Tus-Extension", "Tus-Max-Size", "Tus-Checksum-Algorithm", "Upload-Offset",
    "Upload-Length", "Upload-Defer-Length", "Upload-Metadata", "Upload-Expires",
]  # fmt: skip


class TusFrame:
    """ASGI middleware: what the protocol wants of every request and answer under `/uploads`, refusals included."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not _is_tus(scope):
            await self._app(scope, receive, send)
            return

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Tus-Resumable"] = VERSION
            await send(message)

        await self._app(_with_method(scope), receive, send_marked)


def _is_tus(scope: Scope) -> bool:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    return bool(path == "/uploads" or path.startswith("/uploads/"))


def _with_method(scope: Scope) -> Scope:
    """A client that cannot send PATCH or DELETE says in a header that it means them."""
    meant = Headers(scope=scope).get("x-http-method-override", "").upper()
    return {**scope, "method": meant} if scope["method"] == "POST" and meant in ("PATCH", "DELETE") else scope


async def require_version(request: Request) -> None:
    told = request.headers.get("tus-resumable")
    if told != VERSION and request.method != "OPTIONS":
        raise HTTPException(412, f"expected Tus-Resumable: {VERSION}, got {told or 'none'}", {"Tus-Version": VERSION})


async def uploads_of(parts: PartsDep) -> ResumableUploads:
    return ResumableUploads(parts.store, parts.settings)


UploadsDep = Annotated[ResumableUploads, Depends(uploads_of)]

router = APIRouter(tags=["uploads"], dependencies=[Depends(require_version)])


def _answers(told: dict[int, str], **problems: str) -> dict[str, Any]:
    """Route arguments: what a route answers with. problems: `e404="..."`."""
    shared = {"e412": f"`Tus-Resumable` is not {VERSION}."}
    refusals = {
        int(name[1:]): {"model": ProblemView, "description": text} for name, text in (shared | problems).items()
    }
    (status, description), *_ = told.items()
    return {
        "status_code": status, "response_class": Response,
        "responses": {status: {"description": description}, **refusals},
    }  # fmt: skip


NOT_HERE = {"e404": "No such upload.", "e410": "It has expired."}
REFUSED_PIECE = {
    "e400": "A header is missing or makes no sense, or nothing arrived for a while.",
    "e413": "Beyond the upload's length, or over the limit.",
    "e460": "The checksum is another; the piece is thrown away.",
    "e507": "Not enough space; what had arrived is kept.",
}
LOCKED = {"e423": "A newer request goes on with the upload."}


@router.options("/uploads", summary="What of tus is offered", **_answers({204: "In the headers."}))
async def tell_options(uploads: UploadsDep) -> Response:
    headers = {"Tus-Version": VERSION, "Tus-Extension": EXTENSIONS, "Tus-Max-Size": str(uploads.limit_bytes)}
    return Response(status_code=204, headers=headers | {"Tus-Checksum-Algorithm": ",".join(CHECKSUMS)})


@router.post(
    "/uploads", summary="Begin a resumable upload", **_answers({201: "`Location` is the upload."}, **REFUSED_PIECE)
)
async def create(request: Request, uploads: UploadsDep, root_path: RootPath) -> Response:
    """`Upload-Length` (or `Upload-Defer-Length: 1`), `Upload-Metadata: filename BASE64`; a body is its first piece."""
    length, metadata = read_length(request.headers), request.headers.get("upload-metadata", "")
    deferred = request.headers.get("upload-defer-length")
    if deferred not in (None, "1") or (length is None) == (deferred is None):
        raise BadUpload("expected either Upload-Length: BYTES or Upload-Defer-Length: 1")
    with_piece, checksum = request.headers.get("content-type") == PIECE_TYPE, read_checksum(request.headers)
    upload = await run_sync(uploads.create, file_name_in(metadata), length, metadata)
    if with_piece:
        upload = await _take_first_piece(request, uploads, upload, checksum)
    headers = {"Location": f"{root_path}/uploads/{upload.id}"} | told_offset(upload)
    return Response(status_code=201, headers=headers)


@router.head(
    "/uploads/{upload_id}",
    summary="How far an upload is",
    **_answers({200: "`Upload-Offset` is where to go on."}, **NOT_HERE),
)
def tell_offset(upload_id: str, uploads: UploadsDep) -> Response:
    upload = uploads.find(upload_id)
    length = upload.info.length
    told = {"Upload-Defer-Length": "1"} if length is None else {"Upload-Length": str(length)}
    told |= {"Upload-Metadata": upload.info.metadata} if upload.info.metadata else {}
    return Response(headers={"Cache-Control": "no-store"} | told | told_offset(upload))


@router.patch(
    "/uploads/{upload_id}",
    summary="Go on with an upload",
    **_answers(
        {204: "`Upload-Offset` is the new one, and what it says is on disk."},
        **NOT_HERE, **REFUSED_PIECE, **LOCKED,
        e409="`Upload-Offset` is not where the upload ends; `offset` is.", e415=f"The body is not {PIECE_TYPE}.",
    ),
)  # fmt: skip
async def append(upload_id: str, request: Request, uploads: UploadsDep) -> Response:
    """What arrives before a connection breaks is kept, unless it has a checksum."""
    if request.headers.get("content-type") != PIECE_TYPE:
        raise HTTPException(415, f"expected {PIECE_TYPE}, got {request.headers.get('content-type') or 'none'}")
    offset = read_number(request.headers, "upload-offset")
    if offset is None:
        raise BadUpload("expected Upload-Offset: BYTES")
    length, checksum = read_length(request.headers), read_checksum(request.headers)
    async with locked(uploads, upload_id) as claim:
        await _take_piece(request, uploads, claim, (upload_id, offset, length, checksum))
    return Response(status_code=204, headers=told_offset(await run_sync(uploads.find, upload_id)))


@router.delete(
    "/uploads/{upload_id}", summary="Give an upload up", **_answers({204: "It is gone."}, **NOT_HERE, **LOCKED)
)
async def terminate(upload_id: str, uploads: UploadsDep) -> Response:
    async with locked(uploads, upload_id):
        await run_sync(uploads.remove, upload_id)
    return Response(status_code=204)


@router.options("/uploads/{upload_id}", include_in_schema=False)
async def tell_options_of_one(uploads: UploadsDep) -> Response:
    return await tell_options(uploads)


# -- a piece that arrives


async def _take_first_piece(
    request: Request, uploads: ResumableUploads, upload: Upload, checksum: Checksum | None
) -> Upload:
    """An upload whose first piece was refused or cut is removed: its client never heard where it is."""
    try:
        async with locked(uploads, upload.id) as claim:
            await _take_piece(request, uploads, claim, (upload.id, 0, None, checksum))
        return await run_sync(uploads.find, upload.id)
    except BaseException:
        with anyio.CancelScope(shield=True):
            await run_sync(uploads.remove, upload.id)
        raise


async def _take_piece(
    request: Request, uploads: ResumableUploads, claim: Claim, piece: tuple[str, int, int | None, Checksum | None]
) -> None:
    """Whatever ends it, the bytes that came are on disk when it does. Raises ClientDisconnect, UploadLocked, ..."""
    writer = await run_sync(uploads.open_piece, *piece)
    try:
        _refuse_early(request, writer)
        async for arrived in _body(request, claim):
            writer.hold(arrived)
            if writer.held_bytes >= BLOCK_BYTES:
                await run_sync(writer.flush)
        await run_sync(writer.commit)
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(writer.close)


def _refuse_early(request: Request, writer: PieceWriter) -> None:
    """Before a byte of the body is read. Raises UploadTooLarge."""
    announced = read_number(request.headers, "content-length") or 0
    if announced > writer.room_bytes:
        raise UploadTooLarge(f"the piece announces {announced:,} bytes; the upload takes {writer.room_bytes:,} more")


async def _body(request: Request, claim: Claim) -> AsyncIterator[bytes]:
    """Raises ClientDisconnect, BadUpload for a client that stalls, UploadLocked where a newer request goes on."""
    more, looked_s = True, time.monotonic()
    while more:
        message = await _next_message(request, claim)
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        more = message.get("more_body", False)
        yield message.get("body", b"")
        if time.monotonic() - looked_s > WATCH_S:  # also of a client that never pauses
            await run_sync(claim.require_newest)
            looked_s = time.monotonic()


async def _next_message(request: Request, claim: Claim) -> Message:
    until, arriving = time.monotonic() + STALL_S, asyncio.ensure_future(request.receive())
    try:
        while True:
            done, _ = await asyncio.wait({arriving}, timeout=WATCH_S)
            if done:
                return arriving.result()
            await run_sync(claim.require_newest)
            if time.monotonic() > until:
                raise BadUpload(f"nothing arrived for {STALL_S:.0f} s")
    finally:
        arriving.cancel()


@asynccontextmanager
async def locked(uploads: ResumableUploads, upload_id: str) -> AsyncIterator[Claim]:
    """Waits for an older writer to let go. Raises UploadLocked where it does not, UnknownUpload, ..."""
    claim = await run_sync(uploads.claim, upload_id)
    try:
        until = time.monotonic() + CLAIM_S
        while not await run_sync(claim.try_lock):
            if time.monotonic() > until:
                raise UploadLocked("another request writes to this upload and does not let go")
            await anyio.sleep(CLAIM_POLL_S)
        yield claim
    finally:
        claim.close()


# -- headers


def told_offset(upload: Upload) -> dict[str, str]:
    return {"Upload-Offset": str(upload.offset), "Upload-Expires": formatdate(upload.expires_at, usegmt=True)}


def read_number(headers: Headers, name: str) -> int | None:
    """None where it is absent. Raises BadUpload."""
    text = headers.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS):
        raise BadUpload(f"{name} is a number of bytes, not {text!r}")
    return int(text)


def read_length(headers: Headers) -> int | None:
    return read_number(headers, "upload-length")


def read_checksum(headers: Headers) -> Checksum | None:
    """`Upload-Checksum: sha1 <base64>`. Raises BadUpload."""
    text = headers.get("upload-checksum")
    if text is None:
        return None
    algorithm, _, digest = text.partition(" ")
    if algorithm not in CHECKSUMS:
        raise BadUpload(f"checksums are {' or '.join(CHECKSUMS)}, not {algorithm!r}")
    return Checksum(algorithm, _decoded(digest))


def file_name_in(metadata: str) -> str:
    """`key base64,key base64,...`; the name is under `filename`, or `name`. Empty where there is none."""
    if len(metadata) > MAX_METADATA_CHARS:
        raise BadUpload(f"Upload-Metadata has at most {MAX_METADATA_CHARS} characters")
    pairs = dict(pair.strip().partition(" ")[::2] for pair in metadata.split(",") if pair.strip())
    decoded = {key: _decoded(value) for key, value in pairs.items()}
    return (decoded.get("filename") or decoded.get("name") or b"").decode(errors="replace")


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError) as exc:
        raise BadUpload(f"expected base64, got {text!r}") from exc
