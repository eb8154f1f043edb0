"""Let a client that is still sending hear why it was refused.

Closing a connection with unread bytes in it makes the kernel reset it, and the answer may be lost on its way
(RFC 9112, 9.6). So an answer that comes before the whole body was read is sent whole, then what still arrives is
thrown away for a while, and only then the connection is closed. Bounded, so that nobody is listened to for ever.
"""

from __future__ import annotations

import time

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER_S = 5.0
LINGER_BYTES = 256 * 1024**2


class DrainRefused:
    """ASGI middleware, outermost."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _sends_at_once(Headers(scope=scope)):
            exchange = _Exchange(receive, send)
            await self._app(scope, exchange.receive, exchange.send)
        else:
            await self._app(scope, receive, send)


def _sends_at_once(headers: Headers) -> bool:
    """Whether a body is on its way: there is one, and the client does not wait for `100 Continue`."""
    has_body = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
    return has_body and headers.get("expect", "").lower() != "100-continue"


class _Exchange:
    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._body_read = False

    async def receive(self) -> Message:
        message = await self._receive()
        self._body_read = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._body_read:
            await self._send(message)
        elif message["type"] == "http.response.start":
            MutableHeaders(scope=message)["connection"] = "close"
            await self._send(message)
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drain()
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        else:
            await self._send(message)

    async def _drain(self) -> None:
        left, until = LINGER_BYTES, time.monotonic() + LINGER_S
        with anyio.move_on_after(LINGER_S):
            while not self._body_read and left > 0 and time.monotonic() < until:
                left -= len((await self.receive()).get("body", b""))
