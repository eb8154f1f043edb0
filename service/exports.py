"""`/jobs/{id}/files`: a result as files of other tools.

A file that was made is sent like any other, by ranges; one that was not is made by a child process (service.builds)
while the client waits or comes back.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from gigamask.errors import Conflict, NotFound
from gigamask.exports.building import fraction_of, sweep_folder
from gigamask.exports.catalog import DEFAULTS, FORMATS, ExportOptions, Format, download_name, write_options
from gigamask.legend import parse_colors
from gigamask.roi import parse_roi
from service.builds import Build, Builds, Task
from service.files import send_file
from service.masks import PROBLEMS, JobId, attachment, base_name, published_mask
from service.parts import Parts, PartsDep, RootPath
from service.schemas import ProblemView

if TYPE_CHECKING:
    from gigamask.pyramid.result import Result

WAIT_S = 8.0
POLL_S = 0.1
RETRY_AFTER_S = 2
MAX_VARIANTS = 16  # files of one result made with options; the oldest go
SPACE_FACTOR = 3  # a draft and the file, each a little larger than the mask's own shards
OPEN_RESULTS = 32
FILE_CACHED = {"Cache-Control": "private, no-cache, no-transform"}  # no-cache: ask whether it is still so (ETag)
QUERY_NAMES = {"colors": "colors", "simplify_px": "simplify", "roi": "roi", "min_area_px": "min_area"}
_VARIANT = re.compile(r"[0-9a-f]{16}-.+")
_PRIVATE_SUFFIXES = (".building", ".lock", ".partial")

router = APIRouter(tags=["files"])

State = Literal["ready", "absent", "building", "not_offered"]


class FileView(BaseModel):
    """One file of a result, as it comes without options.

    state: `ready` to be sent; `absent`: made when it is asked for; `building`; `not_offered`, and `why`. options: what
    its query may change. bytes: null where it is not known. link: null where it is not offered.
    """

    name: str
    title: str
    media_type: str
    state: State
    why: str | None = None
    fraction: float | None = None
    bytes: int | None = None
    options: list[str] = []
    link: str | None = None


class FileListView(BaseModel):
    files: list[FileView]


class BuildingView(BaseModel):
    """fraction: done, in [0, 1]; a file that waits its turn is at 0."""

    name: str
    state: Literal["building"] = "building"
    fraction: float


class FileQuery(BaseModel):
    """Each is taken by the files that it changes, and left alone by the others."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    colors: Annotated[str, Field(max_length=8192, description="Other colours: `0:ff8800,3:00ff00`.")] = ""
    simplify: Annotated[
        FiniteFloat | None,
        Field(ge=0, le=1000, description="Pixels by which outlines may be simplified; 0 or none: not at all."),
    ] = None
    roi: Annotated[
        str | None,
        Field(max_length=60_000, description="Only what lies in it: `x,y,width,height` in pixels, or GeoJSON."),
    ] = None
    min_area: Annotated[int, Field(ge=0, le=10**12, description="Smaller objects are left out; in pixels.")] = 0

    def options(self) -> ExportOptions:
        """Raises InvalidOption."""
        return ExportOptions(
            colors=parse_colors(self.colors),
            simplify_px=self.simplify or None,
            roi=parse_roi(self.roi) if self.roi else None,
            min_area_px=self.min_area,
        )


async def builds_of(request: Request) -> Builds:
    """The application's own, made when it is first asked for."""
    state = request.app.state
    if not hasattr(state, "builds"):
        state.builds = Builds()
    builds: Builds = state.builds
    return builds


BuildsDep = Annotated[Builds, Depends(builds_of)]
FileName = Annotated[str, "As in the list."]
FILE_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"application/octet-stream": {}}, "description": "The whole file."},
    202: {"model": BuildingView, "description": "It is being made; `Retry-After` says when to ask again."},
    206: {"description": "The bytes asked for (one range; a suffix range too)."},
    304: {"description": "Not changed (If-None-Match)."},
    416: {"model": ProblemView, "description": "The range is outside the file."},
    500: {"model": ProblemView, "description": "It could not be made; asked again, it is tried again."},
    503: {"model": ProblemView, "description": "As many files are being made, or wait, as may."},
    507: {"model": ProblemView, "description": "There is no space for it."},
}


@router.get("/jobs/{job_id}/files", summary="The files that a result can be had as", responses=PROBLEMS)
def list_files(job_id: JobId, parts: PartsDep, root_path: RootPath, builds: BuildsDep) -> FileListView:
    """Those that lie elsewhere too: the result itself, as a Zarr store and in one file."""
    root = published_mask(job_id, parts)
    here = f"{root_path}/jobs/{job_id}"
    files = [_view(entry, _result(root), here, parts.store.exports(job_id), builds) for entry in FORMATS]
    return FileListView(files=[*_stores(root, here), *files])


@router.head("/jobs/{job_id}/files/{name}", include_in_schema=False)
@router.get(
    "/jobs/{job_id}/files/{name}",
    summary="A result as one file",
    response_class=Response,
    responses=FILE_ANSWERS | PROBLEMS,
)
async def read_file(
    job_id: JobId,
    name: str,
    request: Request,
    query: Annotated[FileQuery, Query()],
    parts: PartsDep,
    root_path: RootPath,
    builds: BuildsDep,
) -> Response:
    """Sent if it was made before; else made now: `200` if that takes a few seconds, otherwise `202` meanwhile."""
    entry = _listed(name)
    if entry.store:
        raise Conflict(f"{name} is no file but a store: open {root_path}/jobs/{job_id}/{name} as Zarr")
    task = await run_in_threadpool(_task, job_id, entry, query, parts)
    build = await run_in_threadpool(_begin, task, parts, builds)
    if build is not None:
        await _wait(build)
        if build.problem is not None:
            builds.find(task.target)  # told now
            raise build.problem
    return await run_in_threadpool(_answer, request, entry, task, build, parts)


def _listed(name: str) -> Format:
    """By its file name alone. Raises NotFound."""
    for entry in FORMATS:
        if entry.name == name:
            return entry
    raise NotFound(f"no file {name!r}; there are: {', '.join(entry.name for entry in FORMATS)}")


@lru_cache(maxsize=OPEN_RESULTS)
def _result(root: Path) -> Result:
    """A published result does not change."""
    from gigamask.pyramid.result import open_result

    return open_result(root)


def _view(entry: Format, result: Result, here: str, folder: Path, builds: Builds) -> FileView:
    shown = FileView(name=entry.name, title=entry.title, media_type=entry.media_type, state="ready")
    shown.options = [name for option, name in QUERY_NAMES.items() if option in entry.takes]
    if why := entry.offered(result):
        return shown.model_copy(update={"state": "not_offered", "why": why})
    if entry.store:
        return shown.model_copy(update={"link": f"{here}/{entry.name}"})
    target = folder / entry.name
    link = f"{here}/files/{quote(entry.name)}"
    if target.is_file():
        return shown.model_copy(update={"link": link, "bytes": target.stat().st_size})
    fraction = _fraction(target, builds.peek(target))
    state = "absent" if fraction is None else "building"
    return shown.model_copy(update={"state": state, "fraction": fraction, "link": link})


def _stores(root: Path, here: str) -> Iterator[FileView]:
    """What lies in the published tree itself."""
    media_type = "application/vnd.zarr; version=3"
    title = "OME-Zarr 0.5: image and mask, by URL"
    yield FileView(name="mask.zarr", title=title, media_type=media_type, state="ready", link=f"{here}/mask.zarr")
    if (root / "probabilities" / "zarr.json").is_file():
        title = "Probabilities of the classes, OME-Zarr 0.5, by URL"
        link = f"{here}/mask.zarr/probabilities"
        yield FileView(name="probabilities.zarr", title=title, media_type=media_type, state="ready", link=link)


def _task(job_id: str, entry: Format, query: FileQuery, parts: Parts) -> Task:
    """Raises Conflict where there is no result, or where it cannot be had so; InvalidOption."""
    root = published_mask(job_id, parts)
    result, options = _result(root), entry.narrow(query.options())
    result.legend.recolored(options.colors)
    if why := entry.offered(result):
        raise Conflict(f"{entry.name} cannot be had of this result: {why}")
    text = write_options(options)
    variant = "" if options == entry.narrow(DEFAULTS) else f"{hashlib.sha256(text.encode()).hexdigest()[:16]}-"
    target = parts.store.exports(job_id) / f"{variant}{entry.name}"
    return Task(root, entry.name, target, text, parts.settings.export_memory_bytes)


def _begin(task: Task, parts: Parts, builds: Builds) -> Build | None:
    """None where it is there, or another process makes it. Raises InsufficientStorage, or why it failed before."""
    if task.target.is_file():
        return None
    known = builds.find(task.target)
    if known is not None and known.problem is not None:
        raise known.problem
    if known is not None:
        return known
    if fraction_of(task.target) is not None:
        return None
    parts.store.require_free(SPACE_FACTOR * _mask_bytes(task.root), parts.settings.min_free_bytes)
    sweep_folder(task.target.parent)
    _trim_variants(task.target.parent)
    return builds.begin(task)


@lru_cache(maxsize=OPEN_RESULTS)
def _mask_bytes(root: Path) -> int:
    return sum(path.stat().st_size for path in (root / "labels").rglob("*") if path.is_file())


def _trim_variants(folder: Path) -> None:
    """Make room for one more. Who is reading a file that goes keeps it until the end."""
    made: list[tuple[float, Path]] = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if _VARIANT.fullmatch(path.name) and path.suffix not in _PRIVATE_SUFFIXES:
            with suppress(FileNotFoundError):
                made.append((path.stat().st_mtime, path))
    for _, path in sorted(made)[: max(0, len(made) - MAX_VARIANTS + 1)]:
        path.unlink(missing_ok=True)


async def _wait(build: Build) -> None:
    until = time.monotonic() + WAIT_S
    while not build.ended.is_set() and time.monotonic() < until:
        await asyncio.sleep(POLL_S)


def _answer(request: Request, entry: Format, task: Task, build: Build | None, parts: Parts) -> Response:
    name = download_name(base_name(task.target.parent.parent.name, parts), entry)
    with suppress(FileNotFoundError):  # not there yet, or gone again to make room
        headers = FILE_CACHED | {"Content-Disposition": attachment(name)}
        return send_file(request, task.target, headers, entry.media_type)
    view = BuildingView(name=entry.name, fraction=_fraction(task.target, build) or 0.0)
    headers = {"Retry-After": str(RETRY_AFTER_S), "Cache-Control": "no-store"}
    return JSONResponse(view.model_dump(), 202, headers)


def _fraction(target: Path, build: Build | None) -> float | None:
    """None where nobody builds it."""
    if build is not None and not build.ended.is_set():
        return build.fraction
    return fraction_of(target)
