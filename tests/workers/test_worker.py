"""What becomes of a delivery: acknowledged, retried, buried, dropped; and leases hold however long the work takes."""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from gigamask.errors import BadImage, InsufficientStorage, QueueUnavailable
from gigamask.image_info import ImageInfo
from gigamask.job import Job, JobOptions, Stage, State
from gigamask.manifest import ModelShelf
from gigamask.queue import keys
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.queue.stream import Delivery, WorkStream, new_consumer
from gigamask.settings import Settings
from gigamask.store import Store, new_id
from workers.leases import Leases
from workers.worker import Interrupted, Worker

INFO = ImageInfo(height=2048, width=2048, channels=3, format="png")
Step = Callable[[Delivery], None]


@contextmanager
def working(stage: Stage, settings: Settings, jobs: JobStore, connection: Connection) -> Iterator[Worker]:
    """A worker in a burst: it ends when its stream is empty."""
    stream = WorkStream(connection, stage, settings.lease_s)
    with Leases(stream, settings.lease_s) as leases:
        shelf = ModelShelf(settings.models)
        yield Worker(
            stage, new_consumer(), settings, Store(settings.store), shelf, jobs, stream, leases, burst=True
        )  # fmt: skip


def work_through(worker: Worker, step: Step) -> list[Delivery]:
    seen = []
    for delivery in worker.deliveries():
        seen.append(delivery)
        with worker.attempt(delivery):
            step(delivery)
    return seen


def segmenting(jobs: JobStore, total: int = 1) -> Job:
    job = jobs.submit(new_id(), "a.png", "m", JobOptions())
    jobs.start(job.id)
    jobs.start_segment(job.id, INFO, 512, total)
    return jobs.get(job.id)


def raising(exc: Exception) -> Step:
    def step(_delivery: Delivery) -> None:
        raise exc

    return step


def dead_letters(connection: Connection) -> list[dict[str, str]]:
    return [fields for _id, fields in connection.call("XRANGE", keys.DEAD, "-", "+")]


def test_work_that_is_done_is_acknowledged(jobs, settings, connection) -> None:
    job = segmenting(jobs, 3)
    with working(Stage.SEGMENT, settings, jobs, connection) as worker:
        seen = work_through(worker, lambda d: jobs.complete_region(d.job_id, d.region or 0, {}) and None)
    assert [delivery.region for delivery in seen] == [0, 1, 2]
    assert worker.stream.length() == 0
    assert jobs.get(job.id).regions_done == 3


def test_a_step_longer_than_the_lease_is_delivered_once(jobs, settings, connection) -> None:
    segmenting(jobs)
    others: list[Delivery] = []
    with (
        working(Stage.SEGMENT, settings, jobs, connection) as worker,
        working(Stage.SEGMENT, settings, jobs, connection) as other,
    ):
        thread = threading.Thread(target=lambda: others.extend(work_through(other, lambda d: None)))

        def slow(_delivery: Delivery) -> None:
            thread.start()
            time.sleep(3 * settings.lease_s)

        assert len(work_through(worker, slow)) == 1
        thread.join()
    assert others == []


def test_a_region_that_always_fails_is_buried_after_its_attempts_and_fails_the_job(
    jobs: JobStore, settings: Settings, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    job = segmenting(jobs)
    with working(Stage.SEGMENT, settings, jobs, connection) as worker, caplog.at_level(logging.ERROR):
        seen = work_through(worker, raising(ZeroDivisionError("secret detail")))
    assert [delivery.deliveries for delivery in seen] == [1, 2, 3]
    failed = jobs.get(job.id)
    assert failed.state is State.FAILED and failed.error is not None
    assert (failed.error.code, failed.error.region) == ("region_failed", 0)
    assert failed.error.detail == "region 0 used up its 3 attempts (ZeroDivisionError)"
    (letter,) = dead_letters(connection)
    assert letter["reason"] == "ZeroDivisionError: secret detail" and letter["job"] == job.id
    assert "Traceback" in caplog.text and job.id in caplog.text


def test_a_region_whose_workers_all_die_is_buried_too(jobs, settings, connection) -> None:
    job = segmenting(jobs)
    with working(Stage.SEGMENT, settings, jobs, connection) as worker:
        for attempt in range(settings.max_attempts):
            taken = worker.stream.claim(f"dies {attempt}", 0)
            assert taken is not None
            time.sleep(settings.lease_s + 0.05)
        assert work_through(worker, lambda d: None) == []
    failed = jobs.get(job.id)
    assert failed.error is not None and failed.error.code == "region_failed"
    assert len(dead_letters(connection)) == 1


def test_a_failure_that_passes_is_tried_again(jobs, settings, connection) -> None:
    job = segmenting(jobs)
    with working(Stage.SEGMENT, settings, jobs, connection) as worker:

        def step(delivery: Delivery) -> None:
            if delivery.deliveries < 3:
                raise OSError("flaky disk")
            jobs.complete_region(delivery.job_id, 0, {})

        assert len(work_through(worker, step)) == 3
    assert jobs.get(job.id).stage is Stage.ASSEMBLE
    assert dead_letters(connection) == []


def test_an_error_that_trying_again_cannot_mend_fails_the_job_at_once(jobs, settings, connection) -> None:
    job = segmenting(jobs)
    with working(Stage.SEGMENT, settings, jobs, connection) as worker:
        assert len(work_through(worker, raising(BadImage("expected a picture, got a poem")))) == 1
    failed = jobs.get(job.id)
    assert failed.error is not None
    assert (failed.error.code, failed.error.detail) == ("bad_image", "expected a picture, got a poem")


@pytest.mark.parametrize("exc", [QueueUnavailable("silent"), InsufficientStorage("full")])
def test_an_error_that_time_mends_is_tried_again(jobs, settings, connection, exc: Exception) -> None:
    job = segmenting(jobs)
    with working(Stage.SEGMENT, settings, jobs, connection) as worker:
        assert len(work_through(worker, raising(exc))) == settings.max_attempts
    assert jobs.get(job.id).state is State.FAILED


def test_messages_of_a_final_job_are_dropped_without_work(jobs, settings, connection) -> None:
    job = segmenting(jobs, 9)
    jobs.cancel(job.id)
    with working(Stage.SEGMENT, settings, jobs, connection) as worker:
        assert work_through(worker, raising(AssertionError("worked"))) == []
        assert worker.stream.length() == 0
    assert jobs.get(job.id).state is State.CANCELLED


def test_a_worker_that_lost_its_lease_neither_acknowledges_nor_fails_the_job(jobs, settings, connection) -> None:
    job = segmenting(jobs)
    with working(Stage.SEGMENT, settings, jobs, connection) as worker:
        delivery = next(worker.deliveries())
        connection.call("XCLAIM", keys.work(Stage.SEGMENT), keys.GROUP, "thief", 0, delivery.id)
        deadline = time.monotonic() + 5
        while not worker.leases.lost(delivery) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert worker.is_cancelled(delivery)
        with worker.attempt(delivery):
            raise BadImage("torn by the new owner")
        assert worker.stream.length() == 1
        worker.finished(delivery)
        assert worker.stream.length() == 1
    assert jobs.get(job.id).state is State.RUNNING


def test_a_worker_told_to_stop_finishes_what_it_holds_and_claims_nothing(jobs, settings, connection) -> None:
    segmenting(jobs, 4)
    with working(Stage.SEGMENT, settings, jobs, connection) as worker:
        assert len(work_through(worker, lambda d: worker.stopping.set())) == 1
        assert worker.stream.length() == 3


def test_a_record_that_cannot_be_written_ends_no_worker(
    jobs: JobStore, settings: Settings, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    job = segmenting(jobs)
    folder = Store(settings.store).job(job.id)
    shutil.rmtree(folder)
    folder.write_text("in the way")
    with working(Stage.SEGMENT, settings, jobs, connection) as worker, caplog.at_level(logging.ERROR):
        assert len(work_through(worker, raising(BadImage("a poem")))) == 1
        assert worker.stream.length() == 0
    assert jobs.state(job.id) == (State.FAILED, Stage.SEGMENT)
    assert "cannot settle" in caplog.text


def test_a_redis_that_refuses_writes_for_a_while_ends_no_worker(
    jobs: JobStore, settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.worker.PAUSE_S", 0.05)
    segmenting(jobs, 2)
    seen: list[Delivery] = []

    def step(delivery: Delivery) -> None:
        seen.append(delivery)
        if len(seen) == 1:
            connection.call("REPLICAOF", "127.0.0.1", "1")  # READONLY You can't write against a read only replica

    with working(Stage.SEGMENT, settings, jobs, connection) as worker:
        thread = threading.Thread(target=work_through, args=(worker, step))
        thread.start()
        time.sleep(1)
        survived = thread.is_alive()
        connection.call("REPLICAOF", "NO", "ONE")
        thread.join()
        assert survived
        assert worker.stream.length() == 0
    assert {delivery.region for delivery in seen} == {0, 1}


ENDS = {
    "finished": lambda jobs, job_id: None,
    "failed": lambda jobs, job_id: raising(BadImage("no"))(job_id),
    "buried": lambda jobs, job_id: raising(RuntimeError("bug"))(job_id),
    "cancelled": lambda jobs, job_id: jobs.cancel(job_id) and raising(Interrupted())(job_id),
}


@pytest.mark.parametrize("end", ENDS)
def test_whatever_ends_an_ingest_the_job_that_waits_is_queued_again(jobs, settings, connection, end: str) -> None:
    image, took = new_id(), []
    both = {jobs.submit(image, "a.png", "m", JobOptions()).id for _ in range(2)}

    def step(delivery: Delivery) -> None:
        if not jobs.take_image(delivery.job_id, image):
            return
        took.append(delivery.job_id)
        if delivery.job_id == took[0]:
            deadline = time.monotonic() + 10
            while not connection.call("SCARD", keys.ingest_waiting(image)) and time.monotonic() < deadline:
                time.sleep(0.01)
            ENDS[end](jobs, delivery.job_id)

    with (
        working(Stage.INGEST, settings, jobs, connection) as one,
        working(Stage.INGEST, settings, jobs, connection) as two,
    ):
        threads = [threading.Thread(target=work_through, args=(worker, step)) for worker in (one, two)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert set(took) == both
    assert took.index(took[-1]) == len(took) - 1, "the one that waited went last, and once"
    assert connection.call("EXISTS", keys.ingest_owner(image), keys.ingest_waiting(image)) == 0
