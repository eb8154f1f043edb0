"""One worker of one stage: what it claims, and what becomes of a delivery when its work ended well or badly.

A delivery is acknowledged when its work is done or no longer wanted. An error that trying again cannot mend fails the
job; any other leaves the delivery to the next one who claims it after the lease, until its attempts are used up.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from gigamask.errors import GigamaskError, InsufficientStorage, QueueUnavailable, UnknownJob
from gigamask.job import Problem, Stage
from gigamask.manifest import ModelShelf
from gigamask.queue.job_store import JobStore
from gigamask.queue.stream import Delivery, WorkStream
from gigamask.settings import Settings
from gigamask.store import Store
from workers.leases import Leases

log = logging.getLogger(__name__)

CLAIM_WAIT_MS = 500
BURST_WAIT_MS = 20
PAUSE_S = 2.0
MENDED_BY_TIME = (QueueUnavailable, InsufficientStorage)
DISCARD = "discard"


class Interrupted(Exception):
    """The work is no longer wanted: the job is final, or has left this stage."""


class Stopped(Exception):
    """This worker stops in the midst of the work: another begins it anew, as if it had not been tried."""


@dataclass(frozen=True, slots=True)
class Worker:
    """burst: stop when the stream is empty. stopping: finish what is in hand, claim nothing new."""

    stage: Stage
    consumer: str
    settings: Settings
    store: Store
    shelf: ModelShelf
    jobs: JobStore
    stream: WorkStream
    leases: Leases
    burst: bool = False
    stopping: threading.Event = field(default_factory=threading.Event)

    def deliveries(self) -> Iterator[Delivery]:
        """What is to be done, held until `finished` or `failed`; without end, unless stopped or in a burst."""
        while not self.stopping.is_set():
            try:
                delivery = self.stream.claim(self.consumer, BURST_WAIT_MS if self.burst else CLAIM_WAIT_MS)
                if delivery is None and self.burst and self.stream.length() == 0:
                    return
                wanted = delivery is not None and self._is_wanted(delivery)
            except QueueUnavailable as exc:
                log.warning("%s; trying again", exc)
                self.stopping.wait(PAUSE_S)
                continue
            except Exception:
                log.exception("a claim failed; what was claimed comes back after its lease")
                self.stopping.wait(PAUSE_S)
                continue
            if delivery is not None and wanted:
                self.leases.hold(delivery)
                yield delivery

    @contextmanager
    def guard(self, delivery: Delivery) -> Iterator[None]:
        """A part of the work on one delivery: no error of it ends the worker."""
        try:
            yield
        except Exception as exc:
            self.failed(delivery, exc)

    @contextmanager
    def attempt(self, delivery: Delivery) -> Iterator[None]:
        """The work on one delivery, or its last part: acknowledged after it."""
        with self.guard(delivery):
            yield
            self.finished(delivery)

    def finished(self, delivery: Delivery) -> None:
        """Acknowledge, unless the lease was lost: then the message is somebody else's."""
        self.leases.drop(delivery)
        self._close(delivery)

    def failed(self, delivery: Delivery, exc: Exception) -> None:
        self.leases.drop(delivery)
        if isinstance(exc, Interrupted):
            log.info("no longer wanted: %s", _told(delivery))
        elif isinstance(exc, Stopped):
            log.info("stopping; put back: %s", _told(delivery))
        elif isinstance(exc, GigamaskError):
            log.warning("attempt %d failed: %s: %s: %s", delivery.deliveries, _told(delivery), exc.code, exc)
        else:
            log.error("attempt %d failed: %s", delivery.deliveries, _told(delivery), exc_info=exc)
        try:
            if self.stream.renew(delivery):  # else another worker has it, whose files may have been what failed us
                self._settle(delivery, exc)
        except QueueUnavailable as silence:
            log.warning("%s; %s comes back after its lease", silence, _told(delivery))
        except Exception:
            log.exception("cannot settle: %s; it comes back after its lease", _told(delivery))

    def is_cancelled(self, delivery: Delivery) -> bool:
        """The job is final (or gone), or the work is another worker's by now."""
        return self.leases.lost(delivery) or self._is_final(delivery)

    def _is_wanted(self, delivery: Delivery) -> bool:
        if delivery.deliveries > self.settings.max_attempts:
            self._bury(delivery, "fell silent", "whoever worked on it died or hung")
            return False
        if delivery.fields.get("act") == DISCARD:
            return True
        if self._is_final(delivery):
            self._close(delivery)
            return False
        return True

    def _is_final(self, delivery: Delivery) -> bool:
        now = self.jobs.state(delivery.job_id)
        return now is None or now[0].final

    def _settle(self, delivery: Delivery, exc: Exception) -> None:
        if isinstance(exc, Interrupted):
            self._close(delivery)
        elif isinstance(exc, Stopped):
            self.stream.put_back(delivery)
        elif isinstance(exc, GigamaskError) and not isinstance(exc, MENDED_BY_TIME):
            problem = Problem(code=exc.code, detail=exc.message, region=delivery.region)
            self.jobs.fail(delivery.job_id, problem)
            self._close(delivery)
        elif delivery.deliveries >= self.settings.max_attempts:
            self._bury(delivery, type(exc).__name__, str(exc))

    def _bury(self, delivery: Delivery, kind: str, reason: str) -> None:
        """The job fails first: were we to die in between, the message would come back and be buried then.

        A client is told the kind; the reason is for those who read the dead letters.
        """
        what = f"the {self.stage} step" if delivery.region is None else f"region {delivery.region}"
        detail = f"{what} used up its {self.settings.max_attempts} attempts ({kind})"
        code = "internal" if delivery.region is None else "region_failed"
        self.jobs.fail(delivery.job_id, Problem(code=code, detail=detail, region=delivery.region))
        log.error("buried: %s: %s: %s", _told(delivery), kind, reason)
        self._release(delivery)
        self.stream.bury(delivery, f"{kind}: {reason}")

    def _close(self, delivery: Delivery) -> None:
        self._release(delivery)
        self.stream.acknowledge(delivery)

    def _release(self, delivery: Delivery) -> None:
        """Before a message of ingest goes, so that no job waits for an image that nobody reads.

        Not without the lease: then another worker reads the image for the same job.
        """
        if self.stage is not Stage.INGEST or not self.stream.renew(delivery):
            return
        try:
            self.jobs.release_image(delivery.job_id, self.jobs.get(delivery.job_id).image_id)
        except UnknownJob:
            log.warning("no such job: %s", _told(delivery))


def _told(delivery: Delivery) -> str:
    words = " ".join(f"{name}={value}" for name, value in delivery.fields.items())
    return f"{words} (message {delivery.id})"
