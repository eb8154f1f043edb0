"""A job as it goes on: server-sent events, taken up again where they broke, or questions where no events come through.

The stream is that of the HTML standard (section 9.2): `id`, `event`, `data`, `retry`; a line that begins with a colon
shows that the service lives. `Last-Event-ID` says what was heard last.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from gigamask.client.effects import (
    Answer,
    Broken,
    Open,
    Operation,
    Read,
    Request,
    Shut,
    Sleep,
    Tell,
    accepted,
)
from gigamask.client.patience import PASSING, Patience, send_patiently
from gigamask.client.views import Job, read_job

SILENCE_S = 45.0  # three heartbeats
DEAF_TRIES = 2  # streams that told nothing, in a row, before the service is asked instead
POLL_S, LONGEST_POLL_S = 0.5, 5.0


@dataclass(frozen=True, slots=True)
class Event:
    id: str
    name: str
    data: str


class EventParser:
    """Bytes, cut anywhere, become events. retry_s: how long the service asks to wait before another stream."""

    def __init__(self) -> None:
        self.last_id, self.retry_s = "", 1.0
        self._rest = b""
        self._name, self._data = "", list[str]()

    def restart(self) -> None:
        """Another stream begins: what the last one left half said is dropped."""
        self._rest, self._name, self._data = b"", "", []

    def feed(self, piece: bytes) -> Iterator[Event]:
        *lines, self._rest = (self._rest + piece).replace(b"\r\n", b"\n").split(b"\n")
        for line in lines:
            if line:
                self._take(line.decode(errors="replace"))
            else:
                yield from self._dispatch()

    def _take(self, line: str) -> None:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if field == "data":
            self._data.append(value)
        elif field == "event":
            self._name = value
        elif field == "id" and "\0" not in value:
            self.last_id = value
        elif field == "retry" and value.isascii() and value.isdigit():
            self.retry_s = int(value) / 1000

    def _dispatch(self) -> Iterator[Event]:
        name, data = self._name or "message", self._data
        self._name, self._data = "", []
        if data:
            yield Event(self.last_id, name, "\n".join(data))


def follow(job_id: str, patience: Patience) -> Operation[Job]:
    """Tells the job at each change; -> the job at its end. Raises Refused, Unreachable."""
    parser, deaf = EventParser(), 0
    while deaf < DEAF_TRIES:
        heard, job = yield from _listen(job_id, parser, patience)
        if job is not None:
            return job
        if heard is None:
            break
        deaf = 0 if heard else deaf + 1
        yield Sleep(min(parser.retry_s, LONGEST_POLL_S))
    return (yield from _poll(job_id, patience))


def _listen(job_id: str, parser: EventParser, patience: Patience) -> Operation[tuple[int | None, Job | None]]:
    """One stream. -> how many events it told (None: there are no streams), and the job where it ended."""
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    headers |= {"Last-Event-ID": parser.last_id} if parser.last_id else {}
    request, heard = Request("GET", f"/jobs/{job_id}/events", headers, read_timeout_s=SILENCE_S), 0
    parser.restart()
    try:
        answer: Answer = yield Open(request)
        patience.met = True
        if answer.status != 200 or not answer.headers.get("content-type", "").startswith("text/event-stream"):
            yield Shut()
            return (0 if answer.status in PASSING else None), None
        while piece := (yield Read()):
            for event in parser.feed(piece):
                if event.name == "job":
                    job, heard = read_job(Answer(200, {}, event.data.encode()).json()), heard + 1
                    patience.renew()
                    yield Tell(job)
                    if job.final:
                        yield Shut()
                        return heard, job
    except Broken as exc:
        if not patience.met:
            raise exc.failure from exc
    return heard, None


def _poll(job_id: str, patience: Patience) -> Operation[Job]:
    told: Job | None = None
    while True:
        answer = accepted((yield from send_patiently(Request("GET", f"/jobs/{job_id}"), patience)))
        patience.renew()
        job = read_job(answer.json())
        if job != told:
            yield Tell(job)
        if job.final:
            return job
        told = job
        yield Sleep(min(LONGEST_POLL_S, max(POLL_S, _retry_after_s(answer) / 2)))


def _retry_after_s(answer: Answer) -> float:
    text = answer.headers.get("retry-after", "")
    return float(text) if text.isascii() and text.isdigit() else 0.0
