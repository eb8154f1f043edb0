"""A region that is finished when nobody wants it any more leaves nothing behind."""

from __future__ import annotations

import numpy as np
import pytest

from gigamask.image_info import ImageInfo
from gigamask.job import JobOptions, Stage
from gigamask.plan import Plan
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter, mask_folder
from gigamask.queue.connection import Connection
from gigamask.queue.job_store import JobStore
from gigamask.settings import Settings
from gigamask.store import Store, new_id, partial
from model.predictors import load_predictor
from tests.models_for_tests import threshold_model
from tests.pictures import picture, write_image
from tests.workers.test_worker import working
from workers.queue_segment import WatchedMask, tell_outcome
from workers.segment import RegionWork
from workers.worker import Interrupted

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
