"""`AsyncClient`: a service from asyncio. The same core as `Client`, another driver."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from gigamask.client import blocking, calls
from gigamask.client.downloading import Download, fetch_file
from gigamask.client.effects import (
    Broken,
    Do,
    Effect,
    FilePiece,
    Open,
    Operation,
    Read,
    Request,
    Send,
    Shut,
    Sleep,
    Tell,
    advance,
)
from gigamask.client.following import follow
from gigamask.client.patience import Patience
from gigamask.client.remembered import FileIdentity, cache_folder, memory_of
from gigamask.client.settled import (
    LOCAL_SERVER,
    PATIENCE_S,
    answer_of,
    http_options,
    id_of,
    image_id_of,
    mask_path,
    nothing,
    place_for,
    request_options,
    source_of,
)
from gigamask.client.uploading import PIECE_BYTES, Outgoing, submit_file
from gigamask.client.views import File, Job, Model

if TYPE_CHECKING:
    import zarr

T = TypeVar("T")


class AsyncClient:
    """`Client` with `await`: the same methods, arguments and errors, and `async for` over `iter_events`.

    async with AsyncClient("http://127.0.0.1:8000") as client:
        job = await client.wait(await client.submit("slide.svs", model="earth-water"))
        mask = await client.open_mask(job)
        window = await mask.getitem((slice(0, 512), slice(0, 512)))
    """

    def __init__(
        self,
        server: str = LOCAL_SERVER,
        *,
        patience_s: float = PATIENCE_S,
        headers: Mapping[str, str] | None = None,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self.server = server.rstrip("/")
        self._patience_s, self._piece_bytes = patience_s, piece_bytes
        self._http = httpx.AsyncClient(**http_options(self.server, headers))
        self._readers = httpx.Client(**http_options(self.server, headers))  # of masks: zarr calls from its own threads

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Masks that were opened can no longer be read."""
        await self._http.aclose()
        self._readers.close()

    async def submit(
        self,
        source: str | Path | None = None,
        *,
        model: str,
        image: str | Job | None = None,
        progress: Callable[[int, int], None] | None = None,
        resume: bool = True,
        **options: Any,
    ) -> Job:
        """See `Client.submit`."""
        asked = {"model": model, "options": options}
        path = source_of(source, image)
        if path is None:
            return await self._run(calls.submit_image(image_id_of(image), asked))
        identity = FileIdentity.of(path)
        with memory_of(identity, self.server, cache_folder() if resume else None) as memory:
            outgoing = Outgoing(identity, memory, progress or nothing, self._piece_bytes)
            return await self._run(submit_file(outgoing, asked, self._patience()))

    async def job(self, job: str | Job) -> Job:
        """See `Client.job`."""
        return await self._run(calls.read_one_job(id_of(job)))

    async def jobs(self, limit: int = 50) -> list[Job]:
        """See `Client.jobs`."""
        return await self._run(calls.list_jobs(limit))

    async def models(self) -> list[Model]:
        """See `Client.models`."""
        return await self._run(calls.list_models())

    async def iter_events(self, job: str | Job) -> AsyncIterator[Job]:
        """See `Client.iter_events`."""
        operation, hands = follow(id_of(job), self._patience()), Hands(self._http)
        try:
            effect = next(operation)
            while True:
                if isinstance(effect, Tell):
                    yield effect.value
                effect = advance(operation, await hands.do(effect))
        except StopIteration:
            return
        finally:
            await hands.shut()

    async def wait(self, job: str | Job, progress: Callable[[Job], None] | None = None) -> Job:
        """See `Client.wait`."""
        found: Job | None = None
        async for found in self.iter_events(job):
            (progress or nothing)(found)
        return found or await self.job(job)

    async def cancel(self, job: str | Job) -> Job:
        """See `Client.cancel`."""
        return await self._run(calls.cancel_job(id_of(job)))

    async def files(self, job: str | Job) -> list[File]:
        """See `Client.files`."""
        return await self._run(calls.list_files(id_of(job)))

    async def download(
        self,
        job: str | Job,
        name: str,
        to: str | Path,
        progress: Callable[[int, int | None], None] | None = None,
        **options: Any,
    ) -> Path:
        """See `Client.download`."""
        download = Download(*place_for(job, name, Path(to), options), progress or nothing)
        return await self._run(fetch_file(download, self._patience()))

    async def open_mask(self, job: str | Job, level: int = 0) -> zarr.AsyncArray[Any]:
        """See `Client.open_mask`; an array to be awaited."""
        found = job if isinstance(job, Job) else await self.job(job)
        return await self._open_array(found, f"labels/{found.model}/{level}")

    async def open_image(self, job: str | Job, level: int = 0) -> zarr.AsyncArray[Any]:
        """See `Client.open_image`; an array to be awaited."""
        return await self._open_array(job if isinstance(job, Job) else await self.job(job), str(level))

    async def _open_array(self, job: Job, path: str) -> zarr.AsyncArray[Any]:
        from zarr.api.asynchronous import open_array

        from gigamask.client.masks import HttpStore

        store = HttpStore(self._readers, self.server + mask_path(job))
        return await open_array(store=store, path=path, mode="r", zarr_format=3)

    def _patience(self) -> Patience:
        return Patience(self._patience_s)

    async def _run(self, operation: Operation[T]) -> T:
        hands = Hands(self._http)
        try:
            effect = next(operation)
            while True:
                effect = advance(operation, await hands.do(effect))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            await hands.shut()


class Hands:
    """What the effects of one operation come to, with httpx under asyncio. What blocks is done in a thread."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._opened: httpx.Response | None = None
        self._blocks: AsyncIterator[bytes] | None = None

    async def do(self, effect: Effect) -> Any:
        """-> what became of it; Broken is returned, not raised."""
        try:
            return await self._act(effect)
        except httpx.RequestError as exc:  # also redirects without end, and what cannot be decompressed
            await self.shut()
            return Broken(f"{self._http.base_url}: {exc or type(exc).__name__}")

    async def shut(self) -> None:
        if self._opened is not None:
            await self._opened.aclose()
            self._opened = None

    async def _act(self, effect: Effect) -> Any:
        match effect:
            case Send(request):
                return answer_of(await self._http.send(self._built(request)))
            case Open(request):
                self._opened = await self._http.send(self._built(request), stream=True)
                self._blocks = self._opened.aiter_raw()
                return answer_of(self._opened)
            case Read():
                return await anext(self._blocks, b"") if self._blocks else b""
            case Shut():
                return await self.shut()
            case Do(act):
                return await asyncio.to_thread(act)
            case Sleep(seconds):
                return await asyncio.sleep(seconds)
        return None

    def _built(self, request: Request) -> httpx.Request:
        content = blocks_of(request.piece) if request.piece else None
        return self._http.build_request(**request_options(request), content=content)


async def blocks_of(piece: FilePiece) -> AsyncIterator[bytes]:
    """As the blocking driver's, each block read in a thread."""
    blocks = blocking.blocks_of(piece)
    while block := await asyncio.to_thread(next, blocks, b""):
        yield block
