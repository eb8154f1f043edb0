"""A file to a service by tus 1.0.0, piece by piece, and on from where it was after whatever broke; then the job.

The service is asked for the job before a byte is sent: it refuses a model or an option that is wrong at once, and else
says how far the upload is. The same question at the end gets the job.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from gigamask.client.effects import Answer, Broken, FilePiece, Operation, Request, Send, Sleep, accepted, refusal
from gigamask.client.errors import FileChanged, Refused
from gigamask.client.patience import PASSING, Patience, send_patiently
from gigamask.client.remembered import FileIdentity, Memory
from gigamask.client.views import Job, read_job

TUS = {"Tus-Resumable": "1.0.0"}
PIECE_TYPE = "application/offset+octet-stream"
PIECE_BYTES = 16 * 1024**2
SYNC_TIMEOUT_S = 600.0  # a service that takes a file over syncs all of it to its disk

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A file on its way. progress: told (bytes there, bytes in all)."""

    file: FileIdentity
    memory: Memory
    progress: Progress
    piece_bytes: int = PIECE_BYTES


def submit_file(outgoing: Outgoing, asked: dict[str, Any], patience: Patience) -> Operation[Job]:
    """asked: model and options. Raises Refused, Unreachable, FileChanged."""
    known = outgoing.memory.recall()
    upload_id: str = known or (yield from _create(outgoing, patience))
    try:
        while True:
            answer = yield from send_patiently(_segment({"upload": upload_id} | asked), patience)
            if answer.status < 400:
                return _taken(answer, outgoing)
            refused = refusal(answer)
            if refused.code == "upload_used":
                return (yield from _submit_image(upload_id, asked, outgoing, patience))
            if refused.code in ("unknown_upload", "upload_expired") and known:
                known, upload_id = None, (yield from _create(outgoing, patience))
            elif refused.code == "upload_unfinished":
                yield from _send_pieces(outgoing, upload_id, int(refused.members["offset"]), patience)
            else:
                raise refused
    except Refused as exc:
        if exc.status in (400, 404, 422) and not known:
            yield from _give_up(outgoing, upload_id)
        raise


def _taken(answer: Answer, outgoing: Outgoing) -> Job:
    outgoing.memory.forget()
    outgoing.progress(outgoing.file.size, outgoing.file.size)
    return read_job(answer.json())


def _segment(body: dict[str, Any]) -> Request:
    return Request("POST", "/segment", json=body, read_timeout_s=SYNC_TIMEOUT_S)


def _submit_image(image_id: str, asked: dict[str, Any], outgoing: Outgoing, patience: Patience) -> Operation[Job]:
    """The upload is an image: either an answer was lost, whose job is there, or the queue did not take the job.

    Looked up before each attempt, so that this question's own lost answer makes no second job either.
    """
    while True:
        listed = accepted((yield from send_patiently(Request("GET", "/jobs", params={"limit": "200"}), patience)))
        for job in map(read_job, listed.member("jobs")):
            if (job.image_id, job.model) == (image_id, asked["model"]):
                outgoing.memory.forget()
                return job
        try:
            answer: Answer = yield Send(_segment({"image": image_id} | asked))
        except Broken as exc:
            failure = exc.failure
        else:
            if answer.status not in PASSING:
                return _taken(accepted(answer), outgoing)
            failure = refusal(answer)
        yield Sleep(patience.pause_s(failure))


def _create(outgoing: Outgoing, patience: Patience) -> Operation[str]:
    """-> the id of a new upload."""
    name = base64.b64encode(outgoing.file.path.name.encode()).decode()
    headers = TUS | {"Upload-Length": str(outgoing.file.size), "Upload-Metadata": f"filename {name}"}
    answer = accepted((yield from send_patiently(Request("POST", "/uploads", headers), patience)))
    upload_id = answer.header("location").rstrip("/").rsplit("/", 1)[1]
    outgoing.memory.keep(upload_id)
    return upload_id


def _give_up(outgoing: Outgoing, upload_id: str) -> Operation[None]:
    """Nothing stays behind of an upload that was refused; where that cannot be said, it expires."""
    outgoing.memory.forget()
    try:
        yield Send(Request("DELETE", f"/uploads/{upload_id}", TUS))
    except Broken:
        return


def _send_pieces(outgoing: Outgoing, upload_id: str, offset: int, patience: Patience) -> Operation[None]:
    while offset < outgoing.file.size:
        _require_unchanged(outgoing.file)
        outgoing.progress(offset, outgoing.file.size)
        before, offset = offset, (yield from _send_piece(outgoing, upload_id, offset, patience))
        if offset > before:
            patience.renew()
    _require_unchanged(outgoing.file)
    outgoing.progress(offset, outgoing.file.size)


def _require_unchanged(file: FileIdentity) -> None:
    if FileIdentity.of(file.path) != file:
        raise FileChanged(f"{file.path} was changed while it was sent")


def _send_piece(outgoing: Outgoing, upload_id: str, offset: int, patience: Patience) -> Operation[int]:
    """-> the offset after it: also what a broken connection brought there counts."""
    try:
        answer: Answer = yield Send(_patch(outgoing, upload_id, offset))
    except Broken as exc:
        failure = exc.failure
    else:
        if answer.status < 400:
            return _offset(answer)
        failure = refusal(answer)
        if answer.status not in {*PASSING, 409}:
            raise failure
    yield Sleep(patience.pause_s(failure))
    asked = Request("HEAD", f"/uploads/{upload_id}", TUS)
    return _offset(accepted((yield from send_patiently(asked, patience))))


def _offset(answer: Answer) -> int:
    text = answer.header("upload-offset")
    if not (text.isascii() and text.isdigit()):
        raise Refused("bad_answer", f"an offset is a number of bytes, not {text[:40]!r}", answer.status)
    return int(text)


def _patch(outgoing: Outgoing, upload_id: str, offset: int) -> Request:
    sent, total = offset, outgoing.file.size

    def on_sent(size: int) -> None:
        nonlocal sent
        sent += size
        outgoing.progress(sent, total)

    length = min(outgoing.piece_bytes, total - offset)
    headers = TUS | {"Upload-Offset": str(offset), "Content-Type": PIECE_TYPE}
    piece = FilePiece(outgoing.file.path, offset, length, on_sent)
    return Request("PATCH", f"/uploads/{upload_id}", headers, piece=piece, read_timeout_s=SYNC_TIMEOUT_S)
