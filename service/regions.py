"""`/jobs/{id}/regions`: which regions were skipped, and why, and which one failed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, Field

from gigamask.errors import GigamaskError
from gigamask.geometry import Box
from gigamask.job import Job
from gigamask.tiles.cache import Cache
from service.parts import PartsDep
from service.tiles import PROBLEMS, JobId, tiles_of

if TYPE_CHECKING:
    from gigamask.tiles.skipped import Ground

UNTOLD = "no valid pixel"

router = APIRouter(tags=["jobs"])


class RegionView(BaseModel):
    index: int
    box: Annotated[tuple[int, int, int, int], Field(description="[y0, x0, y1, x1), in pixels of the image.")]
    reason: str


class RegionListView(BaseModel):
    """Regions are squares of `region_px`, numbered row by row. grid: rows, columns. done: labelled by the model."""

    region_px: int
    grid: tuple[int, int]
    done: int
    skipped: list[RegionView]
    failed: list[RegionView]


class Grounds:
    """What reasons are read from, made one at a time and kept for the last few jobs; made once with the app."""

    def __init__(self) -> None:
        self._kept: Cache[Ground] = Cache(8)
        self._lock = threading.Lock()

    def of(self, request: Request, job: Job) -> Ground | None:
        """Blocking. None where it cannot be told."""
        from gigamask.tiles.layers import ImageLayer
        from gigamask.tiles.skipped import survey

        with self._lock:
            ground = self._kept.get(job.id)
            if ground is None:
                try:
                    layer = tiles_of(request).views.image(job.id).layer
                    assert isinstance(layer, ImageLayer)
                    ground = survey(job, layer.pyramid)
                except GigamaskError:
                    return None
                self._kept.put(job.id, ground)
            return ground


@router.get("/jobs/{job_id}/regions", summary="What was skipped, and what failed", responses=PROBLEMS)
def read_regions(job_id: JobId, request: Request, response: Response, parts: PartsDep) -> RegionListView:
    """Once the image has been read; before that 409."""
    from gigamask.tiles.skipped import region_boxes

    job, found = parts.jobs.get(job_id), parts.jobs.outcomes(job_id)
    grounds: Grounds = request.app.state.grounds
    ground = grounds.of(request, job) if found.skipped else None
    detail = job.error.detail if job.error else "failed"
    response.headers["Cache-Control"] = "no-store"
    return RegionListView(
        region_px=found.region_px,
        grid=found.grid,
        done=len(found.done),
        skipped=[
            _view(index, box, ground.reason(box) if ground else UNTOLD)
            for index, box in region_boxes(job, found.skipped)
        ],
        failed=[_view(index, box, detail) for index, box in region_boxes(job, found.failed)],
    )


def _view(index: int, box: Box, reason: str) -> RegionView:
    return RegionView(index=index, box=(box.y0, box.x0, box.y1, box.x1), reason=reason)
