"""`/jobs/{id}/events` and `/events`: what changes, as it changes (server-sent events, HTML Living Standard 9.2).

What is sent is a state and never a history: whoever comes late, or slowly, gets the present one. An event's id is
made of what the job counts, so every replica knows it again; whoever is up to date hears nothing until something
changes. All who watch the same share one feed, which asks Redis at most twice a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Annotated, Any

import anyio
from fastapi import APIRouter, Header, Request, Response
from fastapi.responses import StreamingResponse

from gigamask.errors import GigamaskError, QueueUnavailable
from gigamask.job import Job
from gigamask.manifest import ModelManifest
from service.jobs import MAX_PAGE, UNKNOWN, find_model
from service.parts import Parts, PartsDep, RootPath
from service.schemas import view_job

POLL_S = 0.5
POLL_SHARE = 10  # a look that takes long is taken less often
LINGER_S = 2.0  # how long a feed outlives its last listener
HEARTBEAT_S = 15.0
RETRY_MS = 2000
MOST_JOBS = 2000
NEWEST = 50  # ended jobs that a new listener of all is told of: a page of GET /jobs

HEADERS = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}  # nginx would gather the stream otherwise
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {}}, "description": "Events `job`, each with a JobView as data."}
}

router = APIRouter(tags=["events"])

LastEventId = Annotated[str, Header(alias="Last-Event-ID", description="Of the last event that was heard.")]


@dataclass(frozen=True, slots=True)
class Fact:
    """A job as it is. id: the same on every replica, another after every change."""

    job: Job
    model: ModelManifest | None
    id: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The newest job first. id: that of the only fact, or one for all of them."""

    facts: Sequence[Fact]
    id: str


def fact_of(job: Job, model: ModelManifest | None) -> Fact:
    counts = (job.ingest_fraction, job.regions_done, job.regions_skipped, job.regions_total)
    return Fact(job, model, ".".join((job.state, job.stage, *(f"{count:g}" for count in counts))))


def look_at_job(parts: Parts, job_id: str) -> Snapshot:
    """Blocking. Raises UnknownJob, QueueUnavailable."""
    job = parts.jobs.get(job_id)
    fact = fact_of(job, find_model(parts.shelf, job.model))
    return Snapshot((fact,), fact.id)


def look_at_all(parts: Parts) -> Snapshot:
    """Blocking. The newest MOST_JOBS. Raises QueueUnavailable."""
    model_of = lru_cache(partial(find_model, parts.shelf))
    facts: list[Fact] = []
    for start in range(0, min(MOST_JOBS, parts.jobs.count()), MAX_PAGE):
        facts += [fact_of(job, model_of(job.model)) for job in parts.jobs.list(MAX_PAGE, start)]
    whole = "\n".join(f"{fact.job.id} {fact.id}" for fact in facts)
    return Snapshot(facts, blake2b(whole.encode(), digest_size=8).hexdigest())


class Feed:
    """Looks again and again for as long as somebody listens, and a little longer."""

    def __init__(self, look: Callable[[], Snapshot]) -> None:
        self._look = look
        self._change = asyncio.Event()
        self._listeners = 0
        self.snapshot: Snapshot | None = None
        self.problem: GigamaskError | None = None
        self.over = False

    async def run(self) -> None:
        """Ends at a problem that is not Redis's."""
        try:
            await self._keep_looking()
        finally:
            self.over = True
            self.wake()

    async def _keep_looking(self) -> None:
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while self._listeners or loop.time() < heard + LINGER_S:
            started = loop.time()
            heard = started if self._listeners else heard
            await self._look_once()
            if self.problem and not isinstance(self.problem, QueueUnavailable):
                return
            await asyncio.sleep(max(POLL_S, POLL_SHARE * (loop.time() - started)))

    async def _look_once(self) -> None:
        before = (self.snapshot.id if self.snapshot else None), bool(self.problem)
        try:
            self.snapshot = await anyio.to_thread.run_sync(self._look, abandon_on_cancel=True)
            self.problem = None
        except GigamaskError as exc:
            self.problem = exc
        if before != ((self.snapshot.id if self.snapshot else None), bool(self.problem)):
            self.wake()

    def wake(self) -> None:
        change, self._change = self._change, asyncio.Event()
        change.set()

    async def wait(self, longest_s: float) -> bool:
        """For a change. False where none came in time."""
        with suppress(TimeoutError):
            return await asyncio.wait_for(self._change.wait(), longest_s)
        return False

    @contextmanager
    def listened(self) -> Iterator[None]:
        self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1


class Streams:
    """The feeds of this process, and their end."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._feeds: dict[str | None, tuple[Feed, asyncio.Task[None]]] = {}
        self.closed = False

    async def feed(self, job_id: str | None) -> Feed:
        """job_id: None = all jobs. Has something to tell. Raises what looking raised, where it never worked."""
        if job_id not in self._feeds:
            look = partial(look_at_job, self._parts, job_id) if job_id else partial(look_at_all, self._parts)
            feed = Feed(look)
            task = asyncio.create_task(feed.run())
            task.add_done_callback(lambda _: self._feeds.pop(job_id, None))
            self._feeds[job_id] = feed, task
        feed, task = self._feeds[job_id]
        while feed.snapshot is None and feed.problem is None and not feed.over:
            await feed.wait(HEARTBEAT_S)
        if feed.snapshot is None:
            if feed.over and not task.cancelled():
                task.result()
            raise feed.problem or QueueUnavailable("the service is stopping")
        return feed

    def close(self) -> None:
        """Every stream ends; its listener may come back to another replica."""
        self.closed = True
        for _, task in tuple(self._feeds.values()):
            task.cancel()


def close_streams(app: object) -> None:
    app.state.streams.close()  # type: ignore[attr-defined]


@router.get(
    "/jobs/{job_id}/events",
    summary="A job's changes, as they happen",
    response_class=StreamingResponse,
    responses=UNKNOWN | STREAM | {204: {"description": "The job has ended, and the listener knows."}},
)
async def follow_job(
    job_id: str, request: Request, parts: PartsDep, root_path: RootPath, last_event_id: LastEventId = ""
) -> Response:
    """Ends after the event of the job's end. Coming back with that event's id gives 204: nothing more will come."""
    parts.store.job(job_id)  # what is no id makes no feed
    streams: Streams = request.app.state.streams
    feed = await streams.feed(job_id)
    known = feed.snapshot
    if known and known.id == last_event_id and known.facts[0].job.state.final:
        return Response(status_code=204, headers=HEADERS)
    return StreamingResponse(tell(streams, feed, root_path, last_event_id, True), 200, HEADERS, "text/event-stream")


@router.get(
    "/events", summary="The changes of all jobs, as they happen", response_class=StreamingResponse, responses=STREAM
)
async def follow_all(request: Request, root_path: RootPath, last_event_id: LastEventId = "") -> Response:
    """Begins with every job that has not ended and the newest that have, unless the listener is up to date."""
    streams: Streams = request.app.state.streams
    feed = await streams.feed(None)
    return StreamingResponse(tell(streams, feed, root_path, last_event_id, False), 200, HEADERS, "text/event-stream")


async def tell(streams: Streams, feed: Feed, root_path: str, heard: str, ends: bool) -> AsyncIterator[str]:
    """heard: id of the last event that the listener knows. ends: with the end of the first job."""
    with feed.listened():
        yield f"retry: {RETRY_MS}\n\n"
        assert feed.snapshot is not None
        told = _known_from_the_start(feed.snapshot, heard)
        while not streams.closed:
            snapshot = feed.snapshot
            for text in _news(snapshot, told, root_path):
                yield text
            if feed.problem:
                yield f": {feed.problem.code}\n\n"
            if feed.over or (ends and snapshot.facts[0].job.state.final):
                return
            if feed.snapshot is snapshot and not await feed.wait(HEARTBEAT_S):
                yield ": still here\n\n"


def _known_from_the_start(snapshot: Snapshot, heard: str) -> dict[str, str]:
    """Job -> id of the fact that needs no telling."""
    if snapshot.id == heard:
        return {fact.job.id: fact.id for fact in snapshot.facts}
    return {fact.job.id: fact.id for fact in snapshot.facts[NEWEST:] if fact.job.state.final}


def _news(snapshot: Snapshot, told: dict[str, str], root_path: str) -> Iterator[str]:
    """Only the last carries the id: a listener cut off before it will be told all again."""
    news = [fact for fact in snapshot.facts if told.get(fact.job.id) != fact.id]
    for fact in news:
        view = view_job(fact.job, fact.model, root_path).model_dump_json()
        name = f"id: {snapshot.id}\n" if fact is news[-1] else ""
        told[fact.job.id] = fact.id
        yield f"{name}event: job\ndata: {view}\n\n"
