"""The ingest stage on the queue: an uploaded file becomes a pyramid and a plan, and its regions are queued.

Done twice it changes nothing: a pyramid that stands is taken as it is (by a job that asks for no other reading), a job
that has left this stage is left alone. A worker that is told to stop puts its image back, unfinished, at once.
Two jobs on one image do not read it at once: one takes it, the others are queued again when it is let go.
"""

from __future__ import annotations

import logging
from pathlib import Path

from gigamask.errors import BadImage, DecodeTimeout
from gigamask.image_info import ImageInfo
from gigamask.job import Job, SelectionSummary, Stage
from gigamask.plan import Plan, plan_job
from gigamask.queue.record import reading_path, require_reading, write_reading
from gigamask.queue.stream import Delivery
from gigamask.store import partial
from workers.pace import Stop, Teller
from workers.remains import discard_remains, remove_tree
from workers.worker import Interrupted, Stopped, Worker

log = logging.getLogger(__name__)


def run_ingest(worker: Worker) -> None:
    for delivery in worker.deliveries():
        with worker.attempt(delivery):
            _ingest(worker, delivery)


def _ingest(worker: Worker, delivery: Delivery) -> None:
    job = worker.jobs.get(delivery.job_id)
    if job.stage is not Stage.INGEST or not worker.jobs.take_image(job.id, job.image_id):
        return
    worker.jobs.start(job.id)
    info = _pyramid(worker, job, delivery)
    plan = job_plan(worker, job, info)
    selection = _select(worker, job, plan)
    _create_mask(worker, job, plan)
    told = worker.jobs.start_segment(job.id, info, plan.region_px, plan.region_count, plan.scale, selection)
    if not told:
        discard_remains(worker, job.id)  # it was cancelled, and its mask begun after the discard


def job_plan(worker: Worker, job: Job, info: ImageInfo) -> Plan:
    """Raises UnknownModel, BadModel or InvalidOption."""
    return plan_job(info, worker.shelf.manifest(job.model), job.options, job.region_px)


def _pyramid(worker: Worker, job: Job, delivery: Delivery) -> ImageInfo:
    """Raises Interrupted, Stopped, InvalidOption, or what `ingest` raises."""
    from gigamask.pyramid.image import ImagePyramid

    root = worker.store.image_zarr(job.image_id)
    if root.exists():
        require_reading(worker.store, job.image_id, job.options.read)
        return ImagePyramid(root).info
    write_reading(worker.store, job.image_id, job.options.read)
    try:
        return _read(worker, job, delivery, root)
    except BaseException as exc:
        if not worker.leases.lost(delivery):  # else it is another worker's by now
            reading_path(worker.store, job.image_id).unlink(missing_ok=True)
            if isinstance(exc, BadImage) and not isinstance(exc, DecodeTimeout):
                remove_tree(worker.store.image(job.image_id))  # no other try would read it
        raise


def _read(worker: Worker, job: Job, delivery: Delivery, root: Path) -> ImageInfo:
    from workers.ingest import IngestStopped, check_choices, ingest

    source = worker.store.image_source(job.image_id)
    check_choices(source, worker.shelf.manifest(job.model), job.options, worker.settings)
    log.info("reading %s for job %s", source.name, job.id)
    tell = Teller(lambda fraction: worker.jobs.note_ingest(job.id, fraction))
    stop = Stop(lambda: worker.is_cancelled(delivery), worker.stopping)
    try:
        return ingest(source, root, job.options.read, worker.settings, tell, stop)
    except IngestStopped as exc:
        raise (Stopped if worker.stopping.is_set() else Interrupted) from exc


def _select(worker: Worker, job: Job, plan: Plan) -> SelectionSummary | None:
    """Raises InvalidOption where the region of interest does not fit the image."""
    from gigamask.pyramid.image import ImagePyramid
    from gigamask.selection import select

    found = select(ImagePyramid(worker.store.image_zarr(job.image_id)), plan, job.options)
    return found.summary if found else None


def _create_mask(worker: Worker, job: Job, plan: Plan) -> None:
    """Before the regions are queued, so that a region never has to make what it writes into."""
    from gigamask.pyramid.mask import region_writer
    from gigamask.pyramid.probabilities import ProbabilityWriter, probability_folder

    target = worker.store.mask_zarr(job.id)
    if target.exists():
        return
    region_writer(partial(target), job.model, plan, job.options).create()
    if job.options.probabilities:
        classes = worker.shelf.manifest(job.model).classes
        ProbabilityWriter(probability_folder(partial(target)), plan, classes).create()
