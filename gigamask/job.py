"""The job record: what was asked, how far it is, what came of it. Kept in Redis and, as JSON, beside the data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from gigamask.image_info import ImageInfo, ReadOptions
from gigamask.roi import Roi
from gigamask.sieve import LARGEST_MIN_OBJECT_PX

Background = Literal["keep", "skip"]
Resolution = Literal["model", "native"]
Overlap = Literal["none", "half", "gaussian"]


class State(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class Stage(StrEnum):
    INGEST = "ingest"
    SEGMENT = "segment"
    ASSEMBLE = "assemble"


class Problem(BaseModel):
    """Why a job failed. code: as in gigamask.errors."""

    model_config = ConfigDict(frozen=True)

    code: str
    detail: str
    region: int | None = None


class JobOptions(BaseModel):
    """What labels are a function of, beside the image and the model; `region_px` alone changes none.

    region_px: side of a region; None = chosen from the image's size.
    roi: only its tiles are run, and what lies outside it is no data, pixel by pixel.
    background: skip = tiles without tissue are not run, and are no data.
    resolution: model = as large a pixel as the model was trained at, where it says so; native = the image's own.
    overlap: half, gaussian = tiles at every half tile, scores averaged, as they are or weighted towards tiles' centres.
    min_object_px: smaller objects take the label around them. probabilities: kept for every class, beside the labels.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    region_px: int | None = None
    read: ReadOptions = ReadOptions()
    roi: Roi | None = None
    background: Background = "keep"
    resolution: Resolution = "model"
    overlap: Overlap = "none"
    min_object_px: Annotated[int, Field(ge=0, le=LARGEST_MIN_OBJECT_PX)] = 0
    probabilities: bool = False


class SelectionSummary(BaseModel):
    """Which tiles were run, and why. method, threshold, tissue_share: of the background, where it was skipped."""

    model_config = ConfigDict(frozen=True)

    method: str | None = None
    threshold: float | None = None
    tissue_share: float | None = None
    tiles_total: int
    tiles_selected: int


@dataclass(frozen=True, slots=True)
class RegionOutcomes:
    """Indices of regions, row by row. grid: regions down, regions across. skipped: nothing there to be labelled."""

    region_px: int
    grid: tuple[int, int]
    done: frozenset[int]
    skipped: frozenset[int]
    failed: frozenset[int]


class Job(BaseModel):
    """Times are UTC. areas_px: class id -> pixels labelled so far (255 = no data).

    scale: level-0 pixels along one pixel as the model sees it. selection: None where every tile is run.
    """

    model_config = ConfigDict(frozen=True)

    id: str
    image_id: str
    file_name: str
    model: str
    options: JobOptions = JobOptions()
    state: State = State.QUEUED
    stage: Stage = Stage.INGEST
    created_at: datetime
    started_at: datetime | None = None
    segment_started_at: datetime | None = None
    finished_at: datetime | None = None
    image: ImageInfo | None = None
    region_px: int | None = None
    scale: float = 1.0
    selection: SelectionSummary | None = None
    regions_total: Annotated[int, Field(ge=0)] = 0
    regions_done: Annotated[int, Field(ge=0)] = 0
    regions_skipped: Annotated[int, Field(ge=0)] = 0
    ingest_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    areas_px: dict[int, int] = {}
    error: Problem | None = None
