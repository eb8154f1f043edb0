"""The list of regions: what was skipped is told with its reason, what failed with its problem."""

from __future__ import annotations

import httpx
import numpy as np
import pytest

from gigamask.geometry import Box
from gigamask.job import Job, JobOptions, Problem
from gigamask.plan import Plan
from gigamask.pyramid.image import ImagePyramid
from gigamask.queue.job_store import JobStore
from gigamask.roi import parse_roi
from gigamask.store import Store, new_id
from gigamask.tiles.skipped import NO_DATA, NO_TISSUE, NOTHING, OUTSIDE, region_boxes, survey
from tests.service.conftest import MODEL
from tests.service.looking import write_image

SHAPE = (2048, 1536)  # 4 x 3 regions of 512


def pixels() -> np.ndarray:
    """(4, h, w): tissue in the second row of regions, paper elsewhere; no data in the third row."""
    rng = np.random.default_rng(0)
    image = np.full((4, *SHAPE), 240, np.uint8)
    image[:3] += rng.integers(0, 4, (3, *SHAPE)).astype(np.uint8)
    image[0, 560:1000, 40:1500], image[1, 560:1000, 40:1500] = 150, 60
    image[3] = 255
    image[3, 1024:1536] = 0
    return image


def ingested(jobs: JobStore, store: Store, options: JobOptions | None = None) -> Job:
    job = jobs.submit(new_id(), "a.tif", MODEL, options or JobOptions())
    jobs.start(job.id)
    info = write_image(store, job.image_id, pixels())
    plan = Plan(SHAPE, 512, 2, 512)
    jobs.start_segment(job.id, info, plan.region_px, plan.region_count)
    return jobs.get(job.id)


async def test_skipped_regions_are_told_with_their_place_and_reason(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    job = ingested(jobs, store, JobOptions(background="skip"))
    for index in range(9):
        jobs.complete_region(job.id, index, {0: 1}, skipped=index in (0, 8))
    jobs.complete_region(job.id, 10, {0: 1}, skipped=True)
    told = (await client.get(f"/jobs/{job.id}/regions")).json()
    assert told == {
        "region_px": 512, "grid": [4, 3], "done": 7, "failed": [],
        "skipped": [
            {"index": 0, "box": [0, 0, 512, 512], "reason": "no tissue"},
            {"index": 8, "box": [1024, 1024, 1536, 1536], "reason": "no data"},
            {"index": 10, "box": [1536, 512, 2048, 1024], "reason": "no tissue"},
        ],
    }  # fmt: skip


async def test_a_failed_region_is_told_with_its_problem(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    job = ingested(jobs, store)
    jobs.complete_region(job.id, 0, {0: 1})
    jobs.fail(job.id, Problem(code="region_failed", detail="used up 3 attempts", region=5))
    told = (await client.get(f"/jobs/{job.id}/regions")).json()
    assert told["failed"] == [{"index": 5, "box": [512, 1024, 1024, 1536], "reason": "used up 3 attempts"}]
    assert told["skipped"] == []


async def test_before_the_image_has_been_read_there_are_no_regions(
    client: httpx.AsyncClient, jobs: JobStore, store: Store
) -> None:
    job = jobs.submit(new_id(), "a.tif", MODEL, JobOptions())
    answer = await client.get(f"/jobs/{job.id}/regions")
    assert (answer.status_code, answer.json()["code"]) == (409, "conflict")
    assert (await client.get(f"/jobs/{new_id()}/regions")).status_code == 404


CENTRE = parse_roi("600,600,300,300")


@pytest.mark.parametrize(
    ("options", "reasons"),
    [
        (JobOptions(), [NOTHING] * 6 + [NO_DATA] * 3 + [NOTHING] * 3),
        (JobOptions(background="skip"), [NO_TISSUE] * 3 + [NOTHING] * 3 + [NO_DATA] * 3 + [NO_TISSUE] * 3),
        (JobOptions(roi=CENTRE), [OUTSIDE] * 6 + [NO_DATA] * 3 + [OUTSIDE] * 3),
        (
            JobOptions(roi=CENTRE, background="skip"),
            [OUTSIDE] * 4 + [NO_TISSUE, OUTSIDE] + [NO_DATA] * 3 + [OUTSIDE] * 3,
        ),
    ],
    ids=["nothing chosen", "background", "region of interest", "both"],
)
def test_a_reason_is_the_one_that_the_job_was_given(
    jobs: JobStore, store: Store, options: JobOptions, reasons: list[str]
) -> None:
    job = ingested(jobs, store, options)
    ground = survey(job, ImagePyramid(store.image_zarr(job.image_id)))
    assert [ground.reason(box) for _, box in region_boxes(job, range(12))] == reasons


def test_boxes_of_regions_are_those_of_the_plan(jobs: JobStore, store: Store) -> None:
    job = ingested(jobs, store)
    plan = Plan(SHAPE, 512, 2, 512)
    assert dict(region_boxes(job, range(12))) == {region.index: region.box for region in plan.regions()}
    assert [box for _, box in region_boxes(job, {11})] == [Box(1536, 1024, 2048, 1536)]
