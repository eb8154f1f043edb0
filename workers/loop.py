"""A worker process: connect, claim, do, acknowledge, until told to stop.

SIGTERM and SIGINT drain: what is in hand is finished, nothing new is claimed, and the process ends with 0.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gigamask.job import Stage
from gigamask.manifest import ModelShelf
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.queue.stream import WorkStream, new_consumer
from gigamask.settings import Settings
from gigamask.store import Store
from workers.leases import Leases
from workers.worker import Worker

log = logging.getLogger(__name__)


def _steps(stage: Stage) -> Callable[[Worker], None]:
    """Each stage loads what it needs, and no more."""
    if stage is Stage.INGEST:
        from workers.queue_ingest import run_ingest as run
    elif stage is Stage.SEGMENT:
        from workers.queue_segment import run_segment as run
    else:
        from workers.queue_assemble import run_assemble as run
    return run


def run_worker(stage: Stage, settings: Settings, burst: bool = False, stopping: threading.Event | None = None) -> None:
    """burst: stop when the stage's stream is empty. stopping: set it to drain, as SIGTERM does.

    Raises QueueUnavailable where Redis does not answer at the start; later silences are waited out.
    """
    run = _steps(stage)
    connection, store = Connection(settings.redis_url), Store(settings.store)
    stream = WorkStream(connection, stage, settings.lease_s)
    jobs = JobStore(connection, store, settings)
    if stage is Stage.INGEST and (restored := jobs.restore()):
        log.warning("restored %d jobs from the records beside the data", len(restored))
    consumer, stopping = new_consumer(), stopping or threading.Event()
    with _stopped_by_signals(stopping), Leases(stream, settings.lease_s) as leases:
        shelf = ModelShelf(settings.models)
        worker = Worker(stage, consumer, settings, store, shelf, jobs, stream, leases, burst, stopping)
        log.info("%s worker %s is ready", stage, consumer)
        run(worker)
    stream.leave(consumer)
    connection.close()


@contextmanager
def _stopped_by_signals(stopping: threading.Event) -> Iterator[None]:
    """Only the main thread may set what signals do."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, lambda _number, _frame: stopping.set())
        for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
