"""Server-sent events: the same facts as polling, told when they change, on a real socket where streams need one."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import pytest

from gigamask.job import Job, JobOptions, Problem, Stage
from gigamask.queue import keys
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store, new_id
from tests.service.conftest import INFO, MODEL, Served, serving
from tests.service.test_sockets import eventually


@dataclass(frozen=True, slots=True)
class Event:
    id: str | None
    job: dict[str, object]


@dataclass(slots=True)
class Stream:
    """An answer that goes on. lines: what came so far."""

    answer: httpx.Response
    lines: Iterator[str]

    def event(self) -> Event:
        """The next one; comments are passed over. Raises StopIteration where the stream ends."""
        fields: dict[str, str] = {}
        while True:
            line = next(self.lines)
            if not line and "data" in fields:
                assert fields["event"] == "job"
                return Event(fields.get("id"), json.loads(fields["data"]))
            name, _, value = line.partition(": ")
            if name:
                fields[name] = value

    def ended(self) -> bool:
        return not list(self.lines)


@contextmanager
def listening(served: Served, path: str, heard: str | None = None) -> Iterator[Stream]:
    headers = {"Last-Event-ID": heard} if heard else {}
    with httpx.Client(timeout=20) as client, client.stream("GET", served.url + path, headers=headers) as answer:
        yield Stream(answer, answer.iter_lines())


def submit(jobs: JobStore) -> Job:
    return jobs.submit(new_id(), "a.tif", MODEL, JobOptions())


def begin(jobs: JobStore, job: Job, regions: int = 4) -> None:
    jobs.start(job.id)
    jobs.start_segment(job.id, INFO, 512, regions)


def polled(served: Served, job: Job) -> dict[str, object]:
    """Without what moves with the clock."""
    told = httpx.get(f"{served.url}/jobs/{job.id}").json()
    return {name: value for name, value in told.items() if name not in ("rate_mp_per_s", "eta_s")}


def same(event: Event) -> dict[str, object]:
    return {name: value for name, value in event.job.items() if name not in ("rate_mp_per_s", "eta_s")}


def test_a_job_is_followed_from_the_queue_to_its_end(served: Served, jobs: JobStore) -> None:
    job = submit(jobs)
    with listening(served, f"/jobs/{job.id}/events") as stream:
        assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
        assert stream.answer.headers["Cache-Control"] == "no-store"
        assert stream.answer.headers["X-Accel-Buffering"] == "no"
        assert next(stream.lines) == "retry: 2000"
        first = stream.event()
        assert same(first) == polled(served, job)
        assert first.job["state"] == "queued"
        begin(jobs, job)
        second = stream.event()
        assert (second.job["state"], second.job["stage"]) == ("running", "segment")
        assert second.id not in (None, first.id)
        jobs.complete_region(job.id, 0, {0: 5})
        third = stream.event()
        assert third.job["regions"] == {"done": 1, "skipped": 0, "total": 4}
        assert same(third) == polled(served, job)
        jobs.fail(job.id, Problem(code="region_failed", detail="x", region=2))
        last = stream.event()
        assert last.job["state"] == "failed"
        assert stream.ended()


def test_whoever_comes_back_with_the_last_id_hears_that_nothing_more_will_come(served: Served, jobs: JobStore) -> None:
    job = submit(jobs)
    jobs.cancel(job.id)
    with listening(served, f"/jobs/{job.id}/events") as stream:
        last = stream.event()
        assert last.job["state"] == "cancelled"
        assert stream.ended()
    again = httpx.get(f"{served.url}/jobs/{job.id}/events", headers={"Last-Event-ID": str(last.id)})
    assert (again.status_code, again.content) == (204, b"")


def test_whoever_is_up_to_date_hears_nothing_until_something_changes(served: Served, jobs: JobStore) -> None:
    job = submit(jobs)
    with listening(served, f"/jobs/{job.id}/events") as stream:
        known = stream.event().id
    with listening(served, f"/jobs/{job.id}/events", known) as stream:
        time.sleep(0.8)
        begin(jobs, job)
        assert stream.event().job["state"] == "running"


def test_another_replica_knows_the_ids_of_this_one(served: Served, settings: Settings, jobs: JobStore) -> None:
    job = submit(jobs)
    begin(jobs, job)
    with listening(served, f"/jobs/{job.id}/events") as stream:
        known = stream.event().id
    with listening(served, "/events") as stream:
        all_known = stream.event().id
    with (
        serving(settings) as other,
        listening(other, f"/jobs/{job.id}/events", known) as one,
        listening(other, "/events", all_known) as two,
    ):
        time.sleep(0.6)
        jobs.complete_region(job.id, 3, {})
        assert one.event().job["regions"] == two.event().job["regions"] == {"done": 1, "skipped": 0, "total": 4}


def test_all_jobs_are_followed_in_one_stream(served: Served, jobs: JobStore) -> None:
    old, running = submit(jobs), submit(jobs)
    jobs.cancel(old.id)
    with listening(served, "/events") as stream:
        first, second = stream.event(), stream.event()
        assert {first.job["id"], second.job["id"]} == {old.id, running.id}
        assert first.id is None  # cut off here, a listener is told all of it again
        assert second.id is not None
        new = submit(jobs)
        assert stream.event().job["id"] == new.id
        jobs.start(running.id)
        told = stream.event()
        assert (told.job["id"], told.job["state"]) == (running.id, "running")


def test_many_listeners_are_one_question(served: Served, jobs: JobStore, connection: Connection) -> None:
    job = submit(jobs)
    streams = [listening(served, f"/jobs/{job.id}/events") for _ in range(12)]
    opened = [stream.__enter__() for stream in streams]
    assert {stream.event().id for stream in opened} == {"queued.ingest.0.0.0.0"}
    asked = commands(connection, "hgetall")
    time.sleep(1.5)
    assert 1 <= commands(connection, "hgetall") - asked <= 4
    begin(jobs, job)
    assert {stream.event().job["state"] for stream in opened} == {"running"}
    for stream in streams:
        stream.__exit__(None, None, None)
    eventually(lambda: not asks(connection), within_s=8)


def commands(connection: Connection, name: str) -> int:
    told = connection.call("INFO", "commandstats")
    return int(told.get(f"cmdstat_{name}", {}).get("calls", 0))


def asks(connection: Connection) -> bool:
    before = commands(connection, "hgetall")
    time.sleep(1.2)
    return commands(connection, "hgetall") != before


async def test_a_job_that_is_not_there_has_no_events(client: httpx.AsyncClient) -> None:
    for job_id in (new_id(), "nonsense", "..%2f"):
        answer = await client.get(f"/jobs/{job_id}/events")
        assert (answer.status_code, answer.headers["Content-Type"]) == (404, "application/problem+json")


def test_a_stream_outlives_a_redis_that_cannot_be_read(served: Served, jobs: JobStore, connection: Connection) -> None:
    job = submit(jobs)
    with listening(served, f"/jobs/{job.id}/events") as stream:
        stream.event()
        name = keys.job(job.id)
        connection.call("RENAME", name, "aside")
        connection.call("SET", name, "of another kind")  # HGETALL is an error from here on
        assert next(line for line in stream.lines if line.startswith(":")) == ": queue_unavailable"
        connection.call("RENAME", "aside", name)
        begin(jobs, job)
        assert stream.event().job["stage"] == Stage.SEGMENT


def test_open_streams_do_not_keep_the_service_from_stopping(settings: Settings, store: Store, jobs: JobStore) -> None:
    job = submit(jobs)
    with (
        serving(settings, shutdown_s=20) as served,
        listening(served, f"/jobs/{job.id}/events") as one,
        listening(served, "/events") as two,
    ):
        one.event(), two.event()
        started = time.monotonic()
        os.kill(served.process.pid, signal.SIGTERM)
        assert one.ended()
        assert two.ended()
        served.process.wait(10)
        assert time.monotonic() - started < 10  # uvicorn would wait for them for 20 s


@pytest.mark.parametrize("path", ["/events", "/jobs/{}/events"])
async def test_events_are_told_in_the_description(client: httpx.AsyncClient, path: str) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]
    assert "text/event-stream" in str(paths[path.replace("{}", "{job_id}")]["get"]["responses"]["200"])
