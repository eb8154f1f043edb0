"""A region that is finished when nobody wants it any more leaves nothing behind."""

from __future__ import annotations

import numpy as np
import pytest

from gigamask.errors import QueueUnavailable
from gigamask.image_info import ImageInfo
from gigamask.job import Job, JobOptions, Stage
from gigamask.plan import Plan
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter, mask_folder
from gigamask.queue import keys
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store, new_id, partial
from model.predictors import load_predictor
from tests.models_for_tests import threshold_model
from tests.pictures import picture, write_image
from tests.workers.test_worker import working
from workers import queue_ingest, queue_segment
from workers.loop import run_worker
from workers.queue_segment import WatchedMask, tell_outcome
from workers.segment import RegionWork
from workers.worker import Interrupted, Worker

PLAN = Plan((600, 700), 64, 1, 512)
LABELS = np.zeros((512, 512), np.uint8)


def test_a_region_that_nobody_wants_is_not_written(tmp_path) -> None:
    mask = WatchedMask(tmp_path / "labels", PLAN, lambda: False)
    with pytest.raises(Interrupted):
        mask.write_region(PLAN.region(0), LABELS)
    assert not (tmp_path / "labels").exists()
    WatchedMask(tmp_path / "labels", PLAN, lambda: True).write_region(PLAN.region(0), LABELS)
    assert (tmp_path / "labels").exists()


def test_a_region_written_just_too_late_is_removed_by_who_wrote_it(
    jobs: JobStore, settings: Settings, connection: Connection
) -> None:
    """The job was cancelled, and its remains were removed, between the look at the job and the write."""
    store, image_id = Store(settings.store), new_id()
    job = jobs.submit(image_id, "a.png", "threshold", JobOptions())
    jobs.start(job.id)
    info = ImageInfo(height=600, width=700, channels=3, format="png")
    jobs.start_segment(job.id, info, 512, PLAN.region_count)
    image = ImagePyramid(write_image(store.image_zarr(image_id), picture(PLAN.shape)))
    predictor = load_predictor(threshold_model(settings.models[0] / "threshold"))
    mask = MaskWriter(mask_folder(partial(store.mask_zarr(job.id)), "threshold"), PLAN)
    with working(Stage.SEGMENT, settings, jobs, connection) as worker:
        delivery = next(worker.deliveries())
        jobs.cancel(job.id)
        mask.write_region(PLAN.region(0), LABELS)
        assert partial(store.mask_zarr(job.id)).exists()
        work = RegionWork(PLAN.region(0), image, mask, predictor, delivery)
        tell_outcome(worker, work, np.bincount(LABELS.ravel(), minlength=256))
    assert [path.name for path in store.job(job.id).iterdir()] == ["job.json"]


def test_a_mask_begun_just_too_late_is_removed_by_who_began_it(
    jobs: JobStore, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job was cancelled, and its remains were removed, between its ingest and the first file of its mask."""
    store, image_id = Store(settings.store), new_id()
    threshold_model(settings.models[0] / "threshold")
    write_image(store.image_zarr(image_id), picture(PLAN.shape))
    job = jobs.submit(image_id, "a.png", "threshold", JobOptions())
    create = queue_ingest._create_mask

    def create_too_late(worker: Worker, job: Job, plan: Plan) -> None:
        jobs.cancel(job.id)
        run_worker(Stage.ASSEMBLE, settings, burst=True)
        create(worker, job, plan)
        assert partial(store.mask_zarr(job.id)).exists()

    monkeypatch.setattr(queue_ingest, "_create_mask", create_too_late)
    run_worker(Stage.INGEST, settings, burst=True)
    assert [path.name for path in store.job(job.id).iterdir()] == ["job.json"]


def test_remains_that_cannot_be_looked_for_end_no_worker(
    jobs: JobStore, settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, image_id = Store(settings.store), new_id()
    threshold_model(settings.models[0] / "threshold")
    write_image(store.image_zarr(image_id), picture(PLAN.shape))
    jobs.submit(image_id, "a.png", "threshold", JobOptions(region_px=512))
    run_worker(Stage.INGEST, settings, burst=True)

    def interrupt(*_anything: object) -> None:
        raise Interrupted

    def fall_silent(*_anything: object) -> None:
        raise QueueUnavailable("silent")

    monkeypatch.setattr(WatchedMask, "write_region", interrupt)
    monkeypatch.setattr(queue_segment, "discard_remains", fall_silent)
    run_worker(Stage.SEGMENT, settings, burst=True)
    assert connection.call("XLEN", keys.work(Stage.SEGMENT)) == 0
