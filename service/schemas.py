"""What goes over the wire: requests as they are checked, and jobs, models and images as clients see them.

A record of gigamask (what is kept) becomes a view (what is shown) in a pure function of the record, the model and now.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from gigamask.image_info import ImageInfo, ReadOptions
from gigamask.job import (
    Background,
    Job,
    JobOptions,
    Overlap,
    Problem,
    Resolution,
    SelectionSummary,
    Stage,
    State,
)
from gigamask.manifest import NO_DATA, LabelClass, ModelManifest, PixelSize
from gigamask.queue.record import abridge
from gigamask.roi import parse_roi
from gigamask.sieve import LARGEST_MIN_OBJECT_PX

INGEST_SHARE, SEGMENT_SHARE = 0.15, 0.80  # of `percent`; assembling is the rest
RETRY_AFTER_S = (1, 30)
AREA_UNITS = {"micrometer": "um^2", "meter": "m^2"}


class SegmentOptions(BaseModel):
    """How to read the image, and what to do with it; none of it is needed for an ordinary image."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pixel_size_um: Annotated[
        FiniteFloat | None, Field(gt=0, description="Side of a pixel in micrometres, over what the file says.")
    ] = None
    sample_range: Annotated[
        tuple[FiniteFloat, FiniteFloat] | None,
        Field(description="For images of more than 8 bits: the values that become 0 and 255."),
    ] = None
    region_px: Annotated[
        int | None, Field(description="Side of a region: 512, 1024, 2048 or 4096. The labels do not depend on it.")
    ] = None
    roi: Annotated[
        str | dict[str, Any] | None,
        Field(description="Region of interest: `x,y,width,height` in pixels, or GeoJSON. Outside it is no data."),
    ] = None
    background: Annotated[
        Background, Field(description="skip: tiles without tissue, or without data, are not run and are no data.")
    ] = "keep"
    resolution: Annotated[
        Resolution, Field(description="model: pixels as large as the model was trained at; native: the image's own.")
    ] = "model"
    overlap: Annotated[
        Overlap, Field(description="half, gaussian: tiles overlap by half and are averaged; four times the work.")
    ] = "none"
    min_object_px: Annotated[
        int, Field(ge=0, le=LARGEST_MIN_OBJECT_PX, description="Smaller objects take the label around them.")
    ] = 0
    probabilities: Annotated[bool, Field(description="Keep the probability of every class, 0..255.")] = False

    def job_options(self) -> JobOptions:
        """Raises InvalidOption where the region of interest is none."""
        read = ReadOptions(pixel_size_um=self.pixel_size_um, sample_range=self.sample_range)
        same = self.model_dump(exclude={"pixel_size_um", "sample_range", "roi"})
        roi = None if self.roi is None else parse_roi(self.roi)
        return JobOptions.model_validate(same | {"read": read, "roi": roi})


class SegmentRequest(BaseModel):
    """Segment an image that is already here, or a finished upload, which becomes one."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Annotated[str | None, Field(description="Id of the image, from the job that it was uploaded with.")] = None
    upload: Annotated[
        str | None, Field(description="Id of a finished resumable upload; it is the image's id from then on.")
    ] = None
    model: str
    options: SegmentOptions = SegmentOptions()

    @model_validator(mode="after")
    def _names_one(self) -> SegmentRequest:
        if (self.image is None) == (self.upload is None):
            raise ValueError("expected either `image` or `upload`")
        return self


class RegionsView(BaseModel):
    """done: labelled by the model. skipped: without a pixel to label. Finished when done + skipped = total."""

    done: int
    skipped: int
    total: int


class AreaView(BaseModel):
    """px: pixels labelled so far. area: in `unit`; both null where the image's pixel size is not known."""

    id: int
    name: str
    color: str
    px: int
    area: float | None
    unit: Literal["um^2", "m^2"] | None


class JobView(BaseModel):
    """percent: over all stages. rate_mp_per_s: megapixels a second since segmenting began, skipped included.

    eta_s: seconds until the last region; null while it cannot be told. no_data_px: pixels without data in the image.
    scale: pixels along one as the model sees it. selection: which tiles are run; null where all are, or before it is
    known. options: of a `roi` with over 100 points, the rectangle around it; the result's metadata has the whole.
    image: null until the file has been read. image_id: to segment the same image again without a second upload.
    links: `self`, `events`; `image_dzi`, `regions` and, unless the job failed, `mask_dzi` once the image has been read,
    as far as it can be looked at; once the job has succeeded also `mask`, the root of the result's OME-Zarr, `ozx`,
    the same in one file, and `files`, the list of all that it can be had as.
    """

    id: str
    state: State
    stage: Stage
    percent: float
    regions: RegionsView
    rate_mp_per_s: float | None
    eta_s: float | None
    areas: list[AreaView]
    no_data_px: int
    scale: float
    selection: SelectionSummary | None
    image_id: str
    file_name: str
    image: ImageInfo | None
    model: str
    options: JobOptions
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    links: dict[str, str]
    error: Problem | None


class JobListView(BaseModel):
    """Newest first. next: link to the next page; null on the last."""

    jobs: list[JobView]
    next: str | None


class ModelView(BaseModel):
    name: str
    version: str
    title: str
    description: str
    tile_px: int
    alpha: int
    pixel_size: PixelSize | None
    classes: tuple[LabelClass, ...]
    license: str
    provenance: dict[str, Any]
    link: str


class BrokenModelView(BaseModel):
    name: str
    detail: str


class ModelListView(BaseModel):
    """broken: folders among the models that cannot be used, and why."""

    models: list[ModelView]
    broken: list[BrokenModelView]


class ProblemView(BaseModel):
    """RFC 9457. code: stable, for programs."""

    model_config = ConfigDict(extra="allow")

    type: str
    title: str
    status: int
    detail: str
    instance: str
    code: str


def view_job(job: Job, model: ModelManifest | None, root_path: str, now: datetime | None = None) -> JobView:
    """model: None where the job's model is no longer here; its classes then go by their numbers."""
    now, job = now or datetime.now(UTC), abridge(job)
    return JobView(
        id=job.id,
        state=job.state,
        stage=job.stage,
        percent=percent(job),
        regions=RegionsView(done=job.regions_done, skipped=job.regions_skipped, total=job.regions_total),
        rate_mp_per_s=rate_mp_per_s(job, now),
        eta_s=eta_s(job, now),
        areas=areas(job, model),
        no_data_px=job.areas_px.get(NO_DATA, 0),
        scale=job.scale,
        selection=job.selection,
        image_id=job.image_id,
        file_name=job.file_name,
        image=job.image,
        model=job.model,
        options=job.options,
        created_at=job.created_at,
        started_at=job.started_at,
        finished_at=job.finished_at,
        links=links(job, root_path),
        error=job.error,
    )


def segmented_fraction(job: Job) -> float:
    return (job.regions_done + job.regions_skipped) / job.regions_total if job.regions_total else 0.0


def percent(job: Job) -> float:
    """0..100, one decimal; 100 only for a job that has succeeded."""
    if job.state is State.SUCCEEDED:
        return 100.0
    ingested = 1.0 if job.stage is not Stage.INGEST else job.ingest_fraction
    return round(100 * (INGEST_SHARE * ingested + SEGMENT_SHARE * segmented_fraction(job)), 1)


def segment_seconds(job: Job, now: datetime) -> float:
    """Since the first region was queued, until the job ended or now; 0 before."""
    if job.segment_started_at is None:
        return 0.0
    return max(0.0, ((job.finished_at or now) - job.segment_started_at).total_seconds())


def rate_mp_per_s(job: Job, now: datetime) -> float | None:
    seconds, done = segment_seconds(job, now), segmented_fraction(job)
    return round(job.image.megapixels * done / seconds, 3) if job.image and seconds and done else None


def eta_s(job: Job, now: datetime) -> float | None:
    done, seconds = segmented_fraction(job), segment_seconds(job, now)
    if job.state is not State.RUNNING or not done or not seconds:
        return None
    return round(seconds * (1 - done) / done, 1)


def retry_after_s(job: Job, now: datetime) -> int | None:
    """When to ask again: a twentieth of the time left, within bounds; None for a job that has ended."""
    if job.state.final:
        return None
    low, high = RETRY_AFTER_S
    return round(min(high, max(low, (eta_s(job, now) or 0) / 20)))


def areas(job: Job, model: ModelManifest | None) -> list[AreaView]:
    known = {c.id: c for c in model.classes} if model else {}
    ids = sorted((known.keys() | job.areas_px.keys()) - {NO_DATA})
    return [_area(job, known.get(i) or LabelClass(id=i, name=f"class {i}", color="#808080")) for i in ids]


def _area(job: Job, label: LabelClass) -> AreaView:
    px = job.areas_px.get(label.id, 0)
    pixel_area = job.image.pixel_area if job.image else None
    unit = AREA_UNITS[job.image.unit] if job.image and job.image.unit and pixel_area else None
    area = px * pixel_area if pixel_area else None
    return AreaView.model_validate(label.model_dump() | {"px": px, "area": area, "unit": unit})


def links(job: Job, root_path: str) -> dict[str, str]:
    ends = {"self": "", "events": "/events"}
    if job.image is not None and job.stage is not Stage.INGEST:
        ends |= {"image_dzi": "/image.dzi", "regions": "/regions"}
        if job.state in (State.RUNNING, State.SUCCEEDED):
            ends["mask_dzi"] = "/mask.dzi"
    if job.state is State.SUCCEEDED:
        ends |= {"mask": "/mask.zarr", "ozx": "/mask.ozx", "files": "/files"}
    return {name: f"{root_path}/jobs/{job.id}{end}" for name, end in ends.items()}


def view_model(manifest: ModelManifest, root_path: str) -> ModelView:
    shown = manifest.model_dump(include=set(ModelView.model_fields) - {"link"})
    return ModelView.model_validate(shown | {"link": f"{root_path}/models/{manifest.name}"})
