"""/jobs: progress, areas, pages, cancelling."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from gigamask.image_info import ImageInfo
from gigamask.job import Job, JobOptions, Problem, Stage, State
from gigamask.queue import keys
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.store import Store, new_id
from service.schemas import areas, eta_s, percent, rate_mp_per_s, retry_after_s
from tests.service.conftest import CLASSES, MODEL, expected_labels, publish_job, write_model

NOW = datetime(2026, 1, 1, tzinfo=UTC)
INFO = ImageInfo(height=1000, width=4000, channels=3, format="test", pixel_size=(0.5, 2.0), unit="micrometer")


def job_at(**known: object) -> Job:
    fixed = {"id": new_id(), "image_id": new_id(), "file_name": "a.tif", "model": MODEL, "created_at": NOW}
    return Job.model_validate(fixed | known)


def segmenting(done: int, skipped: int, total: int, seconds: float) -> Job:
    return job_at(
        state=State.RUNNING, stage=Stage.SEGMENT, image=INFO, regions_done=done, regions_skipped=skipped,
        regions_total=total, segment_started_at=NOW - timedelta(seconds=seconds),
    )  # fmt: skip


def test_percent_covers_all_stages_and_never_falls() -> None:
    course = [
        job_at(),
        job_at(state=State.RUNNING, ingest_fraction=0.5),
        job_at(state=State.RUNNING, ingest_fraction=1.0),
        segmenting(0, 0, 10, 1),
        segmenting(3, 2, 10, 1),
        segmenting(8, 2, 10, 1),
        job_at(state=State.RUNNING, stage=Stage.ASSEMBLE, regions_done=8, regions_skipped=2, regions_total=10),
        job_at(state=State.SUCCEEDED, stage=Stage.ASSEMBLE, regions_done=8, regions_skipped=2, regions_total=10),
    ]
    assert [percent(job) for job in course] == [0, 7.5, 15, 15, 55, 95, 95, 100]


def test_rate_and_eta_come_from_what_is_segmented() -> None:
    job = segmenting(done=1, skipped=1, total=8, seconds=10)
    assert rate_mp_per_s(job, NOW) == pytest.approx(4.0 * 2 / 8 / 10)
    assert eta_s(job, NOW) == pytest.approx(30)
    assert retry_after_s(job, NOW) == 2


def test_nothing_is_guessed_before_the_first_region() -> None:
    for job in (job_at(), job_at(state=State.RUNNING), segmenting(0, 0, 8, 10)):
        assert rate_mp_per_s(job, NOW) is None
        assert eta_s(job, NOW) is None
        assert retry_after_s(job, NOW) == 1


def test_areas_are_in_pixels_and_in_the_units_of_the_image(tmp_path: Path) -> None:
    model = write_model(tmp_path)
    shown = areas(job_at(image=INFO, areas_px={1: 10, 255: 5}), model)
    assert [(a.name, a.color, a.px, a.area, a.unit) for a in shown] == [
        ("sea", "#0000ff", 0, 0.0, "um^2"),
        ("land", "#00ff00", 10, 10.0, "um^2"),
    ]
    meters = INFO.model_copy(update={"unit": "meter"})
    assert areas(job_at(image=meters, areas_px={1: 10}), model)[1].unit == "m^2"
    unknown = INFO.model_copy(update={"unit": None, "pixel_size": None})
    assert [(a.area, a.unit) for a in areas(job_at(image=unknown, areas_px={1: 10}), model)] == [(None, None)] * 2


def test_classes_of_a_model_that_is_gone_go_by_their_numbers() -> None:
    assert [(a.id, a.name) for a in areas(job_at(areas_px={3: 1, 255: 1}), None)] == [(3, "class 3")]


async def test_a_finished_job_tells_everything(client: httpx.AsyncClient, jobs: JobStore, store: Store) -> None:
    job = publish_job(jobs, store)
    answer = await client.get(f"/jobs/{job.id}")
    shown = answer.json()
    assert "Retry-After" not in answer.headers
    assert (shown["state"], shown["percent"], shown["error"]) == ("succeeded", 100, None)
    assert shown["regions"] == {"done": 4, "skipped": 2, "total": 6}
    labels = expected_labels()
    for label, area in zip(CLASSES, shown["areas"], strict=True):
        px = int((labels == label.id).sum())
        assert area == label.model_dump() | {"px": px, "area": px * 0.25, "unit": "um^2"}
    assert shown["no_data_px"] == int((labels == 255).sum())
    here = f"/jobs/{job.id}"
    assert shown["links"] == {
        "self": here, "events": f"{here}/events", "regions": f"{here}/regions",
        "image_dzi": f"{here}/image.dzi", "mask_dzi": f"{here}/mask.dzi",
        "mask": f"{here}/mask.zarr", "ozx": f"{here}/mask.ozx", "files": f"{here}/files",
    }  # fmt: skip
    assert (shown["image"]["height"], shown["image_id"]) == (1100, job.image_id)
    assert shown["rate_mp_per_s"] > 0


async def test_a_failed_job_says_why(client: httpx.AsyncClient, jobs: JobStore, store: Store) -> None:
    job = jobs.submit(new_id(), "a.tif", MODEL, JobOptions())
    jobs.fail(job.id, Problem(code="region_failed", detail="region 3 used up 3 attempts", region=3))
    shown = (await client.get(f"/jobs/{job.id}")).json()
    assert shown["state"] == "failed"
    assert shown["error"] == {"code": "region_failed", "detail": "region 3 used up 3 attempts", "region": 3}
    assert list(shown["links"]) == ["self", "events"]


async def test_jobs_come_newest_first_page_by_page(client: httpx.AsyncClient, jobs: JobStore, store: Store) -> None:
    ids = [jobs.submit(new_id(), f"{k}.tif", MODEL, JobOptions()).id for k in range(5)]
    seen, following = [], "/jobs?limit=2"
    while following:
        page = (await client.get(following)).json()
        assert len(page["jobs"]) <= 2
        seen += [job["id"] for job in page["jobs"]]
        following = page["next"]
    assert seen == ids[::-1]
    assert (await client.get("/jobs?limit=0")).status_code == 422


async def test_a_job_that_cannot_be_read_is_left_out_and_hides_no_other(
    client: httpx.AsyncClient, jobs: JobStore, store: Store, connection: Connection
) -> None:
    ids = [jobs.submit(new_id(), f"{k}.tif", MODEL, JobOptions()).id for k in range(3)]
    connection.call("HSET", keys.job(ids[1]), "fixed", '{"sample_range": [0, null]}')
    store.job_record(ids[1]).unlink()
    seen, following = [], "/jobs?limit=1"
    while following:
        page = (await client.get(following)).json()
        seen += [job["id"] for job in page["jobs"]]
        following = page["next"]
    assert seen == [ids[2], ids[0]]
    assert (await client.get(f"/jobs/{ids[1]}")).status_code == 404


async def test_cancel_ends_a_job_once(client: httpx.AsyncClient, jobs: JobStore, store: Store) -> None:
    job = jobs.submit(new_id(), "a.tif", MODEL, JobOptions())
    running = await client.get(f"/jobs/{job.id}")
    assert int(running.headers["Retry-After"]) >= 1
    answer = await client.delete(f"/jobs/{job.id}")
    assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    again = await client.delete(f"/jobs/{job.id}")
    assert (again.status_code, again.json()["code"]) == (409, "conflict")


async def test_unknown_jobs_are_not_found(
    client: httpx.AsyncClient, jobs: JobStore, store: Store, connection: Connection
) -> None:
    job = jobs.submit(new_id(), "a.tif", MODEL, JobOptions())
    connection.call("SETBIT", keys.regions(job.id), 3, 1)
    for job_id in (new_id(), "nonsense", "..%2f..%2fetc", f"{job.id}:regions"):
        for method in ("GET", "DELETE"):
            answer = await client.request(method, f"/jobs/{job_id}")
            assert answer.status_code == 404
            assert answer.headers["Content-Type"] == "application/problem+json"
