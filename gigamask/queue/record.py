"""A job as a Redis hash (live) and as `job.json` beside its data (kept); how an image was read, as its `read.json`.

The hash: `fixed` holds what submit knew, as JSON; every other field is one value, so that a script can set or count it.
A large region of interest has a field of its own, which lists of jobs leave out; `fixed` has the rectangle around it.
"""

from __future__ import annotations

import json
import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from gigamask.errors import InvalidOption
from gigamask.image_info import ReadOptions
from gigamask.job import Job
from gigamask.roi import abridged
from gigamask.store import Store

log = logging.getLogger(__name__)

_FIXED = {"id", "image_id", "file_name", "model", "options", "created_at"}
_PLAIN = ("state", "stage", "started_at", "segment_started_at", "finished_at", "region_px", "scale", "ingest_fraction")
_JSON = ("image", "error", "selection")
_COUNTERS = {"total": "regions_total", "done": "regions_done", "skipped": "regions_skipped"}
_AREA = "area:"
ROI = "roi"


def abridge(job: Job) -> Job:
    """As clients and lists are told of it: with a region of interest that is no larger than they need."""
    roi = job.options.roi
    if roi is None or (told := abridged(roi)) is roi:
        return job
    return job.model_copy(update={"options": job.options.model_copy(update={"roi": told})})


def to_hash(job: Job) -> dict[str, str | int]:
    told = abridge(job)
    whole = told.model_dump(mode="json")
    fields: dict[str, str | int] = {
        "fixed": told.model_dump_json(include=_FIXED),
        "version": 0,
        "next": job.regions_total,
    }
    fields |= {name: str(whole[name]) for name in _PLAIN if whole[name] is not None}
    fields |= {name: json.dumps(whole[name]) for name in _JSON if whole[name] is not None}
    fields |= {field: whole[name] for field, name in _COUNTERS.items()}
    if job.options.roi is not None and told is not job:
        fields[ROI] = job.options.roi.model_dump_json()
    return fields | {f"{_AREA}{label}": pixels for label, pixels in job.areas_px.items()}


def from_hash(fields: Mapping[str, str]) -> Job:
    values = json.loads(fields["fixed"])
    if ROI in fields:
        values["options"]["roi"] = json.loads(fields[ROI])
    values |= {name: fields[name] for name in _PLAIN if name in fields}
    values |= {name: json.loads(fields[name]) for name in _JSON if name in fields}
    values |= {name: fields[field] for field, name in _COUNTERS.items()}
    areas = {name.removeprefix(_AREA): count for name, count in fields.items() if name.startswith(_AREA)}
    return Job.model_validate(values | {"areas_px": areas})


def read_hash(fields: Mapping[str, str]) -> Job | None:
    """None where there is none, or none that can be read (that is logged)."""
    try:
        return from_hash(fields) if fields else None
    except (KeyError, ValueError) as exc:
        log.error("a job's hash cannot be read: %s: %r", exc, fields)
        return None


def write_record(path: Path, job: Job) -> None:
    _write_whole(path, job.model_dump_json(indent=2).encode())


def _write_whole(path: Path, content: bytes) -> None:
    """Whole or not at all: a temporary file, renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def read_record(path: Path) -> Job | None:
    """None where there is none, or none that can be read."""
    try:
        return Job.model_validate_json(path.read_bytes())
    except (FileNotFoundError, ValidationError):
        return None


def reading_path(store: Store, image_id: str) -> Path:
    """Written before the image is read, by the one job that reads it; it counts once the pyramid stands."""
    return store.image(image_id) / "read.json"


def write_reading(store: Store, image_id: str, read: ReadOptions) -> None:
    _write_whole(reading_path(store, image_id), read.model_dump_json().encode())


def reading(store: Store, image_id: str) -> ReadOptions:
    """How the image, whose pyramid stands, was read."""
    try:
        return ReadOptions.model_validate_json(reading_path(store, image_id).read_bytes())
    except FileNotFoundError:
        return ReadOptions()


def require_reading(store: Store, image_id: str, asked: ReadOptions) -> None:
    """Raises InvalidOption where the image, whose pyramid stands, was read otherwise than what is asked for."""
    was = reading(store, image_id).model_dump()
    for name, value in asked.model_dump(exclude_none=True).items():
        if value != was[name]:
            told = "none" if was[name] is None else was[name]
            raise InvalidOption(
                f"the image has been read already, with {name} {told}, not {value}; another needs another upload"
            )
