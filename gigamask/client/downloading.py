"""A file of a result to disk: by ranges, so that a broken transfer goes on where it was, also in another process.

    <to>.part         what is there so far
    <to>.part.json    of which version of the file (its ETag)

`If-Range` asks for the rest only of that version; where the service has another one, it sends all of it and the part is
begun again. The file takes its name once its length is right and it is synced.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, NoReturn

from gigamask.client.effects import Answer, Broken, Do, Open, Operation, Read, Request, Shut, Sleep, refusal
from gigamask.client.patience import PASSING, Patience

LONGEST_WAIT_S = 30.0
_CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+)")

Progress = Callable[[int, int | None], None]


@dataclass(frozen=True, slots=True)
class Download:
    """path, params: of the file. progress: told (bytes there, bytes in all; None while unknown or being built)."""

    path: str
    to: Path
    params: Mapping[str, str]
    progress: Progress

    @property
    def part(self) -> Path:
        return self.to.with_name(self.to.name + ".part")

    @property
    def note(self) -> Path:
        return self.to.with_name(self.to.name + ".part.json")


def fetch_file(download: Download, patience: Patience) -> Operation[Path]:
    """-> the file. Waits while the service makes it. Raises Refused, Unreachable."""
    yield Do(lambda: download.to.parent.mkdir(parents=True, exist_ok=True))
    whole = False
    while not whole:
        try:
            whole = yield from _fetch_some(download, patience)
        except Broken as exc:
            yield Sleep(patience.pause_s(exc.failure))
    yield Do(lambda: _publish(download))
    return download.to


def _fetch_some(download: Download, patience: Patience) -> Operation[bool]:
    """One request. -> whether the file is whole; else ask again. Raises Broken, Refused."""
    etag, have = yield Do(lambda: _begun(download))
    headers = {"Accept-Encoding": "identity"}
    headers |= {"Range": f"bytes={have}-", "If-Range": etag} if have else {}
    answer: Answer = yield Open(Request("GET", download.path, headers, download.params))
    patience.met = True
    if answer.status == 202:
        patience.renew()
        return (yield from _wait_for_it(download, answer))
    if answer.status == 416:  # all of it is there already, or it is another file
        yield Shut()
        return (yield from _judge_whole(download, answer, have))
    if answer.status >= 400:
        yield from _refused(answer)
    start, total = _span(answer)
    if start not in (0, have):
        yield Shut()
        raise Broken(f"{download.path}: bytes from {have:,} on were asked for, and answered from {start:,} on")
    return (yield from _receive(download, answer, start, total, patience))


def _wait_for_it(download: Download, answer: Answer) -> Operation[bool]:
    yield Shut()
    download.progress(0, None)
    text = answer.headers.get("retry-after", "")
    yield Sleep(min(LONGEST_WAIT_S, float(text)) if text.isdigit() else 1.0)
    return False


def _judge_whole(download: Download, answer: Answer, have: int) -> Operation[bool]:
    if answer.headers.get("content-range") == f"bytes */{have}" and have:
        return True
    yield Do(lambda: _forget(download))
    return False


def _refused(answer: Answer) -> Operation[NoReturn]:
    content = bytearray()
    while piece := (yield Read()):
        content += piece
    told = refusal(Answer(answer.status, answer.headers, bytes(content)))
    raise Broken(told.code, told) if answer.status in PASSING else told


def _receive(download: Download, answer: Answer, start: int, total: int | None, patience: Patience) -> Operation[bool]:
    """The body to the part, from `start` on. Whatever came before the connection broke is kept."""
    stream: BinaryIO = yield Do(lambda: _open_part(download, start, answer.headers.get("etag", "")))
    there = start
    try:
        while piece := (yield Read()):
            there += yield Do(partial(stream.write, piece))
            patience.renew()
            download.progress(there, total)
    finally:
        stream.close()
    if total is not None and there != total:
        raise Broken(f"{download.path} ended at {there:,} of {total:,} bytes")
    return True


def _span(answer: Answer) -> tuple[int, int | None]:
    """-> the first byte of the answer, and the bytes of the whole file."""
    found = _CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
    if answer.status == 206 and found:
        return int(found[1]), int(found[2])
    length = answer.headers.get("content-length", "")
    return 0, int(length) if length.isdigit() else None


def _begun(download: Download) -> tuple[str, int]:
    """-> the version and the bytes of a part that can be gone on with."""
    try:
        etag = str(json.loads(download.note.read_text())["etag"])
        return (etag, download.part.stat().st_size) if etag else ("", 0)
    except (OSError, ValueError, KeyError):
        return "", 0


def _open_part(download: Download, start: int, etag: str) -> BinaryIO:
    """Its version is noted before the first byte. A weak ETag says nothing about bytes (RFC 9110, 8.8.1)."""
    if start == 0:
        _forget(download)
        download.note.write_text(json.dumps({"etag": "" if etag.startswith("W/") else etag}))
    stream = download.part.open("r+b" if start else "wb")
    stream.seek(start)
    return stream


def _forget(download: Download) -> None:
    for path in (download.part, download.note):
        with suppress(FileNotFoundError):
            path.unlink()


def _publish(download: Download) -> None:
    with download.part.open("rb+") as stream:
        os.fsync(stream.fileno())
    download.part.replace(download.to)
    download.note.unlink(missing_ok=True)
