"""The segment stage on the queue: claimed regions flow through `workers.segment`, and each outcome is told.

Regions of several jobs may follow one another. A region that was told already is not computed again, and a job that
has left this stage is not written to: whoever notices it too late removes what it wrote.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from gigamask.job import Job, Stage, State
from gigamask.manifest import MANIFEST_NAME
from gigamask.plan import Plan, Region
from gigamask.pyramid.arrays import Pixels
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import MaskWriter, region_folder
from gigamask.pyramid.probabilities import ProbabilityWriter, probability_folder
from gigamask.queue.stream import Delivery
from gigamask.selection import Selection, select
from gigamask.store import partial
from model.predictors import RegionPredictor, load_predictor
from workers.queue_ingest import job_plan
from workers.remains import discard_remains
from workers.segment import SKIPPED, Outcome, RegionWork, areas_of, segment
from workers.worker import Interrupted, Worker

OPEN_JOBS = 8
OPEN_MODELS = 2


def run_segment(worker: Worker) -> None:
    table = _Table(worker)

    def done(work: RegionWork, outcome: Outcome) -> None:
        with worker.attempt(work.token):
            tell_outcome(worker, work, outcome)

    def failed(work: RegionWork, exc: Exception) -> None:
        worker.failed(work.token, exc)
        if isinstance(exc, Interrupted):
            with worker.guard(work.token):
                discard_remains(worker, work.token.job_id)

    segment(_work(worker, table), done, failed)


def _work(worker: Worker, table: _Table) -> Iterator[RegionWork | None]:
    for delivery in worker.deliveries():
        work = None
        with worker.guard(delivery):
            work = table.work(delivery)
        yield work


def tell_outcome(worker: Worker, work: RegionWork, outcome: Outcome) -> None:
    job_id, areas = work.token.job_id, areas_of(work.region, outcome)
    if not worker.jobs.complete_region(job_id, work.region.index, areas, skipped=outcome is SKIPPED):
        discard_remains(worker, job_id)


class WatchedMask(MaskWriter):
    """Writes only while somebody wants it."""

    def __init__(self, root: Path, plan: Plan, is_wanted: Callable[[], bool]) -> None:
        super().__init__(root, plan, plan.region_levels)
        self._is_wanted = is_wanted

    def write_region(self, region: Region, labels: Pixels) -> None:
        """Raises Interrupted where nobody does: the folder may be published or gone by now."""
        if not self._is_wanted():
            raise Interrupted
        super().write_region(region, labels)


@dataclass(frozen=True, slots=True)
class _OpenJob:
    plan: Plan
    image: ImagePyramid
    mask: WatchedMask
    model: Path
    selection: Selection | None
    probabilities: ProbabilityWriter | None


class _Table:
    """The jobs and models last worked on, open."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._jobs: OrderedDict[str, _OpenJob] = OrderedDict()
        self._predictors: OrderedDict[tuple[Path, int], RegionPredictor] = OrderedDict()

    def work(self, delivery: Delivery) -> RegionWork:
        """Raises Interrupted where the region is done already, and GigamaskError where the job cannot be opened."""
        assert delivery.region is not None
        if self._worker.jobs.region_done(delivery.job_id, delivery.region):
            raise Interrupted
        job = _recent(self._jobs, delivery.job_id, self._open, OPEN_JOBS)
        predictor = self._predictor(job.model)
        region = job.plan.region(delivery.region)
        return RegionWork(region, job.image, job.mask, predictor, delivery, job.selection, job.probabilities)

    def _open(self, job_id: str) -> _OpenJob:
        worker = self._worker
        job = worker.jobs.get(job_id)
        image = ImagePyramid(worker.store.image_zarr(job.image_id))
        plan = job_plan(worker, job, image.info)
        root = region_folder(partial(worker.store.mask_zarr(job_id)), job.model, job.options)

        def is_wanted() -> bool:
            return worker.jobs.state(job_id) == (State.RUNNING, Stage.SEGMENT)

        mask, model = WatchedMask(root, plan, is_wanted), worker.shelf.folder(job.model)
        selection = select(image, plan, job.options)
        return _OpenJob(plan, image, mask, model, selection, self._probabilities(job, plan))

    def _probabilities(self, job: Job, plan: Plan) -> ProbabilityWriter | None:
        if not job.options.probabilities:
            return None
        root = probability_folder(partial(self._worker.store.mask_zarr(job.id)))
        return ProbabilityWriter(root, plan, self._worker.shelf.manifest(job.model).classes)

    def _predictor(self, folder: Path) -> RegionPredictor:
        """Loaded again where the manifest was changed."""
        key = (folder, (folder / MANIFEST_NAME).stat().st_mtime_ns)
        return _recent(self._predictors, key, self._load, OPEN_MODELS)

    def _load(self, key: tuple[Path, int]) -> RegionPredictor:
        settings = self._worker.settings
        return load_predictor(key[0], settings.engine, settings.batch_tiles, settings.threads or None, settings.device)


K = TypeVar("K")
V = TypeVar("V")


def _recent(kept: OrderedDict[K, V], key: K, make: Callable[[K], V], limit: int) -> V:
    """The value of `key`, made where it is not kept; the `limit` last used ones are kept."""
    if key not in kept:
        kept[key] = make(key)
    kept.move_to_end(key)
    while len(kept) > limit:
        kept.popitem(last=False)
    return kept[key]
