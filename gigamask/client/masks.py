"""A published result as a Zarr store that reads over HTTP, through the client's own connections.

zarr-python's own ways (fsspec with aiohttp, obstore) need packages that a client has no other use for, and take every
404 and some other failures for an absent chunk. Here only a 404 is an absent chunk; whatever else is no pixels raises.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

import httpx
from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest

from gigamask.client.effects import Answer, refusal
from gigamask.client.errors import Unreachable
from gigamask.client.patience import PASSING

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer, BufferPrototype

PAUSES_S = (0.2, 1.0, 3.0)


class HttpStore(Store):
    """Read only, and not listed: whoever opens an array names it. url: of the root, without a slash at its end."""

    supports_writes = False
    supports_deletes = False
    supports_listing = False

    def __init__(self, http: httpx.Client, url: str) -> None:
        super().__init__(read_only=True)
        self._http, self._url = http, url

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HttpStore) and other._url == self._url

    def __repr__(self) -> str:
        return f"HttpStore({self._url!r})"

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        content = await asyncio.to_thread(self._read, key, _range_header(byte_range))
        return None if content is None else prototype.buffer.from_bytes(content)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return await asyncio.gather(*(self.get(key, prototype, span) for key, span in key_ranges))

    async def exists(self, key: str) -> bool:
        return await asyncio.to_thread(self._read, key, {"Range": "bytes=0-0"}) is not None

    def _read(self, key: str, headers: dict[str, str]) -> bytes | None:
        """Raises Refused, Unreachable."""
        for pause_s in (*PAUSES_S, None):
            try:
                answer = self._http.get(f"{self._url}/{key}", headers=headers)
            except httpx.RequestError as exc:
                if pause_s is None:
                    raise Unreachable(f"{self._url}/{key}: {exc}") from exc
            else:
                if answer.status_code == 404:
                    return None
                if answer.status_code < 400:
                    return answer.content
                if pause_s is None or answer.status_code not in PASSING:
                    raise refusal(Answer(answer.status_code, answer.headers, answer.content))
            time.sleep(pause_s)
        raise AssertionError("unreachable")

    async def set(self, key: str, value: Buffer) -> None:
        raise NotImplementedError("a published result does not change")

    async def delete(self, key: str) -> None:
        raise NotImplementedError("a published result does not change")

    def list(self) -> AsyncIterator[str]:
        raise NotImplementedError("results are not listed over HTTP")

    def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError("results are not listed over HTTP")

    def list_dir(self, prefix: str) -> AsyncIterator[str]:
        raise NotImplementedError("results are not listed over HTTP")


def _range_header(span: ByteRequest | None) -> dict[str, str]:
    """RFC 9110, 14.1.2."""
    if isinstance(span, RangeByteRequest):
        return {"Range": f"bytes={span.start}-{span.end - 1}"}
    if isinstance(span, OffsetByteRequest):
        return {"Range": f"bytes={span.offset}-"}
    if isinstance(span, SuffixByteRequest):
        return {"Range": f"bytes=-{span.suffix}"}
    return {}
