"""Calls that a step may make as often as it likes: they reach Redis twice a second at most; its silence is no error.

Progress, and the question whether to go on, are not worth an ingest of hours.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress

from gigamask.errors import QueueUnavailable

PACE_S = 0.5


class Teller:
    """Tells a fraction in [0, 1]."""

    def __init__(self, tell: Callable[[float], None], pace_s: float = PACE_S) -> None:
        self._tell, self._pace_s = tell, pace_s
        self._told_s = float("-inf")

    def __call__(self, fraction: float) -> None:
        if time.monotonic() - self._told_s < self._pace_s:
            return
        self._told_s = time.monotonic()
        with suppress(QueueUnavailable):
            self._tell(fraction)


class Stop:
    """Asks whether to stop; once yes, always yes. stopping: yes at once when it is set."""

    def __init__(
        self, ask: Callable[[], bool], stopping: threading.Event | None = None, pace_s: float = PACE_S
    ) -> None:
        self._ask, self._stopping, self._pace_s = ask, stopping or threading.Event(), pace_s
        self._asked_s = float("-inf")
        self._yes = False

    def __call__(self) -> bool:
        self._yes = self._yes or self._stopping.is_set()
        if self._yes or time.monotonic() - self._asked_s < self._pace_s:
            return self._yes
        self._asked_s = time.monotonic()
        with suppress(QueueUnavailable):
            self._yes = self._ask()
        return self._yes
