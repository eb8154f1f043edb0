"""The assemble stage on the queue: a job whose regions are done becomes a published mask; or its remains are removed.

A job succeeds only after its mask is published, so an assembly that comes again finds the mask and tells it again.
"""

from __future__ import annotations

from gigamask.job import Job
from gigamask.queue.record import reading
from gigamask.queue.stream import Delivery
from workers.pace import Stop
from workers.queue_ingest import job_plan
from workers.remains import discard_remains
from workers.worker import DISCARD, Interrupted, Worker


def run_assemble(worker: Worker) -> None:
    for delivery in worker.deliveries():
        with worker.attempt(delivery):
            if delivery.fields["act"] == DISCARD:
                discard_remains(worker, delivery.job_id)
            else:
                _assemble(worker, delivery)


def _assemble(worker: Worker, delivery: Delivery) -> None:
    job = worker.jobs.get(delivery.job_id)
    stop = Stop(lambda: worker.is_cancelled(delivery))
    try:
        _publish(worker, job, stop)
        worker.jobs.succeed(job.id, _areas_px(worker, job))
    finally:
        discard_remains(worker, job.id)  # if it was cancelled meanwhile


def _publish(worker: Worker, job: Job, stop: Stop) -> None:
    from workers.assemble import assemble

    def go_on(_fraction: float) -> None:
        if stop():
            raise Interrupted

    target, image = worker.store.mask_zarr(job.id), worker.store.image_zarr(job.image_id)
    if target.exists():  # by an earlier delivery of this message
        return
    if job.image is None:
        raise ValueError(f"job {job.id} is to be assembled and has no image")
    plan, manifest = job_plan(worker, job, job.image), worker.shelf.manifest(job.model)
    options = job.options.model_copy(update={"read": reading(worker.store, job.image_id)})
    skipped = worker.jobs.outcomes(job.id).skipped
    assemble(
        image, target, plan, manifest, job.areas_px, options, go_on, skipped=skipped, selection=job.selection
    )  # fmt: skip


def _areas_px(worker: Worker, job: Job) -> dict[int, int] | None:
    """Those of the published mask, where small objects were taken from what the regions counted."""
    if not job.options.min_object_px:
        return None
    from gigamask.pyramid.mask import mask_folder
    from gigamask.pyramid.ngff import areas_px, read_attributes

    return areas_px(read_attributes(mask_folder(worker.store.mask_zarr(job.id), job.model)))
