"""The client's core without a network: answers are made up, pauses are counted and not slept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from gigamask.client import FileChanged, Refused, Unreachable
from gigamask.client.downloading import Download, fetch_file
from gigamask.client.effects import (
    Answer,
    Broken,
    Do,
    Effect,
    Open,
    Operation,
    Read,
    Send,
    Sleep,
    Tell,
    advance,
    refusal,
)
from gigamask.client.following import EventParser, follow
from gigamask.client.patience import LONGEST_PAUSE_S, Patience, send_patiently
from gigamask.client.remembered import FileIdentity, Memory, memory_of
from gigamask.client.uploading import Outgoing, submit_file
from gigamask.client.views import read_job

JOB = {
    "id": "j", "state": "queued", "stage": "ingest", "percent": 0.0, "model": "land", "image_id": "u",
    "file_name": "a.tif", "regions": {"done": 0, "skipped": 0, "total": 0}, "areas": [], "links": {}, "error": None,
    "created_at": "2026-01-01T12:00:00Z",
}  # fmt: skip


def told(status: int, body: Any = None, **headers: str) -> Answer:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, names, json.dumps(body).encode() if body is not None else b"")


def problem(status: int, code: str, **more: Any) -> Answer:
    return told(status, {"code": code, "detail": "so it is", "status": status, "title": "t"} | more)


class Played:
    """Runs an operation on made-up outcomes, one for each Send, Open or Read; notes what was asked."""

    def __init__(self, operation: Operation[Any], outcomes: Iterator[Any]) -> None:
        self.asked: list[str] = []
        self.headers: list[Mapping[str, str]] = []
        self.slept_s: list[float] = []
        self.shown: list[Any] = []
        self._outcomes = outcomes
        try:
            effect = next(operation)
            while True:
                effect = advance(operation, self._become(effect))
        except StopIteration as end:
            self.result = end.value

    def _become(self, effect: Effect) -> Any:
        if isinstance(effect, Send | Open):
            self.asked.append(f"{effect.request.method} {effect.request.path}")
            self.headers.append(effect.request.headers)
            return next(self._outcomes)
        if isinstance(effect, Read):
            return next(self._outcomes)
        if isinstance(effect, Sleep):
            self.slept_s.append(effect.seconds)
        if isinstance(effect, Tell):
            self.shown.append(effect.value)
        return effect.act() if isinstance(effect, Do) else None


# -- patience


def test_a_service_that_never_answered_is_told_at_once() -> None:
    from gigamask.client.effects import Request

    with pytest.raises(Unreachable, match="gigamask up"):
        Played(send_patiently(Request("GET", "/jobs"), Patience(100)), iter([Broken("refused")]))


def test_pauses_grow_and_end_with_the_last_failure() -> None:
    patience, pauses = Patience(200.0, met=True), []
    with pytest.raises(Refused, match="last"):
        while True:
            pauses.append(patience.pause_s(Refused("x", "last", 503)))
    assert 200 <= sum(pauses) <= 200 + LONGEST_PAUSE_S
    assert pauses[0] < 0.3 < 1 < pauses[5]
    assert max(pauses) <= LONGEST_PAUSE_S


def test_progress_renews_patience() -> None:
    patience = Patience(1.0, met=True)
    for _ in range(50):
        patience.pause_s(Unreachable("x"))
        patience.renew()


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (problem(404, "unknown_job"), "unknown_job"),
        (Answer(502, {}, b"<html>"), "http_502"),
        (told(500, []), "http_500"),
    ],
)
def test_a_refusal_is_told_whoever_told_it(answer: Answer, code: str) -> None:
    assert (refusal(answer).code, refusal(answer).status) == (code, answer.status)
    assert refusal(problem(409, "x", offset=7)).members == {"offset": 7}


# -- uploads


@pytest.fixture
def outgoing(tmp_path: Path) -> Outgoing:
    path = tmp_path / "a.tif"
    path.write_bytes(b"0123456789")
    return Outgoing(FileIdentity.of(path), Memory(None), lambda _there, _all: None, piece_bytes=6)


CREATED = told(201, location="/uploads/u")
UNFINISHED = problem(409, "upload_unfinished", offset=0, length=10)


def submit(outgoing: Outgoing, *outcomes: Any) -> Played:
    asked = {"model": "land", "options": {}}
    return Played(submit_file(outgoing, asked, Patience(100)), iter(outcomes))


def patched(offset: int) -> Answer:
    return told(204, upload_offset=str(offset))


def test_a_file_is_created_asked_about_sent_and_submitted(outgoing: Outgoing) -> None:
    played = submit(outgoing, CREATED, UNFINISHED, patched(6), patched(10), told(202, JOB))
    assert played.asked == ["POST /uploads", "POST /segment", *["PATCH /uploads/u"] * 2, "POST /segment"]
    assert played.result.id == "j"


def test_a_wrong_model_is_refused_before_a_byte_is_sent(outgoing: Outgoing) -> None:
    with pytest.raises(Refused, match="so it is"):
        submit(outgoing, CREATED, problem(404, "unknown_model"), told(204))


@pytest.mark.parametrize(
    "failure", [Broken("cut"), problem(503, "x"), problem(423, "upload_locked"), problem(409, "wrong_offset")]
)
def test_after_a_failure_the_service_says_where_to_go_on(outgoing: Outgoing, failure: Any) -> None:
    head = told(200, upload_offset="3")
    played = submit(outgoing, CREATED, UNFINISHED, failure, head, patched(9), patched(10), told(202, JOB))
    assert played.asked[2:6] == ["PATCH /uploads/u", "HEAD /uploads/u", "PATCH /uploads/u", "PATCH /uploads/u"]
    assert len(played.slept_s) == 1


def test_an_upload_that_expired_is_begun_again(outgoing: Outgoing, tmp_path: Path) -> None:
    with memory_of(outgoing.file, "s", tmp_path / "memory") as memory:
        memory.keep("old")
        remembering = Outgoing(outgoing.file, memory, outgoing.progress, 10)
        played = submit(remembering, problem(410, "upload_expired"), CREATED, UNFINISHED, patched(10), told(202, JOB))
    assert played.asked[:2] == ["POST /segment", "POST /uploads"]
    assert not list((tmp_path / "memory").iterdir())


def test_a_lost_answer_leads_to_the_job_and_not_to_a_second_one(outgoing: Outgoing) -> None:
    used, listed = problem(409, "upload_used", image="u"), told(200, {"jobs": [JOB], "next": None})
    played = submit(outgoing, CREATED, UNFINISHED, patched(10), Broken("cut"), used, listed)
    assert played.asked[-2:] == ["POST /segment", "GET /jobs"]
    assert played.result.id == "j"


def test_an_upload_that_became_an_image_without_a_job_is_submitted_as_one(outgoing: Outgoing) -> None:
    used, listed = problem(409, "upload_used", image="u"), told(200, {"jobs": [], "next": None})
    played = submit(
        outgoing, CREATED, UNFINISHED, patched(10), problem(503, "queue_unavailable"), used, listed, told(202, JOB)
    )
    assert played.asked[-1] == "POST /segment"
    assert played.result.id == "j"


def test_the_lost_answer_of_that_makes_no_second_job_either(outgoing: Outgoing) -> None:
    used, none = problem(409, "upload_used", image="u"), told(200, {"jobs": [], "next": None})
    listed = told(200, {"jobs": [JOB], "next": None})
    played = submit(outgoing, CREATED, UNFINISHED, patched(10), Broken("cut"), used, none, Broken("cut"), listed)
    assert played.asked[-3:] == ["GET /jobs", "POST /segment", "GET /jobs"]
    assert played.result.id == "j"


def test_a_file_that_changes_with_its_last_piece_is_not_submitted(outgoing: Outgoing) -> None:
    def outcomes() -> Iterator[Any]:
        yield from (CREATED, UNFINISHED, patched(6))
        outgoing.file.path.write_bytes(b"012345____, and more")
        yield from (patched(10), told(202, JOB))

    asked = {"model": "land", "options": {}}
    with pytest.raises(FileChanged):
        Played(submit_file(outgoing, asked, Patience(100)), outcomes())


@pytest.mark.parametrize("answers", [[told(200, {})], [CREATED, told(202, {})], [CREATED, UNFINISHED, told(204)]])
def test_who_is_no_gigamask_is_told_so(outgoing: Outgoing, answers: list[Answer]) -> None:
    with pytest.raises(Refused) as refused:
        submit(outgoing, *answers)
    assert refused.value.code == "bad_answer"


def test_two_that_send_the_same_file_have_an_upload_each(outgoing: Outgoing, tmp_path: Path) -> None:
    with memory_of(outgoing.file, "s", tmp_path) as first, memory_of(outgoing.file, "s", tmp_path) as second:
        first.keep("u1")
        second.keep("u2")
        assert (first.recall(), second.recall()) == ("u1", None)
    with memory_of(outgoing.file, "s", tmp_path) as later, memory_of(outgoing.file, "t", tmp_path) as elsewhere:
        assert (later.recall(), elsewhere.recall()) == ("u1", None)


# -- events


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_the_same_however_the_stream_is_cut(size: int) -> None:
    head = ': hello\nretry: 250\n\nid: 5\nevent: job\ndata: {"a":\ndata: "\u00fc"}\r\n\r\n'
    stream = (head + "\ndata: plain\n\nevent: cut\n").encode()
    parser = EventParser()
    events = [e for start in range(0, len(stream), size) for e in parser.feed(stream[start : start + size])]
    assert [(e.id, e.name, e.data) for e in events] == [("5", "job", '{"a":\n"\u00fc"}'), ("5", "message", "plain")]
    assert (parser.retry_s, parser.last_id) == (0.25, "5")


STREAM = told(200, content_type="text/event-stream; charset=utf-8")


def event(number: int, **changes: Any) -> bytes:
    return f"id: {number}\nevent: job\ndata: {json.dumps(JOB | changes)}\n\n".encode()


def test_a_stream_that_broke_is_taken_up_where_it_was() -> None:
    done = event(3, state="succeeded")
    played = Played(
        follow("j", Patience(9)), iter([STREAM, event(1), Broken("cut"), STREAM, event(2, percent=5.0) + done])
    )
    assert [job.percent for job in played.shown] == [0.0, 5.0, 0.0]
    assert [headers.get("Last-Event-ID") for headers in played.headers] == [None, "1"]
    assert played.result.succeeded


@pytest.mark.parametrize(
    "first", [[told(404, {"code": "not_found"})], [STREAM, b""] * 2, [told(200, {}), told(200, {})][:1]]
)
def test_where_no_events_come_through_the_service_is_asked(first: list[Any]) -> None:
    asked = [told(200, JOB), told(200, JOB), told(200, JOB | {"state": "failed"})]
    played = Played(follow("j", Patience(9)), iter([*first, *asked]))
    assert played.asked[-3:] == ["GET /jobs/j"] * 3
    assert [job.state for job in played.shown] == ["queued", "failed"]


# -- downloads


def download(to: Path, outcomes: list[Any], patience: Patience | None = None) -> Played:
    asked = Download("/f", to, {}, lambda _there, _all: None)
    return Played(fetch_file(asked, patience or Patience(100)), iter(outcomes))


def sent(status: int, etag: str, span: str = "", length: int = 6) -> Answer:
    return told(status, etag=etag, content_length=str(length), **({"content_range": span} if span else {}))


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ([sent(206, '"a"', "bytes 2-5/6", 4), b"cdef", b""], b"abcdef"),
        ([sent(200, '"b"'), b"uvw", b"xyz", b""], b"uvwxyz"),
    ],
    ids=["the same version", "another version"],
)
def test_a_download_goes_on_unless_the_file_is_another(tmp_path: Path, second: list[Any], expected: bytes) -> None:
    to = tmp_path / "f"
    played = download(to, [sent(200, '"a"'), b"ab", Broken("cut"), *second])
    assert to.read_bytes() == expected
    assert [path.name for path in tmp_path.iterdir()] == ["f"]
    assert played.asked == ["GET /f"] * 2
    assert (played.headers[1]["Range"], played.headers[1]["If-Range"]) == ("bytes=2-", '"a"')


def test_a_download_that_ends_early_is_not_taken_for_whole(tmp_path: Path) -> None:
    download(tmp_path / "f", [sent(200, '"a"'), b"abcd", b"", sent(206, '"a"', "bytes 4-5/6", 2), b"ef", b""])
    assert (tmp_path / "f").read_bytes() == b"abcdef"


def test_bytes_that_nobody_asked_for_are_not_taken(tmp_path: Path) -> None:
    other, right = sent(206, '"a"', "bytes 3-5/6", 3), sent(206, '"a"', "bytes 2-5/6", 4)
    download(tmp_path / "f", [sent(200, '"a"'), b"ab", Broken("cut"), other, right, b"cdef", b""])
    assert (tmp_path / "f").read_bytes() == b"abcdef"


def test_a_file_that_is_made_first_is_waited_for(tmp_path: Path) -> None:
    building = told(202, {"state": "building"}, retry_after="3")
    played = download(tmp_path / "f", [building, building, sent(200, '"a"'), b"abcdef", b""])
    assert played.slept_s == [3.0, 3.0]


def test_a_part_that_is_whole_already_is_taken(tmp_path: Path) -> None:
    (tmp_path / "f.part").write_bytes(b"abcdef")
    (tmp_path / "f.part.json").write_text('{"etag": "x"}')
    download(tmp_path / "f", [told(416, content_range="bytes */6")])
    assert (tmp_path / "f").read_bytes() == b"abcdef"


def test_a_refused_download_leaves_nothing(tmp_path: Path) -> None:
    refused = problem(404, "unknown_job")
    with pytest.raises(Refused):
        download(tmp_path / "f", [Answer(404, {}), refused.content, b""])
    assert not list(tmp_path.iterdir())


# -- views


def test_what_a_later_service_tells_is_kept_and_does_not_disturb() -> None:
    job = read_job(JOB | {"weather": "fine", "regions": {"done": 1, "skipped": 2, "total": 3, "lost": 0}})
    assert job.raw["weather"] == "fine"
    assert job.regions.total == 3
    assert job.created_at is not None and job.created_at.tzinfo is not None


def test_nothing_heavy_is_loaded_with_the_client() -> None:
    import subprocess
    import sys

    heavy = ("torch", "zarr", "numpy", "tensorstore", "fastapi", "redis", "pydantic")
    code = f"import gigamask.client, sys; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
