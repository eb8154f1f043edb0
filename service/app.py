"""The HTTP service: parse, call gigamask, answer. One module a noun, errors in problems.py, all routes in docs/http.md.

Neither torch nor libvips is loaded here: images are opened by workers alone.
"""

from __future__ import annotations

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware

from gigamask.manifest import ModelShelf
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store
from service import (
    events,
    exports,
    health,
    iiif,
    jobs,
    masks,
    models,
    old_zarr,
    page,
    problems,
    regions,
    segment,
    tiles,
    tus,
)
from service.draining import DrainRefused
from service.events import Streams
from service.parts import Parts
from service.regions import Grounds
from service.schemas import ProblemView
from service.tiles import Tiles

READ_HEADERS = ["Range", "If-Range", "If-None-Match", "Last-Event-ID"]
WRITE_METHODS = ["POST", "PATCH", "DELETE"]
SHOWN_HEADERS = ["Accept-Ranges", "Content-Length", "Content-Range", "ETag", "Location", "Retry-After"]
DESCRIPTION = """\
Any gigapixel image in, one POST; a mask pyramid out, every tile labelled with its surroundings in view.

    curl -F model=earth-water -F file=@image.tif http://127.0.0.1:8000/segment

answers `202` with a job; follow its `Location` until `state` is `succeeded`, then open `links.mask` as Zarr or download
`links.ozx`. Errors are `application/problem+json` (RFC 9457) with a stable `code`."""


def create_app(settings: Settings, store: Store, jobs_: JobStore, shelf: ModelShelf) -> FastAPI:
    app = FastAPI(
        title="Gigamask",
        version="0.1.0",
        description=DESCRIPTION,
        redirect_slashes=False,
        responses={422: {"model": ProblemView, "description": "The request is not valid."}},
    )
    app.state.parts = Parts(settings, store, jobs_, shelf)
    app.state.tiles = Tiles(app.state.parts)
    app.state.streams = Streams(app.state.parts)
    app.state.grounds = Grounds()
    for router in (
        page.router,
        segment.router,
        tus.router,
        jobs.router,
        events.router,
        masks.router,
        exports.router,
        old_zarr.router,
        tiles.router,
        iiif.router,
        regions.router,
        models.router,
        health.router,
        problems.router,
    ):
        app.include_router(router)
    problems.install_problems(app)
    origins = [origin.strip() for origin in settings.cors_origins.split(",") if origin.strip()]
    named = "*" not in origins  # any page of the web may read; only an origin that is named may also write
    app.add_middleware(
        CORSMiddleware,
        allow_origins=origins,
        allow_methods=["GET", "HEAD", *(WRITE_METHODS if named else ())],
        allow_headers=[*READ_HEADERS, *(("Content-Type", *tus.REQUEST_HEADERS) if named else ())],
        expose_headers=[*SHOWN_HEADERS, *tus.ANSWER_HEADERS],
    )
    app.add_middleware(tus.TusFrame)
    app.add_middleware(DrainRefused)
    return app
