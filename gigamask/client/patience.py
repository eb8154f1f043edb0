"""How long to keep trying: pauses that grow from failure to failure, and an end to them where nothing gets better."""

from __future__ import annotations

import random
from dataclasses import dataclass

from gigamask.client.effects import Answer, Broken, Operation, Request, Send, Sleep, refusal
from gigamask.errors import GigamaskError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.25, 15.0
PASSING = frozenset({423, 429, 502, 503, 504})  # answers that may be another in a moment


@dataclass(slots=True)
class Patience:
    """limit_s: of pauses in a row without progress; 0: none. met: the service has answered at least once.

    A service that never answered is told at once: it is more likely not there than away.
    """

    limit_s: float
    met: bool = False
    spent_s: float = 0.0
    failures: int = 0

    def renew(self) -> None:
        """Something got on."""
        self.spent_s, self.failures = 0.0, 0

    def pause_s(self, failure: GigamaskError) -> float:
        """How long to wait until the next attempt. Raises `failure` where patience has run out."""
        if not self.met or self.spent_s >= self.limit_s:
            raise failure
        longest = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**self.failures)
        pause = min(longest * random.uniform(0.5, 1.0), self.limit_s)  # so that many clients do not come back at once
        self.spent_s, self.failures = self.spent_s + pause, self.failures + 1
        return pause


def send_patiently(request: Request, patience: Patience) -> Operation[Answer]:
    """-> whatever answer does not look passing. Raises Unreachable or Refused where patience runs out."""
    while True:
        try:
            answer: Answer = yield Send(request)
        except Broken as exc:
            failure = exc.failure
        else:
            patience.met = True
            if answer.status not in PASSING:
                return answer
            failure = refusal(answer)
        yield Sleep(patience.pause_s(failure))
