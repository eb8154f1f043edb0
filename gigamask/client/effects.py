"""What the client's core asks of the world, and nothing of how it is done: the seam between protocol and network.

An `Operation` is a generator. It yields an effect, and is sent what became of it; where the network failed, `Broken` is
raised at the `yield`. So the core can be driven by blocking code, by asyncio, or by a test that makes up the answers.

    Send(request)    -> Answer, its body read
    Open(request)    -> Answer without a body; then Read() -> bytes, b"" at the end; Shut() ends it early
    Do(act)          -> act(): a call that blocks, such as writing a file
    Sleep(seconds)   -> None
    Tell(value)      -> None: shown to the caller of an operation that is followed
"""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from gigamask.client.errors import Refused, Unreachable
from gigamask.errors import GigamaskError

T = TypeVar("T")

READ_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class FilePiece:
    """Bytes [start, start + length) of a file, read while they are sent. on_sent: told the bytes of each block."""

    path: Path
    start: int
    length: int
    on_sent: Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Request:
    """path: below the service's URL, or a whole URL. read_timeout_s: longest silence."""

    method: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    json: Any = None
    piece: FilePiece | None = None
    read_timeout_s: float = READ_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Answer:
    """headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    content: bytes = b""

    def json(self) -> Any:
        """Raises Refused where it is no JSON: whoever answers is no Gigamask."""
        try:
            return json.loads(self.content)
        except ValueError as exc:
            raise Refused("bad_answer", f"answered {self.status} with something that is no JSON", self.status) from exc

    def member(self, name: str) -> Any:
        """Of its JSON object. Raises Refused where there is none: see `json`."""
        told = self.json()
        if not isinstance(told, dict) or name not in told:
            raise Refused("bad_answer", f"answered {self.status} without {name!r}: is it a Gigamask?", self.status)
        return told[name]

    def header(self, name: str) -> str:
        """Raises Refused where there is none."""
        if name not in self.headers:
            raise Refused("bad_answer", f"answered {self.status} without {name!r}: is it a Gigamask?", self.status)
        return self.headers[name]


class Broken(Exception):
    """The connection could not be made, or did not last. Kept inside the client. failure: what to tell of it."""

    def __init__(self, reason: str, failure: GigamaskError | None = None) -> None:
        super().__init__(reason)
        self.failure = failure or Unreachable(f"{reason.rstrip('.')}. Is `gigamask up` running?")


@dataclass(frozen=True, slots=True)
class Send:
    request: Request


@dataclass(frozen=True, slots=True)
class Open:
    request: Request


@dataclass(frozen=True, slots=True)
class Read:
    pass


@dataclass(frozen=True, slots=True)
class Shut:
    pass


@dataclass(frozen=True, slots=True)
class Do:
    act: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Sleep:
    seconds: float


@dataclass(frozen=True, slots=True)
class Tell:
    value: Any


Effect: TypeAlias = Send | Open | Read | Shut | Do | Sleep | Tell
Operation: TypeAlias = Generator[Effect, Any, T]


def advance(operation: Operation[Any], outcome: Any) -> Effect:
    """Raises StopIteration, which holds the operation's result, at its end."""
    return operation.throw(outcome) if isinstance(outcome, Broken) else operation.send(outcome)


def refusal(answer: Answer) -> Refused:
    """The problem that an answer tells (RFC 9457); a HEAD's, and whoever is in between, tells only a status."""
    try:
        told = dict(json.loads(answer.content))
        code, detail = str(told.pop("code")), str(told.pop("detail", "") or told.get("title", ""))
    except (ValueError, KeyError, TypeError):
        return Refused(f"http_{answer.status}", f"answered {answer.status}, without a problem+json", answer.status)
    for known in ("type", "title", "status", "instance"):
        told.pop(known, None)
    return Refused(code, detail, answer.status, **told)


def accepted(answer: Answer) -> Answer:
    """Raises Refused for whatever is no success."""
    if answer.status >= 400:
        raise refusal(answer)
    return answer
