"""Pictures made once and kept: a cache within a bound, few threads that draw, one drawing for all who want the same.

A picture that may change is neither kept nor named by an ETag.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from fastapi import Request, Response

from gigamask.errors import Busy
from gigamask.tiles.cache import Cache
from service.files import is_current

# Drawing waits for the disk now and then, and for no lock of Python's while it decodes and encodes.
THREADS = max(2, min(8, os.cpu_count() or 2))
OVERHEAD_BYTES = 1024  # what a kept picture weighs beside its bytes: its ETag, its entry
MOST_WAITING = {False: 1024, True: 64}  # large or not: who went away cannot be told from who waits
DRAWN_BY = 1  # part of every ETag: counted up when the same request comes to give other bytes

KEPT = "private, max-age=31536000, immutable"
LIVE = "no-store"


@dataclass(frozen=True, slots=True)
class Picture:
    content: bytes
    media_type: str
    live: bool = False


class Drawing:
    def __init__(self, cache_bytes: int, threads: int = THREADS) -> None:
        self._cache: Cache[Picture] = Cache(cache_bytes, lambda picture: len(picture.content) + OVERHEAD_BYTES)
        self._threads = ThreadPoolExecutor(threads, "drawing")
        self._large = ThreadPoolExecutor(1, "drawing-large")
        self._pending: dict[str, asyncio.Future[Picture]] = {}
        self._waiting = {False: 0, True: 0}

    @property
    def kept_bytes(self) -> int:
        return self._cache.weight

    async def answer(
        self, request: Request, key: Hashable, draw: Callable[[], Picture], large: bool = False
    ) -> Response:
        """key: all that the picture depends on. draw: blocking; what it raises is raised here. large: one at a time.

        Raises Busy.
        """
        condition, etag = request.headers.get("if-none-match"), etag_of(key)
        if condition and condition != "*" and is_current(condition, etag):  # whoever has it may keep it
            return Response(status_code=304, headers={"ETag": etag, "Cache-Control": KEPT})
        picture = self._cache.get(etag) or await self._drawn(etag, draw, large)
        headers = {"Cache-Control": LIVE} if picture.live else {"ETag": etag, "Cache-Control": KEPT}
        if condition == "*" and not picture.live:
            return Response(status_code=304, headers=headers)
        headers["Content-Length"] = str(len(picture.content))
        return Response(b"" if request.method == "HEAD" else picture.content, 200, headers, picture.media_type)

    def close(self) -> None:
        """What is not begun will not be: else the process would end only when all of it is drawn."""
        for threads in (self._threads, self._large):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _drawn(self, key: str, draw: Callable[[], Picture], large: bool) -> Picture:
        """One drawing for all who wait; it is finished although one of them goes away."""
        pending = self._pending.get(key)
        if pending is None:
            if self._waiting[large] >= MOST_WAITING[large]:
                raise Busy(f"{MOST_WAITING[large]} pictures wait to be drawn; ask again in a moment")
            pending = asyncio.get_running_loop().run_in_executor(self._large if large else self._threads, draw)
            self._pending[key], self._waiting[large] = pending, self._waiting[large] + 1
            pending.add_done_callback(lambda done: self._keep(key, large, done))
        return await asyncio.shield(pending)

    def _keep(self, key: str, large: bool, done: asyncio.Future[Picture]) -> None:
        del self._pending[key]
        self._waiting[large] -= 1
        if not done.cancelled() and done.exception() is None and not done.result().live:
            self._cache.put(key, done.result())


def etag_of(key: Hashable) -> str:
    """Strong: what a picture shows and how it is drawn never change for one key, unless it is live."""
    return f'"{hashlib.blake2b(repr((DRAWN_BY, key)).encode(), digest_size=16).hexdigest()}"'
