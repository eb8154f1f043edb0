"""What a service tells, as frozen objects: a job, its areas, models, files. `raw` has all that was told."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gigamask.client.errors import Refused

FINAL = ("succeeded", "failed", "cancelled")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Regions:
    """done: labelled by the model. skipped: not run. Finished when done + skipped = total."""

    done: int = 0
    skipped: int = 0
    total: int = 0


@dataclass(frozen=True, slots=True)
class Area:
    """What one class covers so far. area: in `unit` ("um^2" or "m^2"); both None where the pixel size is not known."""

    id: int
    name: str
    color: str
    px: int
    area: float | None
    unit: str | None


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job failed. region: where one region did."""

    code: str
    detail: str
    region: int | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it was when the service was asked.

    state: queued, running, succeeded, failed, cancelled. stage: ingest, segment, assemble. percent: over all stages.
    eta_s: seconds until the last region. image: None until the file was read. image_id: to segment the image again.
    links: name -> path below the service's URL. raw: all that was told.
    """

    id: str
    state: str
    stage: str
    percent: float
    model: str
    image_id: str
    file_name: str
    regions: Regions = Regions()
    rate_mp_per_s: float | None = None
    eta_s: float | None = None
    areas: tuple[Area, ...] = ()
    no_data_px: int = 0
    image: Json | None = None
    options: Json = field(default_factory=dict)
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    links: Mapping[str, str] = field(default_factory=dict)
    error: JobError | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)

    @property
    def final(self) -> bool:
        """Whether it has ended, well or badly."""
        return self.state in FINAL

    @property
    def succeeded(self) -> bool:
        return self.state == "succeeded"


@dataclass(frozen=True, slots=True)
class Model:
    """raw: classes with ids, names and colours, licence, provenance and the rest."""

    name: str
    version: str
    title: str
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class File:
    """One file that a result can be had as.

    state: ready; absent (made when it is asked for); building; not_offered, and `why`. bytes: None where not known.
    """

    name: str
    title: str
    media_type: str
    state: str
    bytes: int | None = None
    why: str | None = None
    link: str | None = None
    raw: Json = field(default_factory=dict, repr=False, compare=False)


@contextmanager
def understood() -> Iterator[None]:
    """Raises Refused where an answer is not what a Gigamask tells."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as exc:
        raise Refused("bad_answer", f"answered with something that no Gigamask tells ({exc})", 200) from exc


@understood()
def read_job(told: Json) -> Job:
    plain = _known(Job, told, without=("regions", "areas", "error", "raw"))
    times = {name: _time(told.get(name)) for name in ("created_at", "started_at", "finished_at")}
    parts = {
        "regions": Regions(**_known(Regions, told.get("regions") or {})),
        "areas": tuple(Area(**_known(Area, area)) for area in told.get("areas") or ()),
        "error": JobError(**_known(JobError, told["error"])) if told.get("error") else None,
    }
    return Job(**(plain | times | parts | {"raw": told}))


@understood()
def read_model(told: Json) -> Model:
    return Model(**_known(Model, told, without=("raw",)), raw=told)


@understood()
def read_file(told: Json) -> File:
    return File(**_known(File, told, without=("raw",)), raw=told)


def _known(kind: Any, told: Json, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """A later service may tell more than this client knows."""
    return {name: told[name] for name in kind.__dataclass_fields__ if name in told and name not in without}


def _time(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None
