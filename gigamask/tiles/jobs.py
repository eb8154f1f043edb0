"""What of a job can be looked at now: its image once that has been read, its mask while it is made and afterwards.

What is published asks no Redis, only the disk. Opened pyramids are kept, the last few dozen of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gigamask.errors import Conflict, GigamaskError
from gigamask.job import Job, State
from gigamask.legend import Legend
from gigamask.manifest import ModelShelf
from gigamask.pyramid.image import ImagePyramid
from gigamask.pyramid.mask import region_folder
from gigamask.pyramid.result import open_result
from gigamask.queue.job_store import JobStore
from gigamask.store import Store, partial
from gigamask.tiles.cache import Cache
from gigamask.tiles.layers import Chunks, ImageLayer, Layer, MaskLayer
from gigamask.tiles.live import LiveMask

OPENED = 64
CHUNKS_BYTES = 32 * 1024**2  # forty chunks of an image: what a few viewers look at within a moment
GLANCE_S = 0.5
NO_LEGEND = Legend(())


@dataclass(frozen=True, slots=True)
class View:
    """layer: of pixels or of labels. legend: of labels. live: may be another at the next look."""

    layer: Layer
    root: Path
    legend: Legend = NO_LEGEND
    live: bool = False

    @property
    def stands(self) -> bool:
        """Whether its files are still there: what has gone reads as no data. A live one goes when it is published."""
        return self.root.is_dir()


class JobViews:
    def __init__(self, store: Store, jobs: JobStore, shelf: ModelShelf) -> None:
        self._store, self._jobs, self._shelf = store, jobs, shelf
        self._opened: Cache[View] = Cache(OPENED)
        self._seen: Cache[tuple[float, Job]] = Cache(1024)
        self._chunks: Chunks = Cache(CHUNKS_BYTES, lambda pixels: pixels.nbytes)

    def image(self, job_id: str) -> View:
        """Raises UnknownJob, or Conflict while the image has not been read."""
        published = self._store.mask_zarr(job_id)
        if published.is_dir():
            return self._open(published, "image", self._open_image)
        job = self._job(job_id)
        root = self._store.image_zarr(job.image_id)
        if not root.is_dir():
            raise Conflict(f"the job is {job.state}; its image is there once it has been read")
        return self._open(root, "image", self._open_image)

    def mask(self, job_id: str) -> View:
        """Raises UnknownJob, or Conflict for a job without a mask (yet)."""
        try:
            return self._mask(job_id, self._job)
        except Conflict:  # of what was so a moment ago: a job goes on while it is looked at
            return self._mask(job_id, self._look)

    def _mask(self, job_id: str, look: Callable[[str], Job]) -> View:
        published = self._store.mask_zarr(job_id)
        if published.is_dir():
            return self._open(published, "mask", self._open_mask)
        job, root = look(job_id), partial(published)
        if job.state is State.SUCCEEDED and published.is_dir():
            return self._open(published, "mask", self._open_mask)
        if job.state is not State.RUNNING or job.image is None or job.region_px is None or not root.is_dir():
            raise Conflict(f"the job is {job.state}; its mask is there once its first regions are begun")
        return self._open(root, "live", lambda root: self._open_live(root, job))

    def _job(self, job_id: str) -> Job:
        """As it was half a second ago at most: a screenful of tiles asks once."""
        seen = self._seen.get(job_id)
        if seen is None or seen[0] < time.monotonic() - GLANCE_S:
            return self._look(job_id)
        return seen[1]

    def _look(self, job_id: str) -> Job:
        job = self._jobs.get(job_id)
        self._seen.put(job_id, (time.monotonic(), job))
        return job

    def _open(self, root: Path, kind: str, make: Callable[[Path], View]) -> View:
        key = (root, kind)
        view = self._opened.get(key)
        if view is None:
            try:
                view = make(root)
            except FileNotFoundError as exc:
                raise Conflict("the job is changing its state; ask again") from exc
            self._opened.put(key, view)
        return view

    def _open_image(self, root: Path) -> View:
        return View(ImageLayer(ImagePyramid(root), self._chunks), root)

    def _open_mask(self, root: Path) -> View:
        result = open_result(root)
        return View(MaskLayer(result.mask, result.shape, self._chunks), root, result.legend)

    def _open_live(self, root: Path, job: Job) -> View:
        assert job.image is not None and job.region_px is not None
        layer = LiveMask(region_folder(root, job.model, job.options), job.image.shape, job.region_px)
        return View(layer, root, self._legend(job), live=True)

    def _legend(self, job: Job) -> Legend:
        """Of a model that is gone: none, so its classes are grey until the mask is published."""
        try:
            return Legend(self._shelf.manifest(job.model).classes)
        except GigamaskError:
            return NO_LEGEND
