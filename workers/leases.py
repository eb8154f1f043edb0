"""A thread that renews the leases of all that this worker holds, however long a step takes."""

from __future__ import annotations

import logging
import threading
from types import TracebackType

from gigamask.errors import QueueUnavailable
from gigamask.queue.stream import Delivery, WorkStream

log = logging.getLogger(__name__)

RENEWALS_IN_A_LEASE = 3

Key = tuple[str, int]


class Leases:
    """What is held. A delivery whose renewal was refused is lost: somebody else does its work."""

    def __init__(self, stream: WorkStream, lease_s: float) -> None:
        self._stream = stream
        self._pause_s = lease_s / RENEWALS_IN_A_LEASE
        self._held: dict[Key, Delivery] = {}
        self._lost: set[Key] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._renew_all_again_and_again, name="leases", daemon=True)

    def __enter__(self) -> Leases:
        self._thread.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _exc: BaseException | None, _tb: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def hold(self, delivery: Delivery) -> None:
        with self._lock:
            self._held[_key(delivery)] = delivery

    def drop(self, delivery: Delivery) -> None:
        """Renew it no more."""
        with self._lock:
            self._held.pop(_key(delivery), None)
            self._lost.discard(_key(delivery))

    def lost(self, delivery: Delivery) -> bool:
        with self._lock:
            return _key(delivery) in self._lost

    def _renew_all_again_and_again(self) -> None:
        while not self._over.wait(self._pause_s):
            with self._lock:
                held = [delivery for key, delivery in self._held.items() if key not in self._lost]
            for delivery in held:
                self._renew(delivery)

    def _renew(self, delivery: Delivery) -> None:
        try:
            if self._stream.renew(delivery):
                return
        except QueueUnavailable as exc:
            log.warning("cannot renew for now: %s", exc)
            return
        with self._lock:
            if _key(delivery) in self._held:  # not acknowledged meanwhile
                self._lost.add(_key(delivery))
                log.warning("lost the lease: %s", delivery)


def _key(delivery: Delivery) -> Key:
    """A message that was lost and claimed again is another delivery."""
    return delivery.id, delivery.deliveries
