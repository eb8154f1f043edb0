"""The assemble stage on the queue: a job whose regions are done becomes a published mask; or its remains are removed.

A job succeeds only after its mask is published, so an assembly that comes again finds the mask and tells it again.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from gigamask.job import Job, State
from gigamask.queue.stream import Delivery
from gigamask.store import partial
from workers.pace import Stop
from workers.queue_ingest import job_plan
from workers.worker import DISCARD, Interrupted, Worker

log = logging.getLogger(__name__)

REMOVE_ATTEMPTS = 5


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
        worker.jobs.succeed(job.id)
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
    assemble(image, target, plan, manifest, job.areas_px, job.options, go_on)


def discard_remains(worker: Worker, job_id: str) -> None:
    """Remove what is no longer used: all of the mask of a job that ended without one. Nothing before a job's end."""
    found = worker.jobs.state(job_id)
    if found is None or not found[0].final:
        return
    target = worker.store.mask_zarr(job_id)
    _remove(partial(target))
    if found[0] is not State.SUCCEEDED:
        _remove(target)


def _remove(tree: Path) -> None:
    """A late writer may add a file while the tree is being removed: begin again then."""
    for _ in range(REMOVE_ATTEMPTS):
        shutil.rmtree(tree, ignore_errors=True)
        if not tree.exists():
            return
    log.warning("cannot remove %s", tree)
