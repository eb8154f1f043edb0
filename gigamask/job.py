"""The job record: what was asked, how far it is, what came of it. Kept in Redis and, as JSON, beside the data."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from gigamask.image_info import ImageInfo, ReadOptions


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
    """region_px: side of a region; None = chosen from the image's size (the labels do not depend on it)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    region_px: int | None = None
    read: ReadOptions = ReadOptions()


class Job(BaseModel):
    """Times are UTC. areas_px: class id -> pixels labelled so far (255 = no data)."""

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
    regions_total: Annotated[int, Field(ge=0)] = 0
    regions_done: Annotated[int, Field(ge=0)] = 0
    regions_skipped: Annotated[int, Field(ge=0)] = 0
    ingest_fraction: Annotated[float, Field(ge=0, le=1)] = 0.0
    areas_px: dict[int, int] = {}
    error: Problem | None = None
