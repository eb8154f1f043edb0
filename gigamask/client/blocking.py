"""`Client`: a service from blocking code."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx

from gigamask.client import calls
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
    READ_BYTES,
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


class Client:
    """A Gigamask service.

        with Client("http://127.0.0.1:8000") as client:
            job = client.wait(client.submit("slide.svs", model="earth-water"))
            mask = client.open_mask(job)

    server: its URL. patience_s: how long, in pauses without any progress, a transfer or a wait outlasts a service that
    is away. headers: sent with each request. piece_bytes: of an upload. Every method raises Refused (the service says
    no, and why) and Unreachable (nobody answers). Safe to share between threads.
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
        self._http = httpx.Client(**http_options(self.server, headers))

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def close(self) -> None:
        """Masks that were opened can no longer be read."""
        self._http.close()

    def submit(
        self,
        source: str | Path | None = None,
        *,
        model: str,
        image: str | Job | None = None,
        progress: Callable[[int, int], None] | None = None,
        resume: bool = True,
        **options: Any,
    ) -> Job:
        """Upload a file, or name an image that is there (a job's `image_id`, or the job), and start a job.

        The upload goes on where it was after broken connections and restarts of the service; with `resume` also where
        an earlier process left it. progress: told (bytes there, bytes in all). options: as in `POST /segment`, such as
        `region_px=1024`. Raises FileNotFoundError, FileChanged, Refused, Unreachable.
        """
        asked = {"model": model, "options": options}
        path = source_of(source, image)
        if path is None:
            return self._run(calls.submit_image(image_id_of(image), asked))
        identity = FileIdentity.of(path)
        with memory_of(identity, self.server, cache_folder() if resume else None) as memory:
            outgoing = Outgoing(identity, memory, progress or nothing, self._piece_bytes)
            return self._run(submit_file(outgoing, asked, self._patience()))

    def job(self, job: str | Job) -> Job:
        """How a job is now."""
        return self._run(calls.read_one_job(id_of(job)))

    def jobs(self, limit: int = 50) -> list[Job]:
        """The newest first."""
        return self._run(calls.list_jobs(limit))

    def models(self) -> list[Model]:
        """What there is to segment with."""
        return self._run(calls.list_models())

    def iter_events(self, job: str | Job) -> Iterator[Job]:
        """The job now, and at each change until its end."""
        return self._iterate(follow(id_of(job), self._patience()))

    def wait(self, job: str | Job, progress: Callable[[Job], None] | None = None) -> Job:
        """Until the job has ended, well or badly: look at `state`. progress: told the job at each change."""
        found: Job | None = None
        for found in self.iter_events(job):
            (progress or nothing)(found)
        return found or self.job(job)

    def cancel(self, job: str | Job) -> Job:
        """Raises Refused ("conflict") for a job that has ended."""
        return self._run(calls.cancel_job(id_of(job)))

    def files(self, job: str | Job) -> list[File]:
        """What a result can be had as."""
        return self._run(calls.list_files(id_of(job)))

    def download(
        self,
        job: str | Job,
        name: str,
        to: str | Path,
        progress: Callable[[int, int | None], None] | None = None,
        **options: Any,
    ) -> Path:
        """One of `files` to disk, into `to`, or into the folder `to` under its own name.

        Waits while the service makes it; goes on where an earlier attempt ended. progress: told (bytes there, bytes in
        all; None while it is made). options: as the route's query, such as `simplify=1`.
        """
        download = Download(*place_for(job, name, Path(to), options), progress or nothing)
        return self._run(fetch_file(download, self._patience()))

    def open_mask(self, job: str | Job, level: int = 0) -> zarr.Array[Any]:
        """The labels (y, x) uint8 of a job that has succeeded, read by ranges as they are asked for; 255 = no data.

        level: 0 is the image's own size, each next one half of it. Until `close`.
        """
        found = job if isinstance(job, Job) else self.job(job)
        return self._open_array(found, f"labels/{found.model}/{level}")

    def open_image(self, job: str | Job, level: int = 0) -> zarr.Array[Any]:
        """The image that the job segmented, as the result holds it."""
        return self._open_array(job if isinstance(job, Job) else self.job(job), str(level))

    def _open_array(self, job: Job, path: str) -> zarr.Array[Any]:
        import zarr

        from gigamask.client.masks import HttpStore

        store = HttpStore(self._http, self.server + mask_path(job))
        return zarr.open_array(store, path=path, mode="r", zarr_format=3)

    def _patience(self) -> Patience:
        return Patience(self._patience_s)

    def _run(self, operation: Operation[T]) -> T:
        hands = Hands(self._http)
        try:
            effect = next(operation)
            while True:
                effect = advance(operation, hands.do(effect))
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            hands.shut()

    def _iterate(self, operation: Operation[Any]) -> Iterator[Any]:
        hands = Hands(self._http)
        try:
            effect = next(operation)
            while True:
                if isinstance(effect, Tell):
                    yield effect.value
                effect = advance(operation, hands.do(effect))
        except StopIteration:
            return
        finally:
            hands.shut()


class Hands:
    """What the effects of one operation come to, with httpx."""

    def __init__(self, http: httpx.Client) -> None:
        self._http = http
        self._opened: httpx.Response | None = None
        self._blocks: Iterator[bytes] = iter(())

    def do(self, effect: Effect) -> Any:
        """-> what became of it; Broken is returned, not raised."""
        try:
            return self._act(effect)
        except httpx.RequestError as exc:  # also redirects without end, and what cannot be decompressed
            self.shut()
            return Broken(f"{self._http.base_url}: {exc or type(exc).__name__}")

    def shut(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def _act(self, effect: Effect) -> Any:
        match effect:
            case Send(request):
                return answer_of(self._http.send(self._built(request)))
            case Open(request):
                self._opened = self._http.send(self._built(request), stream=True)
                self._blocks = self._opened.iter_raw()
                return answer_of(self._opened)
            case Read():
                return next(self._blocks, b"")
            case Shut():
                return self.shut()
            case Do(act):
                return act()
            case Sleep(seconds):
                return time.sleep(seconds)
        return None

    def _built(self, request: Request) -> httpx.Request:
        content = blocks_of(request.piece) if request.piece else None
        return self._http.build_request(**request_options(request), content=content)


def blocks_of(piece: FilePiece) -> Iterator[bytes]:
    """Never more than the piece has: a file that grows is none of its business."""
    left = piece.length
    with piece.path.open("rb") as stream:
        stream.seek(piece.start)
        while left and (block := stream.read(min(left, READ_BYTES))):
            yield block
            left -= len(block)
            piece.on_sent(len(block))
